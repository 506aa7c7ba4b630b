//! Config keys of the images that a model sees.

use super::setting::join;
use super::{Place, Rule};
use crate::error::Result;

choice! {
    /// Library whose resizing and normalization of images is reproduced.
    pub enum ImageBackend {
        /// The library that the model's `preprocessor_config.json` names.
        Auto = "auto",
        /// torchvision, the default of Hugging Face transformers since July 2025.
        Torchvision = "torchvision",
        /// Pillow.
        Pil = "pil",
    }
}

choice! {
    /// Treatment of transparent images.
    pub enum ImageAlpha {
        /// The image is put onto white, as by transformers since 5.23.
        White = "white",
        /// The colours are used as they are stored.
        Drop = "drop",
    }
}

choice! {
    /// Treatment of grey images with 16 bits.
    pub enum Image16Bit {
        /// Values above 255 become white, as with Pillow.
        Clip = "clip",
        /// The upper 8 bits of each value are used.
        Upper = "upper",
    }
}

settings! {
    /// Sizes and values of the images that a model sees.
    pub struct ImageConfig {
        /// Minimum number of pixels of an image after resizing. null = the value in the model's
        /// preprocessor_config.json.
        image_min_pixels: Option<usize> = None, rule: Rule::PIXELS;
        /// Maximum number of pixels of an image after resizing. null = the value in the model's
        /// preprocessor_config.json.
        image_max_pixels: Option<usize> = None, rule: Rule::PIXELS;
        /// Library whose resizing and normalization of images is reproduced: torchvision or pil (Pillow). auto = the one
        /// that the model's preprocessor_config.json names, torchvision if it names none.
        image_backend: ImageBackend = ImageBackend::Auto, older: Some("pil"), name: "Hugging Face use_fast (true: torchvision)";
        /// Transparent images: white = put onto white, drop = use the colours as stored. null = the value in the model's
        /// preprocessor_config.json, otherwise white with torchvision and drop with pil.
        image_alpha: Option<ImageAlpha> = None;
        /// Grey images with 16 bits: clip = values above 255 become white, as with Pillow, upper = use the upper 8 bits.
        /// null = the value in the model's preprocessor_config.json, otherwise clip.
        image_16_bit: Option<Image16Bit> = None;
    }
}

impl ImageConfig {
    /// Returns the first key that is set, with its value, or `None` if the model's own settings hold.
    pub fn first_set(&self) -> Option<(&'static str, String)> {
        let number = |value: Option<usize>| value.map(|n| n.to_string());
        let backend = Some(self.image_backend).filter(|backend| *backend != ImageBackend::Auto);
        let keys = [
            ("image_min_pixels", number(self.image_min_pixels)),
            ("image_max_pixels", number(self.image_max_pixels)),
            ("image_backend", backend.map(|backend| backend.name().to_owned())),
            ("image_alpha", self.image_alpha.map(|alpha| alpha.name().to_owned())),
            ("image_16_bit", self.image_16_bit.map(|grey| grey.name().to_owned())),
        ];
        keys.into_iter().find_map(|(key, value)| Some((key, value?)))
    }

    /// Checks that the minimum number of pixels is at most the maximum. `path` is the group of the keys.
    pub(super) fn check_parts(&self, place: &Place, path: &str) -> Result<()> {
        let Some((min, max)) = self.image_min_pixels.zip(self.image_max_pixels) else { return Ok(()) };
        let expected = format!("at most image_max_pixels, which is {max}");
        place.check(min <= max, &join(path, "image_min_pixels"), min, &expected)
    }
}
