//! Decoding: PNG, JPEG, WebP, GIF (first frame) and BMP to RGB as Pillow's `convert("RGB")` gives it.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::Rgb;
use crate::error::{Error, Result};

/// What a picture may measure; checked from its header, before anything is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest width times height.
    pub max_pixels: u64,
    /// Largest width, and largest height.
    pub max_side: u32,
}

impl Default for Limits {
    /// 178,956,970 pixels, the bound of Pillow and vLLM; a side of 65,535, JPEG's own.
    fn default() -> Limits {
        Limits { max_pixels: 178_956_970, max_side: 65_535 }
    }
}

const FORMATS: [ImageFormat; 5] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp];

/// Decodes a picture, whatever its file is called, upright by its EXIF orientation. Alpha is dropped, 16-bit
/// colours keep their high byte, 16-bit grey is clipped at 255; a GIF's first frame stands on black where it does
/// not fill the screen. `place` (the file, or the row) begins every error.
pub fn decode(bytes: &[u8], limits: &Limits, place: &str) -> Result<Rgb> {
    let refuse = |found: String, expected: &str| Error::input(place, found, expected);
    let broken = |e: image::ImageError| refuse(format!("a broken picture ({e})"), "a whole one");
    let format = image::guess_format(bytes).ok().filter(|f| FORMATS.contains(f));
    let Some(format) = format else {
        let found = format!("{} bytes that are no picture", bytes.len());
        return Err(refuse(found, "a PNG, JPEG, WebP, GIF or BMP file"));
    };

    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > limits.max_pixels || width.max(height) > limits.max_side {
        let expected = format!("1 to {} pixels, sides up to {}", limits.max_pixels, limits.max_side);
        return Err(refuse(format!("{width} x {height} pixels"), &expected));
    }
    if format == ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        return Err(refuse("a JPEG file that ends too early".to_owned(), "a whole one"));
    }
    let mut memory = image::Limits::no_limits();
    // Eight bytes a pixel (16-bit RGBA), twice for what decoders hold besides, and their tables.
    memory.max_alloc = Some(16 * pixels + (1 << 24));
    decoder.set_limits(memory).map_err(broken)?;
    // An unreadable orientation is no reason to lose the picture: Pillow ignores it too.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    to_rgb(image).ok_or_else(|| refuse("a kind of pixel".to_owned(), "grey, colour or palette"))
}

/// Pillow's `convert("RGB")`: grey is repeated, alpha dropped.
fn to_rgb(image: DynamicImage) -> Option<Rgb> {
    let high = |v: u16| (v >> 8) as u8;
    let (width, height) = (image.width(), image.height());
    let data = match image {
        DynamicImage::ImageRgb8(image) => image.into_raw(),
        DynamicImage::ImageRgba8(image) => image.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageLumaA8(image) => image.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageRgb16(image) => image.pixels().flat_map(|p| [p[0], p[1], p[2]].map(high)).collect(),
        DynamicImage::ImageRgba16(image) => image.pixels().flat_map(|p| [p[0], p[1], p[2]].map(high)).collect(),
        // Not the high byte: Pillow clips this kind, and the models were trained on what it gives.
        DynamicImage::ImageLuma16(image) => image.pixels().flat_map(|p| [p[0].min(255) as u8; 3]).collect(),
        DynamicImage::ImageLumaA16(image) => image.pixels().flat_map(|p| [high(p[0]); 3]).collect(),
        _ => return None,
    };
    Some(Rgb { width, height, data })
}

/// Whether the end marker follows the compressed data: the decoder would fill what is missing with grey.
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    let mut scanned = false;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        match (first, marker) {
            (0xff, 0xd9) => return scanned,
            (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0x01 | 0xd0..=0xd7) => at += 2,
            (0xff, _) => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
                scanned |= marker == 0xda;
                at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
            }
            // Compressed data, or bytes that stand between segments.
            _ => at += 1,
        }
    }
    false
}
