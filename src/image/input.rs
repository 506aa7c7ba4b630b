//! A picture or video as the model takes it.

use bytemuck::{Pod, Zeroable};

/// Frames of a patch: Qwen2.5-VL's `temporal_patch_size`.
const TEMPORAL_PATCH_SIZE: u16 = 2;

/// A picture or video as the model takes it: resized bytes and their grid of patches.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInput {
    /// Patches along time, height and width.
    pub grid_thw: [u32; 3],
    /// Frames in `pixels`: 1 for a picture (which stands for all frames of its patches), else `t * temporal_patch_size`.
    pub frames: u32,
    /// `[frames][grid_h * patch_size][grid_w * patch_size][3]`.
    pub pixels: Vec<u8>,
    /// Seconds of a video that one temporal patch shows; 1 for a picture.
    pub second_per_grid_ts: f64,
}

/// The patches of a picture or video, in few bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Grid {
    /// Frames in the pixels: 1 for a picture, an even number for a video.
    pub frames: u16,
    /// Patches down.
    pub h: u16,
    /// Patches across.
    pub w: u16,
}

impl ImageInput {
    /// A picture of so many patches down and across.
    pub fn picture([h, w]: [u32; 2], pixels: Vec<u8>) -> ImageInput {
        ImageInput { grid_thw: [1, h, w], frames: 1, pixels, second_per_grid_ts: 1.0 }
    }

    /// A black picture or video of this size.
    pub fn blank(grid: Grid, patch_size: usize) -> ImageInput {
        let pixels = vec![0; grid.frame_patches() * patch_size * patch_size * 3];
        let picture = ImageInput::picture([grid.h.into(), grid.w.into()], pixels);
        ImageInput { grid_thw: grid.thw(), frames: grid.frames.into(), ..picture }
    }

    /// Its size. Bounded decoding and the processor's limits leave fewer than 2^16 patches along a side.
    pub fn grid(&self) -> Grid {
        let [_, h, w] = self.grid_thw;
        Grid { frames: self.frames as u16, h: h as u16, w: w as u16 }
    }

    /// True for a video.
    pub fn is_video(&self) -> bool {
        self.frames > 1
    }

    /// Tokens it takes in the text.
    pub fn tokens(&self, merge_size: u32) -> usize {
        self.grid_thw.iter().map(|&n| n as usize).product::<usize>() / (merge_size as usize).pow(2)
    }
}

impl Grid {
    /// The size of a picture.
    pub fn picture(h: u16, w: u16) -> Grid {
        Grid { frames: 1, h, w }
    }

    /// The size of a video of so many frames, the last of which is repeated where that is odd; none where they are too many.
    pub fn video(frames: usize, h: u16, w: u16) -> Option<Grid> {
        let frames = u16::try_from(frames.next_multiple_of(TEMPORAL_PATCH_SIZE.into())).ok()?;
        Some(Grid { frames, h, w })
    }

    /// True for a video.
    pub fn is_video(self) -> bool {
        self.frames > 1
    }

    /// Patches along time.
    pub fn t(self) -> usize {
        self.frames.div_ceil(TEMPORAL_PATCH_SIZE).into()
    }

    /// Patches along time, height and width.
    pub fn thw(self) -> [u32; 3] {
        [self.t() as u32, self.h.into(), self.w.into()]
    }

    /// Patches of one frame.
    pub fn area(self) -> usize {
        usize::from(self.h) * usize::from(self.w)
    }

    /// Patches.
    pub fn patches(self) -> usize {
        self.t() * self.area()
    }

    /// Patches of all frames in the pixels: what those take.
    pub fn frame_patches(self) -> usize {
        usize::from(self.frames) * self.area()
    }
}
