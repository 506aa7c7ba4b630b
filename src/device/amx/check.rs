//! Two bodies of a product by tiles, held against one another.

use super::{Block, STEP, Tiles};
use crate::device::Isa;

/// Rows, panels and steps of the blocks that are tried: each form of a block, alone and cut by its rows.
pub(super) const SHAPES: [(usize, usize, usize); 5] = [(32, 2, 3), (17, 1, 2), (16, 3, 2), (7, 2, 1), (1, 1, 3)];
/// Sums of all shapes: each from zero and from values that are there, of numbers near one and near underflow.
pub(super) const SUMS: usize = 4 * 32 * (32 * 2 + 17 + 16 * 3 + 7 * 2 + 1);

const PANEL: usize = 32;

/// What the blocks of a shape go on from, or do not.
const STARTS: [(u32, bool); 4] = [(127, false), (127, true), (63, false), (63, true)];

/// How many sums of a shape's blocks have other bits by `one` than by `other`.
pub(super) fn differing(one: Isa, other: Isa, shape: (usize, usize, usize)) -> usize {
    let different = |start| {
        let [one, other] = [one, other].map(|isa| sums(isa, shape, start));
        one.iter().zip(&other).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
    };
    STARTS.into_iter().map(different).sum()
}

/// A block's sums of made values with exponents around `middle`.
fn sums(isa: Isa, (rows, panels, steps): (usize, usize, usize), (middle, resume): (u32, bool)) -> Vec<f32> {
    let mut random = Values(rows as u32 + 1);
    let words = steps * STEP;
    let left: Vec<u32> = (0..rows * words).map(|_| random.word(middle)).collect();
    let right: Vec<u32> = (0..panels * words * PANEL).map(|_| random.word(middle)).collect();
    let mut sums: Vec<f32> = (0..rows * panels * PANEL).map(|_| random.sum((2 * middle).saturating_sub(127))).collect();
    let block = Block {
        left: left.as_ptr().cast(),
        row_stride: 4 * words,
        right: right.as_ptr().cast(),
        panel_stride: 4 * words * PANEL,
        steps,
        sums: sums.as_mut_ptr(),
        sums_stride: panels * PANEL,
        resume,
    };
    // SAFETY: the vectors hold the rows, panels and sums that the block names.
    unsafe { Tiles::new(isa, rows).run(&block, panels) };
    sums
}

/// A linear congruence's upper bits.
struct Values(u32);

impl Values {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// Exponents of sixteen binades around `middle`; of the lowest ones some numbers are subnormal.
    fn exponent(&mut self, middle: u32) -> u32 {
        (middle + self.next() % 16).saturating_sub(8)
    }

    fn word(&mut self, middle: u32) -> u32 {
        let half = |exponent: u32, bits: u32| (bits & 1) << 15 | exponent << 7 | bits >> 1 & 0x7f;
        let (low, high) = (self.exponent(middle), self.exponent(middle));
        half(low, self.next()) | half(high, self.next()) << 16
    }

    fn sum(&mut self, middle: u32) -> f32 {
        let exponent = self.exponent(middle);
        f32::from_bits((self.next() & 1) << 31 | exponent << 23 | self.next() & 0x7f_ffff)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// The same blocks by this file's instructions on Bochs 3.0, which computed as a Sapphire Rapids (a fault of its own
    /// mended: it flushed differences between 2^-126 and 2^-125); bench/LOG.md says how.
    const EMULATED: &str = "ba13f34175373812b21253ab59524e108f059e46eb4e9b16f2e81b752f600079";

    #[test]
    fn the_twin_has_the_bits_of_an_emulated_processor() {
        let mut hash = Sha256::new();
        let mut count = 0;
        for (shape, start) in SHAPES.into_iter().flat_map(|shape| STARTS.map(|start| (shape, start))) {
            let sums = sums(Isa::AmxTwin, shape, start);
            count += sums.len();
            sums.iter().for_each(|sum| hash.update(sum.to_bits().to_le_bytes()));
        }
        assert_eq!(count, SUMS);
        assert_eq!(hash.finalize().iter().map(|b| format!("{b:02x}")).collect::<String>(), EMULATED);
    }
}
