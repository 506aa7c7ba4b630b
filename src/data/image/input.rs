//! Model input of an image or video: resized pixels with their grid of patches.

use bytemuck::{Pod, Zeroable};

use super::{Backend, Rgb};

/// Number of frames per patch: Qwen2.5-VL's `temporal_patch_size`.
const TEMPORAL_PATCH_SIZE: u16 = 2;

/// An image or video as model input: resized pixels and their grid of patches.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInput {
    /// Number of patches along time, height and width.
    pub grid_thw: [u32; 3],
    /// Number of frames in `pixels`: 1 for an image (used for all frames of its patches), otherwise `t *
    /// temporal_patch_size`.
    pub frames: u32,
    /// Pixels, `[frames][grid_h * patch_size][grid_w * patch_size][3]`.
    pub pixels: Vec<u8>,
    /// Seconds of a video in one temporal patch; 1 for an image.
    pub second_per_grid_ts: f64,
    /// Library whose normalization belongs to the pixels.
    pub backend: Backend,
}

/// Compact patch grid of an image or video.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Grid {
    /// Number of frames in the pixels: 1 for an image, an even number for a video.
    pub frames: u16,
    /// Number of patches along the height.
    pub h: u16,
    /// Number of patches along the width.
    pub w: u16,
}

impl ImageInput {
    /// Creates the input of an image with `h` by `w` patches, normalized as with Pillow.
    pub fn image([h, w]: [u32; 2], pixels: Vec<u8>) -> ImageInput {
        ImageInput { grid_thw: [1, h, w], frames: 1, pixels, second_per_grid_ts: 1.0, backend: Backend::Pil }
    }

    /// Creates a black image or video with this grid.
    pub fn blank(grid: Grid, patch_size: usize) -> ImageInput {
        let pixels = vec![0; grid.frame_patches() * patch_size * patch_size * 3];
        let image = ImageInput::image([grid.h.into(), grid.w.into()], pixels);
        ImageInput { grid_thw: grid.thw(), frames: grid.frames.into(), ..image }
    }

    /// Returns the temporal patches as inputs of their own.
    pub fn temporal_patches(&self) -> Vec<ImageInput> {
        let [t, h, w] = self.grid_thw;
        let (frames, len) = (self.frames / t.max(1), self.pixels.len() / t.max(1) as usize);
        let patches = self.pixels.chunks_exact(len.max(1));
        patches.map(|pixels| ImageInput { grid_thw: [1, h, w], frames, pixels: pixels.to_vec(), ..*self }).collect()
    }

    /// Returns the compact grid. The limits on decoding and resizing leave fewer than 2^16 patches per side.
    pub fn grid(&self) -> Grid {
        let [_, h, w] = self.grid_thw;
        Grid { frames: self.frames as u16, h: h as u16, w: w as u16 }
    }

    /// Returns the image, or the first frame of the video.
    pub fn first_frame(&self) -> Rgb {
        let [_, h, w] = self.grid_thw;
        let frame = self.pixels.len() / self.frames.max(1) as usize;
        let patch_size = (frame / (3 * h * w).max(1) as usize).isqrt() as u32;
        Rgb { width: w * patch_size, height: h * patch_size, data: self.pixels[..frame].to_vec() }
    }

    /// Returns true for a video.
    pub fn is_video(&self) -> bool {
        self.frames > 1
    }

    /// Returns the number of tokens that the image or video takes in the text.
    pub fn tokens(&self, merge_size: u32) -> usize {
        self.grid_thw.iter().map(|&n| n as usize).product::<usize>() / (merge_size as usize).pow(2)
    }
}

impl Grid {
    /// Creates the grid of an image.
    pub fn image(h: u16, w: u16) -> Grid {
        Grid { frames: 1, h, w }
    }

    /// Creates the grid of a video with `frames` frames; an odd number is rounded up, because the last frame is
    /// repeated. Returns `None` if there are too many frames.
    pub fn video(frames: usize, h: u16, w: u16) -> Option<Grid> {
        let frames = u16::try_from(frames.next_multiple_of(TEMPORAL_PATCH_SIZE.into())).ok()?;
        Some(Grid { frames, h, w })
    }

    /// Returns true for a video.
    pub fn is_video(self) -> bool {
        self.frames > 1
    }

    /// Returns the grid of one temporal patch.
    pub fn temporal_patch(self) -> Grid {
        Grid { frames: self.frames.min(TEMPORAL_PATCH_SIZE), ..self }
    }

    /// Returns the number of patches along time.
    pub fn t(self) -> usize {
        self.frames.div_ceil(TEMPORAL_PATCH_SIZE).into()
    }

    /// Returns the number of patches along time, height and width.
    pub fn thw(self) -> [u32; 3] {
        [self.t() as u32, self.h.into(), self.w.into()]
    }

    /// Returns the number of patches of one frame.
    pub fn area(self) -> usize {
        usize::from(self.h) * usize::from(self.w)
    }

    /// Returns the number of patches.
    pub fn patches(self) -> usize {
        self.t() * self.area()
    }

    /// Returns the number of patches over all frames in the pixels, which determines the size of the pixels.
    pub fn frame_patches(self) -> usize {
        usize::from(self.frames) * self.area()
    }
}
