//! Encoding of images.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageResult, RgbImage, imageops};

use super::Rgb;
use super::jpeg::jpeg;

/// Encodes an image as PNG, quickly. Equal images give equal bytes.
pub fn png(rgb: &Rgb) -> ImageResult<Vec<u8>> {
    let mut png = Vec::with_capacity(rgb.data.len() / 2 + 256);
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Fast, FilterType::Adaptive);
    encoder.write_image(&rgb.data, rgb.width, rgb.height, ExtendedColorType::Rgb8)?;
    Ok(png)
}

/// Maximum size in bytes of a thumbnail without loss.
const LOSSLESS: usize = 12 << 10;
/// Quality of the JPEGs that pages show.
const QUALITY: u8 = 75;

/// Returns the image as a JPEG whose longer side has at most `largest` pixels. Returns `None` if `rgb` is inconsistent.
pub fn jpeg_within(rgb: Rgb, largest: u32) -> Option<Vec<u8>> {
    let Rgb { width, height, data } = rgb;
    let mut whole = RgbImage::from_raw(width, height, data)?;
    // Using every pixel of a very large image would take seconds. Therefore only about 4 x 4 source pixels are used for
    // each pixel of the result.
    let step = width.max(height) / (4 * largest);
    if step > 1 {
        let [columns, rows] = [width.div_ceil(step), height.div_ceil(step)];
        whole = RgbImage::from_fn(columns, rows, |x, y| *whole.get_pixel(x * step, y * step));
    }
    let scale = (largest as f64 / width.max(height).max(1) as f64).min(1.0);
    let side = |length: u32| ((length as f64 * scale).round() as u32).max(1);
    let shown = imageops::thumbnail(&whole, side(width), side(height));
    jpeg(&Rgb { width: shown.width(), height: shown.height(), data: shown.into_raw() }, QUALITY)
}

/// Returns a small version of the image: a PNG if few bytes suffice, otherwise a JPEG whose longer side has at most
/// `largest` pixels.
pub fn thumbnail(rgb: Rgb, largest: u32) -> Option<Vec<u8>> {
    let lossless = png(&rgb).ok().filter(|png| png.len() <= LOSSLESS);
    lossless.or_else(|| jpeg_within(rgb, largest))
}
