//! What `tdpbf16ps` computes, in plain Rust with the same bits (Intel's manual, volume 2, TDPBF16PS).
//!
//! A step of sixteen words: their low halves in one chain of fused multiply-adds from zero, their high halves in
//! another; both added, and that added to the sum. Everything is rounded to nearest even; what is smaller than the
//! smallest normal number, read or computed, is a zero of its sign.

use super::block::{Block, PANEL_BYTES, STEP, TILE, TILE_BYTES};
use crate::device::isa::{Isa, cpu_kernel};

type Row = [f32; TILE];

/// `rows` by `panels`, as `Tiles::run`.
///
/// # Safety
/// The block's pointers must be good for what it says.
pub(super) unsafe fn block(vectors: Isa, block: &Block, rows: usize, panels: usize) {
    for (row, half) in (0..rows).flat_map(|row| (0..2 * panels).map(move |half| (row, half))) {
        let left = block.left.wrapping_add(row * block.row_stride);
        let right = block.right.wrapping_add(half / 2 * block.panel_stride + half % 2 * TILE_BYTES);
        // SAFETY: the caller's promise, for one row and sixteen columns.
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
    /// sums += the words' products.
    fn product(left: &[u32; STEP], right: &[[u32; TILE]; STEP], sums: &mut Row) {
        let (mut low, mut high) = ([0.0; TILE], [0.0; TILE]);
        let mut is_edge = false;
        for (&a, words) in left.iter().zip(right) {
            for j in 0..TILE {
                low[j] = widen(a << 16).mul_add(widen(words[j] << 16), low[j]);
                high[j] = widen(a).mul_add(widen(words[j]), high[j]);
                // Which side of the smallest normal number it was rounded from is lost.
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

/// The half of a word in the upper bits as a number.
#[inline(always)]
fn widen(word: u32) -> f32 {
    flush(f32::from_bits(word & 0xffff_0000))
}

/// `x`, or a zero of its sign below the smallest normal number.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { f32::from_bits(x.to_bits() & 1 << 31) } else { x }
}

/// The two chains where a product ends on the smallest normal number.
#[cold]
fn with_care(left: &[u32; STEP], right: &[[u32; TILE]; STEP]) -> (Row, Row) {
    let chain = |shift: u32, j: usize| {
        let words = left.iter().zip(right).map(|(&a, words)| (widen(a << shift), widen(words[j] << shift)));
        words.fold(0.0, |sum, (a, b)| multiply_add(a, b, sum))
    };
    (std::array::from_fn(|j| chain(16, j)), std::array::from_fn(|j| chain(0, j)))
}

/// a b + c; what rounds to less than the smallest normal number were exponents unbounded, is zero. Such a number is exact
/// in f64: its terms are multiples of 2^-167, or far enough apart.
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    // Halfway from the number of 24 bits below the smallest normal one: from here on up it is rounded to that.
    const LEAST: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1 << 25) as f64);
    let sum = a.mul_add(b, c);
    let exact = f64::from(a).mul_add(f64::from(b), f64::from(c));
    if exact.abs() < LEAST { 0f32.copysign(sum) } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tiny_after_rounding_is_zero() {
        let half = f32::MIN_POSITIVE * 0.5;
        // 2^-126 - 2^-150 is tiny; 2^-126 - 2^-152 is not: with 24 bits it rounds up.
        let (a, b) = (f32::from_bits((127 - 75) << 23), f32::from_bits((127 - 75) << 23));
        assert_eq!(multiply_add(-a, b, f32::MIN_POSITIVE).to_bits(), 0);
        assert_eq!(multiply_add(-a * 0.5, b * 0.5, f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        assert_eq!((flush(half).to_bits(), flush(-half).to_bits()), (0, 1 << 31));
        assert_eq!(flush(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
        // A word of halves 1.5 and a subnormal: the second counts as zero.
        let mut sums = [f32::from_bits(1); TILE];
        let (mut left, mut right) = ([0; STEP], [[0; TILE]; STEP]);
        left[0] = 0x0001_3fc0;
        right[0] = [0x7f00_3f80; TILE];
        product(Isa::Portable, &left, &right, &mut sums);
        assert_eq!(sums, [1.5; TILE]);
    }
}
