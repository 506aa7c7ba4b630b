//! Encoding of images.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageResult};

use super::Rgb;

/// Encodes an image as PNG, quickly. Equal images give equal bytes.
pub fn png(rgb: &Rgb) -> ImageResult<Vec<u8>> {
    let mut png = Vec::with_capacity(rgb.data.len() / 2 + 256);
    PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive).write_image(
        &rgb.data,
        rgb.width,
        rgb.height,
        ExtendedColorType::Rgb8,
    )?;
    Ok(png)
}
