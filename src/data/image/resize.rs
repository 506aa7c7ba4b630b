//! Bicubic resizing, bitwise identical to Pillow up to 12.3 or to torchvision 0.26 on a CPU: a = -0.5, a wider filter
//! when shrinking, coefficients in fixed point, horizontal pass first, rounding to bytes between the passes. The two
//! differ only in the precision of the coefficients. Pillow 13 differs only in the order of the passes, which depends on
//! the sizes there, and so in the bytes of some images.

use super::{Backend, Rgb};

/// Maximum number of fraction bits of a coefficient: 32 minus 8 for the pixel and 2 for overshoot (Pillow's
/// `PRECISION_BITS`).
const FRACTION_BITS: u32 = 22;
/// Number of rows that the horizontal pass processes together, so that its inner loop uses full vectors.
const ROWS: usize = 16;

/// Resizes an image. Both sizes must be positive.
pub fn resize(image: &Rgb, width: u32, height: u32, backend: Backend) -> Rgb {
    assert!(width > 0 && height > 0 && image.width > 0 && image.height > 0, "resizing {image:?} to {width} x {height}");
    let filter = |size: u32, out: u32| Filter::new(size as usize, out as usize, backend);
    let across = (width != image.width).then(|| columns(image, &filter(image.width, width)));
    let image = across.as_ref().unwrap_or(image);
    if height == image.height { image.clone() } else { rows(image, &filter(image.height, height)) }
}

/// Weights of all outputs along one axis.
struct Filter {
    windows: Vec<Window>,
    /// Number of fraction bits of a weight.
    bits: u32,
}

/// Inputs of one output pixel, with their weights.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

impl Filter {
    /// Returns the weights of `out` outputs over `size` inputs, with the order of operations of Pillow's
    /// `precompute_coeffs` and PyTorch's `UpSampleKernel`.
    fn new(size: usize, out: usize, backend: Backend) -> Filter {
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
            let share = |w: f64| if sum != 0.0 { w / sum } else { w };
            (start, taps.into_iter().map(share).collect::<Vec<f64>>())
        };
        let windows: Vec<_> = (0..out).map(window).collect();
        let bits = match backend {
            Backend::Pil => FRACTION_BITS,
            // PyTorch's weights are 16-bit integers: the largest of the axis decides how many fraction bits they have.
            Backend::Torchvision => {
                let most = windows.iter().flat_map(|(_, taps)| taps).fold(0.0f64, |most, &w| most.max(w));
                let fits = |bits: &u32| 0.5 + most * f64::from(1 << bits) < f64::from(1 << 15);
                (0..=FRACTION_BITS).rev().find(fits).unwrap_or(0)
            }
        };
        let fixed = |w: f64| {
            let w = w * f64::from(1 << bits);
            (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
        };
        let window =
            |(start, taps): (usize, Vec<f64>)| Window { start, weights: taps.into_iter().map(fixed).collect() };
        Filter { windows: windows.into_iter().map(window).collect(), bits }
    }

    /// Returns the sum that rounds a weighted sum to the nearest byte.
    fn half(&self) -> i32 {
        1 << (self.bits - 1)
    }

    fn to_byte(&self, sum: i32) -> u8 {
        (sum >> self.bits).clamp(0, 255) as u8
    }
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

fn columns(image: &Rgb, filter: &Filter) -> Rgb {
    let (in_width, out_width) = (image.width as usize, filter.windows.len());
    let mut data = vec![0; out_width * image.height as usize * 3];
    // One block of rows, transposed so that the same value of all its rows is contiguous.
    let mut turned = vec![[0u8; ROWS]; in_width * 3];
    for (rows, out) in image.data.chunks(in_width * 3 * ROWS).zip(data.chunks_mut(out_width * 3 * ROWS)) {
        for (r, row) in rows.chunks_exact(in_width * 3).enumerate() {
            for (value, column) in row.iter().zip(&mut turned) {
                column[r] = *value;
            }
        }
        for (x, window) in filter.windows.iter().enumerate() {
            let mut sums = [[filter.half(); ROWS]; 3];
            for (pixel, &weight) in turned[window.start * 3..].chunks_exact(3).zip(&window.weights) {
                for (sum, values) in sums.iter_mut().zip(pixel) {
                    for (s, v) in sum.iter_mut().zip(values) {
                        *s += i32::from(*v) * weight;
                    }
                }
            }
            for (r, row) in out.chunks_exact_mut(out_width * 3).enumerate() {
                for (c, sum) in sums.iter().enumerate() {
                    row[x * 3 + c] = filter.to_byte(sum[r]);
                }
            }
        }
    }
    Rgb { width: out_width as u32, height: image.height, data }
}

fn rows(image: &Rgb, filter: &Filter) -> Rgb {
    let stride = image.width as usize * 3;
    let mut data = vec![0; stride * filter.windows.len()];
    let mut sums = vec![0; stride];
    for (window, out) in filter.windows.iter().zip(data.chunks_exact_mut(stride)) {
        sums.fill(filter.half());
        for (row, &weight) in image.data[window.start * stride..].chunks_exact(stride).zip(&window.weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (byte, sum) in out.iter_mut().zip(&sums) {
            *byte = filter.to_byte(*sum);
        }
    }
    Rgb { width: image.width, height: filter.windows.len() as u32, data }
}
