//! Quantises rows: chooses scales and codes.

use super::layout::Encoded;
use super::levels::{BLOCK, LEVELS};
use omr_base::choice::BaseFormat;

/// Smallest and largest exponent of `int8`. Every value is then zero or a normal bf16 number: AVX512-BF16 and AMX flush
/// subnormal numbers.
const EXPONENTS: [i32; 2] = [-117, 119];

/// A value that a format cannot store.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EncodeFault {
    /// Index of the term.
    pub at: usize,
    /// The value.
    pub value: f32,
}

/// Quantises a row of finite values. Errors on a value above the range of `int8`, which is 127 * 2^119.
pub fn encode(format: BaseFormat, values: &[f32], row: &mut Encoded) -> Result<(), EncodeFault> {
    let blocks = values.chunks(BLOCK).zip(row.codes.chunks_mut(BLOCK));
    match format {
        BaseFormat::Int8 => {
            for (i, ((values, codes), scale)) in blocks.zip(&mut row.scales).enumerate() {
                let fault = |at: usize| EncodeFault { at: i * BLOCK + at, value: values[at] };
                *scale = int8(values, codes).map_err(fault)?;
            }
        }
        BaseFormat::Nf4 => {
            for ((values, codes), scale) in blocks.zip(row.scales.chunks_exact_mut(4)) {
                scale.copy_from_slice(&nf4(values, codes).to_ne_bytes());
            }
        }
    }
    Ok(())
}

/// Quantises a block to integers. Returns the scale's byte, or the index of a value that is too large.
fn int8(values: &[f32], codes: &mut [u8]) -> Result<u8, usize> {
    let amax = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let exponent = exponent(amax);
    if exponent > EXPONENTS[1] {
        return Err(values.iter().position(|x| x.abs() == amax).unwrap_or_default());
    }
    let exponent = exponent.max(EXPONENTS[0]);
    // Exact in f64, whose rounding below is the only one.
    let inverse = f64::from(-exponent).exp2();
    for (code, x) in codes.iter_mut().zip(values) {
        *code = (f64::from(*x) * inverse).round_ties_even() as i8 as u8;
    }
    Ok((exponent + 127) as u8)
}

/// Returns the smallest s with amax <= 127 * 2^s, or the smallest exponent for zero.
fn exponent(amax: f32) -> i32 {
    if amax == 0.0 {
        return EXPONENTS[0];
    }
    // Every f32 is normal in f64. 127 is 1.984375 * 2^6.
    let bits = f64::from(amax).to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let is_above = bits & ((1 << 52) - 1) > 0xf_c000_0000_0000;
    exponent - 6 + i32::from(is_above)
}

/// Quantises a block to the nearest levels. Returns absmax.
fn nf4(values: &[f32], codes: &mut [u8]) -> f32 {
    let absmax = values.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    // As bitsandbytes computes it.
    let inverse = 1.0 / absmax.max(1e-38);
    for (code, x) in codes.iter_mut().zip(values) {
        *code = nearest_level((x * inverse).clamp(-1.0, 1.0));
    }
    absmax
}

/// Returns the index of the level nearest to `x`, the lower one of two.
fn nearest_level(x: f32) -> u8 {
    LEVELS.windows(2).take_while(|pair| x > (pair[0] + pair[1]) / 2.0).count() as u8
}
