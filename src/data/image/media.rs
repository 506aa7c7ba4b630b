//! Ids and patch sizes of images and videos, as `config.json` has them.

use super::Grid;

/// Sizes of the patches of images and videos.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PatchGrid {
    /// Width and height of a patch in pixels.
    pub patch_size: usize,
    /// Number of frames in a patch.
    pub temporal_patch_size: usize,
    /// Number of patches per side that are merged into one token.
    pub merge_size: usize,
}

impl PatchGrid {
    /// Returns the number of patches that are merged into one token.
    pub fn merge_unit(self) -> usize {
        self.merge_size * self.merge_size
    }

    /// Returns the number of values of one patch: 3 channels x frames x height x width.
    pub fn patch_len(self) -> usize {
        3 * self.temporal_patch_size * self.patch_size * self.patch_size
    }
}

/// Ids of the tokens of images and videos.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaIds {
    /// Placeholder of an image's rows.
    pub image: u32,
    /// Placeholder of a video's rows.
    pub video: u32,
    /// Before an image or video.
    pub start: u32,
    /// After an image or video.
    pub end: u32,
    /// The padding token of images, which no prompt contains.
    pub pad: u32,
}

impl MediaIds {
    /// Returns the ids that a prompt contains, with their keys in `config.json`.
    pub fn named(&self) -> [(&'static str, u32); 4] {
        let keys = ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"];
        let ids = [self.image, self.video, self.start, self.end];
        std::array::from_fn(|i| (keys[i], ids[i]))
    }

    /// Returns all ids.
    pub fn all(&self) -> [u32; 5] {
        [self.image, self.video, self.start, self.end, self.pad]
    }
}

/// Ids and patches of images and videos.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MediaFormat {
    /// Ids of tokens.
    pub ids: MediaIds,
    /// Sizes of patches.
    pub grid: PatchGrid,
    /// True if each temporal patch of a video has placeholders of its own, after its time as text.
    pub timestamps: bool,
}

impl MediaFormat {
    /// Returns the token that a chat template writes for an image or for a video.
    pub fn placeholder(&self, is_video: bool) -> u32 {
        if is_video { self.ids.video } else { self.ids.image }
    }

    /// Returns true if rows of the vision tower replace the embedding of this token.
    pub fn is_placeholder(&self, id: u32) -> bool {
        [self.ids.image, self.ids.video].contains(&id)
    }

    /// Returns the grids of the parts of an image or video that have placeholders of their own.
    pub fn runs(&self, grid: Grid) -> impl Iterator<Item = Grid> + use<> {
        let splits = self.timestamps && grid.is_video();
        let (run, count) = if splits { (grid.temporal_patch(), grid.t()) } else { (grid, 1) };
        std::iter::repeat_n(run, count)
    }

    /// Returns the text before each temporal patch of a video with frames at these `indices` of a recording: the mean time
    /// of its first and its last frame, as the processor of Qwen3-VL writes it. An incomplete patch repeats its last frame.
    pub fn times_of(&self, indices: &[usize], fps: f64) -> Vec<String> {
        let text = |patch: &[usize]| {
            let [first, last] = [patch[0], patch[patch.len() - 1]].map(|index| index as f64 / fps);
            format!("<{:.1} seconds>", (first + last) / 2.0)
        };
        indices.chunks(self.grid.temporal_patch_size).map(text).collect()
    }

    /// Returns the same for a video of `frames` frames.
    pub fn times(&self, frames: usize, fps: f64) -> Vec<String> {
        self.times_of(&(0..frames).collect::<Vec<usize>>(), fps)
    }

    /// Returns the tokens of an image or video with this grid: a placeholder for each row of the vision tower.
    pub fn tokens(&self, grid: Grid) -> impl Iterator<Item = u32> + use<> {
        std::iter::repeat_n(self.placeholder(grid.is_video()), grid.patches() / self.grid.merge_unit())
    }
}
