//! Widens codes of a panel to the words of a product: f32 `[terms][32]`, or bf16 `[terms / 2][32][2]`.

use std::ops::Range;

use half::bf16;

use super::levels::{BLOCK, LEVELS};
use crate::device::{Isa, cpu_kernel};
use crate::tensor::{DType, Elem};
use omr_base::choice::BaseFormat;

/// Rows of a panel.
const ROWS: usize = 32;
/// Pairs of terms that share a scale.
const PAIRS: usize = BLOCK / 2;

/// A pair of terms of all rows of a panel, as bf16 words.
type Words = [u32; ROWS];
/// A pair of terms of all rows of a panel, in f32.
type Floats = [[f32; ROWS]; 2];

/// Returns 2^(byte - 127). The byte is that of a scale, 10 to 246, or zero for zero.
#[inline(always)]
pub(super) fn power_of_two(byte: u8) -> f32 {
    f32::from_bits(u32::from(byte) << 23)
}

/// Returns the value of a code of `nf4`.
#[inline(always)]
pub fn nf4_value(code: u8, absmax: f32) -> f32 {
    <bf16 as Elem>::from_f32(LEVELS[usize::from(code & 15)] * absmax).to_f32()
}

/// Writes the values of the pairs of terms `pairs` of one panel to `out`, as words of type `E`. `codes` and `scales` are
/// those of the whole panel.
pub fn widen<E: Elem>(isa: Isa, format: BaseFormat, codes: &[u8], scales: &[u8], pairs: Range<usize>, out: &mut [E]) {
    assert_eq!(out.len(), 2 * ROWS * pairs.len(), "words of {} pairs", pairs.len());
    use bytemuck::{cast_slice as of, cast_slice_mut as of_mut};
    match (format, E::DTYPE) {
        (BaseFormat::Int8, DType::Bf16) => int8_words(isa, of(codes), of(scales), pairs, of_mut(out)),
        (BaseFormat::Int8, _) => int8_floats(isa, of(codes), of(scales), pairs, of_mut(out)),
        (BaseFormat::Nf4, DType::Bf16) => nf4_words(isa, of(codes), of(scales), pairs, of_mut(out)),
        (BaseFormat::Nf4, _) => nf4_floats(isa, of(codes), of(scales), pairs, of_mut(out)),
    }
}

/// Returns the word of two bf16 numbers.
#[inline(always)]
fn word(low: f32, high: f32) -> u32 {
    low.to_bits() >> 16 | high.to_bits() & 0xffff_0000
}

/// Returns the values of two codes of `int8`, which are bf16 numbers.
#[inline(always)]
fn int8_pair(codes: [u8; 2], scale: f32) -> [f32; 2] {
    let word = i32::from(i16::from_le_bytes(codes));
    [(word << 24 >> 24) as f32 * scale, (word >> 8) as f32 * scale]
}

/// Returns the pairs of each block that `pairs` reaches.
#[inline(always)]
fn blocks(pairs: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
    let of = move |block: usize| (block, pairs.start.max(block * PAIRS)..pairs.end.min((block + 1) * PAIRS));
    (pairs.start / PAIRS..pairs.end.div_ceil(PAIRS)).map(of)
}

macro_rules! int8_kernel {
    ($name:ident, $out:ty, $put:expr) => {
        cpu_kernel! {
            fn $name(codes: &[[u8; 2 * ROWS]], scales: &[[u8; ROWS]], pairs: Range<usize>, out: &mut [$out]) {
                let mut out = out.iter_mut();
                for (block, pairs) in blocks(pairs) {
                    let mut scale = [0.0; ROWS];
                    for j in 0..ROWS {
                        scale[j] = power_of_two(scales[block][j]);
                    }
                    for (codes, out) in codes[pairs].iter().zip(&mut out) {
                        for j in 0..ROWS {
                            let [low, high] = int8_pair([codes[2 * j], codes[2 * j + 1]], scale[j]);
                            $put(out, j, low, high);
                        }
                    }
                }
            }
        }
    };
}
int8_kernel!(int8_words, Words, |out: &mut Words, j: usize, low, high| out[j] = word(low, high));
int8_kernel!(int8_floats, Floats, |out: &mut Floats, j: usize, low, high| {
    out[0][j] = low;
    out[1][j] = high;
});

/// Writes pairs of `nf4` as words, with the vectors of `isa`.
fn nf4_words(isa: Isa, codes: &[[u8; ROWS]], scales: &[[f32; ROWS]], pairs: Range<usize>, out: &mut [Words]) {
    #[cfg(target_arch = "x86_64")]
    if super::vectors::nf4(isa, codes, scales, PAIRS, pairs.clone(), out) {
        return;
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = isa;
    for (pair, out) in pairs.zip(out) {
        for j in 0..ROWS {
            let (code, absmax) = (codes[pair][j], scales[pair / PAIRS][j]);
            out[j] = word(nf4_value(code, absmax), nf4_value(code >> 4, absmax));
        }
    }
}

/// Writes pairs of `nf4` in f32.
fn nf4_floats(isa: Isa, codes: &[[u8; ROWS]], scales: &[[f32; ROWS]], pairs: Range<usize>, out: &mut [Floats]) {
    let mut words = [[0; ROWS]; PAIRS];
    for (i, out) in out.chunks_mut(PAIRS).enumerate() {
        let first = pairs.start + i * PAIRS;
        nf4_words(isa, codes, scales, first..first + out.len(), &mut words[..out.len()]);
        for (words, out) in words.iter().zip(out) {
            for j in 0..ROWS {
                out[0][j] = f32::from_bits(words[j] << 16);
                out[1][j] = f32::from_bits(words[j] & 0xffff_0000);
            }
        }
    }
}
