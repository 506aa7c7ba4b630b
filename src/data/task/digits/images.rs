//! Real handwritten digits, and images composed of two of them.

use std::io::Read;
use std::ops::Range;

use flate2::read::GzDecoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use omr_base::error::{Error, Result};

/// Side of a digit in an image, in pixels.
pub const SIDE: usize = 28;
/// Side of a digit in the data file, in pixels.
const RECORDED: usize = 8;
/// Largest pixel value in the data file.
const DEEPEST: f32 = 16.0;
const EMBEDDED: &[u8] = include_bytes!("../../../../data/digits/digits.csv.gz");

/// Digits that are never used for training: the last 400.
pub const HELD_OUT: Range<usize> = 1397..1797;
/// Training digits of a run that is evaluated on [`HELD_OUT`].
pub const TRAIN: Range<usize> = 0..1397;
/// Evaluation digits while settings are tuned, after training on [`TUNING_TRAIN`].
pub const TUNING: Range<usize> = 997..1397;
/// Training digits while settings are tuned.
pub const TUNING_TRAIN: Range<usize> = 0..997;

/// Pixels of one digit, 28 x 28. Ink is bright.
pub type Pixels = [u8; SIDE * SIDE];

/// An image of a digit with its label.
#[derive(Clone)]
pub struct Digit {
    /// Pixels in row-major order.
    pub pixels: Pixels,
    /// The digit, 0 to 9.
    pub label: u8,
}

/// Loads all 1,797 digits in the order of the file, scaled to 28 x 28.
pub fn load() -> Result<Vec<Digit>> {
    let broken = |what: String| Error::format("data/digits/digits.csv.gz", what);
    let mut text = String::new();
    GzDecoder::new(EMBEDDED).read_to_string(&mut text).map_err(|e| broken(e.to_string()))?;
    let mut digits = Vec::with_capacity(HELD_OUT.end);
    for (i, line) in text.lines().enumerate() {
        let values: Vec<u8> = line.split(',').map_while(|v| v.trim().parse().ok()).collect();
        match values[..] {
            [ref pixels @ .., label] if pixels.len() == RECORDED * RECORDED && label < 10 => {
                digits.push(Digit { pixels: scale(pixels), label });
            }
            _ => return Err(broken(format!("line {}: expected 64 values and a digit", i + 1))),
        }
    }
    if digits.len() != HELD_OUT.end {
        return Err(broken(format!("{} digits, expected {}", digits.len(), HELD_OUT.end)));
    }
    Ok(digits)
}

/// Scales a digit bilinearly. Pixel centres are at half-integers, and edges are repeated.
fn scale(recorded: &[u8]) -> Pixels {
    let weights = |i: usize| {
        let at = ((i as f32 + 0.5) * RECORDED as f32 / SIDE as f32 - 0.5).clamp(0.0, (RECORDED - 1) as f32);
        let low = (at as usize).min(RECORDED - 2);
        (low, at - low as f32)
    };
    let mut out = [0; SIDE * SIDE];
    for y in 0..SIDE {
        let (y0, fy) = weights(y);
        for x in 0..SIDE {
            let (x0, fx) = weights(x);
            let at = |dy: usize, dx: usize| f32::from(recorded[(y0 + dy) * RECORDED + x0 + dx]);
            let upper = at(0, 0) * (1.0 - fx) + at(0, 1) * fx;
            let lower = at(1, 0) * (1.0 - fx) + at(1, 1) * fx;
            let value = upper * (1.0 - fy) + lower * fy;
            out[y * SIDE + x] = (value * (255.0 / DEEPEST)).round() as u8;
        }
    }
    out
}

/// Moves a digit by (dx, dy) pixels. Pixels from outside are background.
pub fn shifted(pixels: &Pixels, [dx, dy]: [i32; 2]) -> Pixels {
    let mut out = [0; SIDE * SIDE];
    let side = SIDE as i32;
    for y in 0..side {
        for x in 0..side {
            let (from_x, from_y) = (x - dx, y - dy);
            if (0..side).contains(&from_x) && (0..side).contains(&from_y) {
                out[(y * side + x) as usize] = pixels[(from_y * side + from_x) as usize];
            }
        }
    }
    out
}

/// Encodes two digits side by side as a grey PNG of 56 x 28.
pub fn png(left: &Pixels, right: &Pixels) -> Result<Vec<u8>> {
    let mut grey = [0; 2 * SIDE * SIDE];
    for (y, row) in grey.chunks_exact_mut(2 * SIDE).enumerate() {
        row[..SIDE].copy_from_slice(&left[y * SIDE..][..SIDE]);
        row[SIDE..].copy_from_slice(&right[y * SIDE..][..SIDE]);
    }
    let mut bytes = Vec::with_capacity(1024);
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::NoFilter)
        .write_image(&grey, 2 * SIDE as u32, SIDE as u32, ExtendedColorType::L8)
        .map_err(|e| Error::Failed(format!("cannot compose an image: {e}")))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_digits_are_there_with_about_as_many_of_each() {
        let digits = load().unwrap();
        for label in 0..10 {
            let n = digits.iter().filter(|d| d.label == label).count();
            assert!((150..200).contains(&n), "{label}: {n}");
        }
        assert_eq!((TRAIN.len(), HELD_OUT.len()), (1397, 400));
        assert_eq!((TUNING_TRAIN.len(), TUNING.len()), (997, 400));
    }

    #[test]
    fn scaling_keeps_corners_and_shifting_moves() {
        let mut recorded = [0; 64];
        recorded[0] = 16;
        recorded[63] = 8;
        let pixels = scale(&recorded);
        assert_eq!((pixels[0], pixels[SIDE * SIDE - 1], pixels[SIDE / 2 * SIDE]), (255, 128, 0));
        let moved = shifted(&pixels, [2, 1]);
        assert_eq!((moved[0], moved[SIDE + 2]), (0, 255));
        assert_eq!(shifted(&pixels, [0, 0]), pixels);
    }

    #[test]
    fn a_image_decodes_to_its_two_digits() {
        let digits = load().unwrap();
        let bytes = png(&digits[0].pixels, &digits[1].pixels).unwrap();
        let rgb = crate::image::decode(&bytes, &crate::image::Limits::default(), "t").unwrap();
        assert_eq!((rgb.width, rgb.height), (56, 28));
        for y in 0..SIDE {
            for x in 0..SIDE {
                let at = |x: usize| rgb.data[(y * 2 * SIDE + x) * 3];
                assert_eq!(at(x), digits[0].pixels[y * SIDE + x]);
                assert_eq!(at(x + SIDE), digits[1].pixels[y * SIDE + x]);
            }
        }
    }
}
