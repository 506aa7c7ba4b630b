//! Bicubic resizing, bitwise identical to Pillow up to 12.3: a = -0.5, a wider filter when shrinking, coefficients in
//! 22-bit fixed point, horizontal pass first, rounding to bytes between the passes. Pillow 13 differs only in the order
//! of the passes, which depends on the sizes there, and so in the bytes of some images.

use super::Rgb;

/// Number of fraction bits of a coefficient: 32 minus 8 for the pixel and 2 for overshoot (Pillow's `PRECISION_BITS`).
const FRACTION_BITS: u32 = 22;
/// Number of rows that the horizontal pass processes together, so that its inner loop uses full vectors.
const ROWS: usize = 16;

/// Resizes an image. Both sizes must be positive.
pub fn resize(image: &Rgb, width: u32, height: u32) -> Rgb {
    assert!(width > 0 && height > 0 && image.width > 0 && image.height > 0, "resizing {image:?} to {width} x {height}");
    let across = (width != image.width).then(|| columns(image, width));
    let image = across.as_ref().unwrap_or(image);
    if height == image.height { image.clone() } else { rows(image, height) }
}

/// Inputs of one output pixel, with their weights.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

/// Returns the windows of all `out` outputs over `size` inputs (Pillow's `precompute_coeffs`, with the same order of
/// operations).
fn windows(size: usize, out: usize) -> Vec<Window> {
    let scale = size as f64 / out as f64;
    let filter_scale = scale.max(1.0);
    let support = 2.0 * filter_scale;
    let window = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        // Casts truncate towards zero and clamp at zero, as in Pillow.
        let start = (center - support + 0.5) as usize;
        let end = ((center + support + 0.5) as usize).min(size);
        let inverse = 1.0 / filter_scale;
        let taps: Vec<f64> = (start..end).map(|x| bicubic((x as f64 - center + 0.5) * inverse)).collect();
        let sum: f64 = taps.iter().sum();
        let fixed = |w: &f64| {
            let w = if sum != 0.0 { w / sum } else { *w } * f64::from(1 << FRACTION_BITS);
            (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
        };
        Window { start, weights: taps.iter().map(fixed).collect() }
    };
    (0..out).map(window).collect()
}

/// Returns the cubic convolution kernel at `x`.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn to_byte(sum: i32) -> u8 {
    (sum >> FRACTION_BITS).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (FRACTION_BITS - 1);

fn columns(image: &Rgb, width: u32) -> Rgb {
    let (in_width, out_width) = (image.width as usize, width as usize);
    let windows = windows(in_width, out_width);
    let mut data = vec![0; out_width * image.height as usize * 3];
    // One block of rows, transposed so that the same value of all its rows is contiguous.
    let mut turned = vec![[0u8; ROWS]; in_width * 3];
    for (rows, out) in image.data.chunks(in_width * 3 * ROWS).zip(data.chunks_mut(out_width * 3 * ROWS)) {
        for (r, row) in rows.chunks_exact(in_width * 3).enumerate() {
            for (value, column) in row.iter().zip(&mut turned) {
                column[r] = *value;
            }
        }
        for (x, window) in windows.iter().enumerate() {
            let mut sums = [[HALF; ROWS]; 3];
            for (pixel, &weight) in turned[window.start * 3..].chunks_exact(3).zip(&window.weights) {
                for (sum, values) in sums.iter_mut().zip(pixel) {
                    for (s, v) in sum.iter_mut().zip(values) {
                        *s += i32::from(*v) * weight;
                    }
                }
            }
            for (r, row) in out.chunks_exact_mut(out_width * 3).enumerate() {
                for (c, sum) in sums.iter().enumerate() {
                    row[x * 3 + c] = to_byte(sum[r]);
                }
            }
        }
    }
    Rgb { width, height: image.height, data }
}

fn rows(image: &Rgb, height: u32) -> Rgb {
    let stride = image.width as usize * 3;
    let mut data = vec![0; stride * height as usize];
    let mut sums = vec![0; stride];
    for (window, out) in windows(image.height as usize, height as usize).iter().zip(data.chunks_exact_mut(stride)) {
        sums.fill(HALF);
        for (row, &weight) in image.data[window.start * stride..].chunks_exact(stride).zip(&window.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (byte, sum) in out.iter_mut().zip(&sums) {
            *byte = to_byte(*sum);
        }
    }
    Rgb { width: image.width, height, data }
}
