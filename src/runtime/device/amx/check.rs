//! Compares two implementations of a product by tiles.

use super::block::{Block, STEP};
use super::tiles::Tiles;
use crate::device::isa::Isa;

/// Rows, panels and steps of a block.
pub type Shape = [usize; 3];

/// Block sizes to compare. They cover every code path, with full tiles and with fewer rows.
pub const SHAPES: [Shape; 5] = [[32, 2, 3], [17, 1, 2], [16, 3, 2], [7, 2, 1], [1, 1, 3]];
/// Total number of sums over all shapes and all four `STARTS`.
pub const SUMS: usize = 4 * 32 * (32 * 2 + 17 + 16 * 3 + 7 * 2 + 1);

const PANEL: usize = 32;

/// Initial state of a block.
#[derive(Clone, Copy)]
pub struct Start {
    /// Exponent that the values are centred on.
    middle: u32,
    /// True if the block adds to existing sums.
    resume: bool,
}

/// Initial states to compare.
pub const STARTS: [Start; 4] = [
    Start { middle: 127, resume: false },
    Start { middle: 127, resume: true },
    Start { middle: 63, resume: false },
    Start { middle: 63, resume: true },
];

/// Returns the number of sums for which `one` and `other` are not bitwise identical, over the blocks of a shape.
pub(super) fn differing(one: Isa, other: Isa, shape: Shape) -> usize {
    let different = |start| {
        let [one, other] = [one, other].map(|isa| sums(isa, shape, start));
        one.iter().zip(&other).filter(|(a, b)| a.to_bits() != b.to_bits()).count()
    };
    STARTS.into_iter().map(different).sum()
}

/// Computes a block from generated values and returns its sums.
pub fn sums(isa: Isa, [rows, panels, steps]: Shape, start: Start) -> Vec<f32> {
    let Start { middle, resume } = start;
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
    // SAFETY: the vectors contain the rows, panels and sums that the block refers to.
    unsafe { Tiles::new(isa, rows).run(&block, panels) };
    sums
}

/// A pseudo-random generator: the upper bits of a linear congruential generator.
struct Values(u32);

impl Values {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    /// Returns an exponent in sixteen binades around `middle`. With the lowest exponents, some numbers are subnormal.
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
