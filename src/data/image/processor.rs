//! The image processor of Qwen2.5-VL and Qwen3-VL: computes resized sizes and patches.

use std::path::Path;

use super::{Backend, Decoding, ImageInput, MediaFormat, PatchGrid, Rgb, resize};
use omr_base::config::{Image16Bit, ImageAlpha, ImageBackend, ImageConfig};
use omr_base::error::{Error, Result};

/// Settings of `preprocessor_config.json`, with Hugging Face's names.
#[derive(Clone, Debug, PartialEq)]
pub struct Processor {
    /// Side of a patch in pixels.
    pub patch_size: u32,
    /// Number of patches along each side that the model merges into one token.
    pub merge_size: u32,
    /// Number of frames per patch.
    pub temporal_patch_size: u32,
    /// Minimum area after resizing, in pixels.
    pub min_pixels: u64,
    /// Maximum area after resizing, in pixels.
    pub max_pixels: u64,
    /// Mean of each channel, for values from 0 to 1.
    pub image_mean: [f32; 3],
    /// Standard deviation of each channel.
    pub image_std: [f32; 3],
    /// Factor that bytes are multiplied by.
    pub rescale_factor: f64,
    /// Library whose resizing and normalization are reproduced.
    pub backend: Backend,
    /// Treatment of transparent images.
    pub alpha: ImageAlpha,
    /// Treatment of grey images with 16 bits.
    pub grey: Image16Bit,
}

impl Default for Processor {
    /// Returns the settings of the released Qwen2.5-VL models, with Pillow.
    fn default() -> Processor {
        Processor {
            patch_size: 14,
            merge_size: 2,
            temporal_patch_size: 2,
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 16384,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.261_302_6, 0.275_777_1],
            rescale_factor: 1.0 / 255.0,
            backend: Backend::Pil,
            alpha: ImageAlpha::Drop,
            grey: Image16Bit::Clip,
        }
    }
}

impl Processor {
    /// Returns the settings of the released models with these patches: those of Qwen3-VL if a patch is 16 pixels wide,
    /// otherwise those of Qwen2.5-VL.
    pub fn released(grid: PatchGrid) -> Processor {
        let default = Processor {
            patch_size: grid.patch_size as u32,
            merge_size: grid.merge_size as u32,
            temporal_patch_size: grid.temporal_patch_size as u32,
            ..Processor::default()
        };
        if grid.patch_size != 16 {
            return default;
        }
        let (image_mean, image_std) = ([0.5; 3], [0.5; 3]);
        Processor { min_pixels: 256 * 256, max_pixels: 4096 * 4096, image_mean, image_std, ..default }
    }

    /// Loads the processor of the model in `dir` with these settings (see [`Processor::with`]). Returns `None` if `media`
    /// is `None`: a text model has no processor, and settings are then an error.
    pub fn of_model(dir: &Path, media: Option<MediaFormat>, images: &ImageConfig) -> Result<Option<Processor>> {
        match (media, images.first_set()) {
            (Some(media), _) => Processor::load(dir, media.grid)?.with(images).map(Some),
            (None, Some((key, value))) => {
                Err(Error::input(key, value, format!("no settings of images: {} is a text model", dir.display())))
            }
            (None, None) => Ok(None),
        }
    }

    /// Returns how values are decoded that an RGB image of 8 bits cannot hold.
    pub fn decoding(&self) -> Decoding {
        Decoding { alpha: self.alpha, grey: self.grey }
    }

    /// Returns the processor with the settings of a config. A key that is not set keeps the current value; another
    /// library without a treatment of alpha gets its own. Returns an error if the minimum number of pixels exceeds the
    /// maximum.
    pub fn with(mut self, images: &ImageConfig) -> Result<Processor> {
        self.min_pixels = images.image_min_pixels.map_or(self.min_pixels, |p| p as u64);
        self.max_pixels = images.image_max_pixels.map_or(self.max_pixels, |p| p as u64);
        let backend = match images.image_backend {
            ImageBackend::Auto => self.backend,
            ImageBackend::Torchvision => Backend::Torchvision,
            ImageBackend::Pil => Backend::Pil,
        };
        if backend != self.backend {
            (self.backend, self.alpha) = (backend, backend.alpha());
        }
        self.alpha = images.image_alpha.unwrap_or(self.alpha);
        self.grey = images.image_16_bit.unwrap_or(self.grey);
        let Processor { min_pixels, max_pixels, .. } = self;
        if min_pixels <= max_pixels {
            return Ok(self);
        }
        let expected = format!("at most image_max_pixels, which is {max_pixels}");
        let hint = "a bound that is not set is the one in the model's preprocessor_config.json";
        Err(Error::input_hint("image_min_pixels", min_pixels.to_string(), expected, hint))
    }

