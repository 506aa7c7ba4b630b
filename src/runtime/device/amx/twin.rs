//! Emulates `tdpbf16ps` in plain Rust, bit for bit (Intel's manual, volume 2, TDPBF16PS).
//!
//! A step has sixteen words. The products of their low halves are summed by fused multiply-adds from zero, and the
//! products of their high halves are summed separately in the same way. The two results are added, and that total is
//! added to the sum. Each operation rounds to nearest even. Each input or result whose magnitude is below the smallest
//! normal number is replaced by a zero with the same sign.

use super::block::{Block, PANEL_BYTES, STEP, TILE, TILE_BYTES};
use crate::device::isa::{Isa, cpu_kernel};

/// Sums of a row of a tile.
pub type Row = [f32; TILE];

/// Computes the sums of a block of `rows` rows by `panels` panels, as `Tiles::run` does.
///
/// # Safety
/// The block's pointers must be valid for the sizes that it states.
pub(super) unsafe fn block(vectors: Isa, block: &Block, rows: usize, panels: usize) {
    for (row, half) in (0..rows).flat_map(|row| (0..2 * panels).map(move |half| (row, half))) {
        let left = block.left.wrapping_add(row * block.row_stride);
        let right = block.right.wrapping_add(half / 2 * block.panel_stride + half % 2 * TILE_BYTES);
        // SAFETY: guaranteed by the caller, for one row and sixteen columns.
        unsafe {
            let sums = &mut *block.sums.add(row * block.sums_stride + half * TILE).cast::<Row>();
            if !block.resume {
                *sums = [0.0; TILE];
            }
            for step in 0..block.steps {
                let left = left.add(step * TILE_BYTES).cast::<[u32; STEP]>().read_unaligned();
                let right = right.add(step * STEP * PANEL_BYTES);
                let words =
                    std::array::from_fn(|word| right.add(word * PANEL_BYTES).cast::<[u32; TILE]>().read_unaligned());
                product(vectors, &left, &words, sums);
            }
        }
    }
}

cpu_kernel! {
    /// Adds the words' products to `sums`.
    pub fn product(left: &[u32; STEP], right: &[[u32; TILE]; STEP], sums: &mut Row) {
        let (mut low, mut high) = ([0.0; TILE], [0.0; TILE]);
        let mut is_edge = false;
        for (&a, words) in left.iter().zip(right) {
            for j in 0..TILE {
                low[j] = widen(a << 16).mul_add(widen(words[j] << 16), low[j]);
                high[j] = widen(a).mul_add(widen(words[j]), high[j]);
                // The exact value may have been below the smallest normal number and rounded up to it. `with_care`
                // handles this case.
                is_edge |= low[j].abs() == f32::MIN_POSITIVE || high[j].abs() == f32::MIN_POSITIVE;
                (low[j], high[j]) = (flush(low[j]), flush(high[j]));
            }
        }
        if is_edge {
            (low, high) = with_care(left, right);
        }
        for (sum, (low, high)) in sums.iter_mut().zip(low.into_iter().zip(high)) {
            *sum = flush(flush(*sum) + flush(low + high));
        }
    }
}

/// Converts the upper half of a word to a number.
#[inline(always)]
fn widen(word: u32) -> f32 {
    flush(f32::from_bits(word & 0xffff_0000))
}

/// Returns `x`, or a zero with the sign of `x` if its magnitude is below the smallest normal number.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { f32::from_bits(x.to_bits() & 1 << 31) } else { x }
}

/// Computes the sums of the low and of the high halves again, slowly. Called if one of them equals the smallest normal
/// number.
#[cold]
fn with_care(left: &[u32; STEP], right: &[[u32; TILE]; STEP]) -> (Row, Row) {
    let chain = |shift: u32, j: usize| {
        let words = left.iter().zip(right).map(|(&a, words)| (widen(a << shift), widen(words[j] << shift)));
        words.fold(0.0, |sum, (a, b)| multiply_add(a, b, sum))
    };
    (std::array::from_fn(|j| chain(16, j)), std::array::from_fn(|j| chain(0, j)))
}

/// Computes a b + c. The result is zero if it would be below the smallest normal number after rounding with an
/// unbounded exponent. For numbers near this limit the computation in f64 is exact: either the terms are multiples of
/// 2^-167, or their magnitudes are far enough apart.
pub fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    // Midpoint between the smallest normal number and the 24-bit number below it. From here on, a value rounds up to
    // the smallest normal number.
    const LEAST: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1 << 25) as f64);
    let sum = a.mul_add(b, c);
    let exact = f64::from(a).mul_add(f64::from(b), f64::from(c));
    if exact.abs() < LEAST { 0f32.copysign(sum) } else { sum }
}
