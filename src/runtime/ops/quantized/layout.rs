//! Codes and scales of a weight, and their order in memory.

use super::levels::BLOCK;
use super::widen::{nf4_value, power_of_two};
use crate::tensor::{DType, Tensor};
use omr_base::choice::BaseFormat;

/// Format and scales of a quantised weight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quantized {
    /// Format of codes and scales.
    pub format: BaseFormat,
    /// Scales, flat, in the order of [`Layout`].
    pub scales: Tensor,
    /// Compute type to which values are widened.
    pub dtype: DType,
}

/// Returns the type of the scales.
pub fn scale_dtype(format: BaseFormat) -> DType {
    match format {
        BaseFormat::Int8 => DType::U8,
        BaseFormat::Nf4 => DType::F32,
    }
}

/// Order of codes and scales in a unit of some rows: codes `[k / 2][rows][2]`, where `nf4` has both codes of a pair in one
/// byte, the even term in the low half; scales `[ceil(k / 64)][rows]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Format.
    pub format: BaseFormat,
    /// Rows of a unit.
    pub rows: usize,
    /// Terms of a row with their padding, an even number.
    pub k: usize,
}

impl Layout {
    /// Returns the bytes of the codes of one unit.
    pub fn codes(&self) -> usize {
        self.rows * self.k / if self.format == BaseFormat::Nf4 { 2 } else { 1 }
    }

    /// Returns the number of scales of one unit.
    pub fn scales(&self) -> usize {
        self.rows * self.k.div_ceil(BLOCK)
    }

    /// Sets all codes of some units to the value zero. Their scales must be zero bytes.
    pub fn clear(&self, codes: &mut [u8]) {
        codes.fill(if self.format == BaseFormat::Nf4 { 0x77 } else { 0 });
    }

    /// Writes row `r` of a unit: the codes of its terms, one per byte, and the bytes of its scales.
    pub fn put_row(&self, r: usize, row: &Encoded, codes: &mut [u8], scales: &mut [u8]) {
        let rows = self.rows;
        match self.format {
            BaseFormat::Int8 => {
                let pairs = codes.chunks_exact_mut(2 * rows).zip(row.codes.chunks(2));
                pairs.for_each(|(of_unit, pair)| of_unit[2 * r..][..pair.len()].copy_from_slice(pair));
            }
            BaseFormat::Nf4 => {
                let pairs = codes.chunks_exact_mut(rows).zip(row.codes.chunks_exact(2));
                pairs.for_each(|(of_unit, pair)| of_unit[r] = pair[0] | pair[1] << 4);
            }
        }
        let size = scale_dtype(self.format).size();
        let blocks = scales.chunks_exact_mut(rows * size).zip(row.scales.chunks_exact(size));
        blocks.for_each(|(of_unit, scale)| of_unit[r * size..][..size].copy_from_slice(scale));
    }
}

/// The codes of a row, one per byte, and the bytes of its scales.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoded {
    /// Codes: integers as two's complement, or indices of levels.
    pub codes: Vec<u8>,
    /// Scales: bytes, or f32 in the machine's order.
    pub scales: Vec<u8>,
}

impl Encoded {
    /// Returns a row of `k` terms whose codes and scales are zero bytes.
    pub fn zeros(format: BaseFormat, k: usize) -> Encoded {
        Encoded { codes: vec![0; k], scales: vec![0; k.div_ceil(BLOCK) * scale_dtype(format).size()] }
    }

    /// Writes the values of the row's terms to `out`.
    pub fn values(&self, format: BaseFormat, out: &mut [f32]) {
        for (i, (out, code)) in out.iter_mut().zip(&self.codes).enumerate() {
            *out = match format {
                BaseFormat::Int8 => f32::from(*code as i8) * power_of_two(self.scales[i / BLOCK]),
                BaseFormat::Nf4 => {
                    let at = i / BLOCK * 4;
                    nf4_value(*code, bytemuck::pod_read_unaligned(&self.scales[at..at + 4]))
                }
            };
        }
    }
}

/// Returns true if a matrix with rows of `k` terms can be stored: blocks of `nf4` do not cross rows.
pub fn takes(format: BaseFormat, k: usize) -> bool {
    format == BaseFormat::Int8 || k.is_multiple_of(BLOCK)
}