    /// Resizes an image to model input.
    pub fn image(&self, image: &Rgb) -> Result<ImageInput> {
        let [h, w] = self.grid(image.width, image.height)?;
        let pixels = resize(image, w * self.patch_size, h * self.patch_size, self.backend).data;
        Ok(ImageInput { backend: self.backend, ..ImageInput::image([h, w], pixels) })
    }

    /// Joins the frames of a video, each resized by [`Processor::image`]. The last frame is repeated to a multiple of
    /// `temporal_patch_size`. `fps` is the number of frames per second. Returns an error if there are no frames or
    /// their sizes differ.
    pub fn video(&self, frames: &[ImageInput], fps: f64) -> Result<ImageInput> {
        let Some(([_, h, w], last)) = frames.first().map(|first| first.grid_thw).zip(frames.last()) else {
            return Err(Error::input("video", "no frames", "at least one frame"));
        };
        let side = self.patch_size;
        let other = frames.iter().enumerate().find(|(_, frame)| frame.grid_thw != [1, h, w]);
        if let Some((i, frame)) = other {
            let [_, other_h, other_w] = frame.grid_thw;
            let found = format!("{} x {} pixels", other_w * side, other_h * side);
            let expected = format!("{} x {}, the size of the first frame", w * side, h * side);
            return Err(Error::input(format!("frame {i} of a video"), found, expected));
        }
        let t = u32::try_from(frames.len()).unwrap_or(u32::MAX).div_ceil(self.temporal_patch_size);
        let total = t * self.temporal_patch_size;
        let padding = std::iter::repeat_n(last, total as usize - frames.len());
        let pixels = frames.iter().chain(padding).flat_map(|frame| &frame.pixels).copied().collect();
        let second_per_grid_ts = f64::from(self.temporal_patch_size) / fps;
        Ok(ImageInput { grid_thw: [t, h, w], frames: total, pixels, second_per_grid_ts, backend: self.backend })
    }

    /// Returns the number of patches along height and width of an image of this size after resizing.
    pub fn grid(&self, width: u32, height: u32) -> Result<[u32; 2]> {
        let factor = self.patch_size * self.merge_size;
        let (height, width) = smart_resize(height, width, factor, self.min_pixels, self.max_pixels)?;
        Ok([height / self.patch_size, width / self.patch_size])
    }
}

/// Maximum aspect ratio, in either direction, that the processor accepts.
const MAX_RATIO: f64 = 200.0;

/// Returns the size (height, width) to resize to. Both are multiples of `factor` near the given size, their area is
/// within the bounds, and the aspect ratio is kept as closely as possible. Halves round to even.
pub fn smart_resize(height: u32, width: u32, factor: u32, min_pixels: u64, max_pixels: u64) -> Result<(u32, u32)> {
    let (h, w, f) = (f64::from(height), f64::from(width), f64::from(factor));
    if height == 0 || width == 0 || h.max(w) / h.min(w) > MAX_RATIO {
        let found = format!("{width} x {height} pixels");
        return Err(Error::input("image", found, format!("an aspect ratio of at most {MAX_RATIO}")));
    }
    let fit = |scale: &dyn Fn(f64) -> f64| (scale(h) * f, scale(w) * f);
    let mut size = fit(&|side| (side / f).round_ties_even());
    if size.0 * size.1 > max_pixels as f64 {
        let beta = (h * w / max_pixels as f64).sqrt();
        size = fit(&|side| (side / beta / f).floor().max(1.0));
    } else if size.0 * size.1 < min_pixels as f64 {
        let beta = (min_pixels as f64 / (h * w)).sqrt();
        size = fit(&|side| (side * beta / f).ceil());
    }
    Ok((size.0 as u32, size.1 as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, seed: u32) -> Rgb {
        let data = (0..width * height * 3).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        Rgb { width, height, data }
    }

    #[test]
    fn a_video_pads_its_last_frame() {
        let processor = Processor { min_pixels: 784, ..Processor::default() };
        let frames: Vec<ImageInput> = (0..3).map(|i| processor.image(&image(56, 28, i)).unwrap()).collect();
        let video = processor.video(&frames, 0.5).unwrap();
        assert_eq!((video.grid_thw, video.frames, video.tokens(2)), ([2, 2, 4], 4, 4));
        assert_eq!(video.second_per_grid_ts, 4.0);
        let frame_len = 56 * 28 * 3;
        assert_eq!(video.pixels[2 * frame_len..3 * frame_len], video.pixels[3 * frame_len..]);

        let odd = [image(56, 28, 0), image(28, 56, 0)].map(|frame| processor.image(&frame).unwrap());
        assert!(processor.video(&odd, 2.0).unwrap_err().to_string().starts_with("frame 1"));
        assert!(processor.video(&[], 2.0).is_err());
    }
}
