//! The rows of a layer's weight that have an adapter, and the part of t that each of them reads.

use crate::ops::check;
use crate::ops::matmul::{self, PANEL};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Multiple to which each part of t is padded, in columns: a step of the kernels along K.
pub const PART: usize = 16;

/// Marks a row that belongs to no adapted piece in the table of a layer's parts.
pub const NO_PART: u8 = u8::MAX;

/// The adapted rows of a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows {
    /// Part of each row of the weight, u8 `[N]`: the index of its piece among the adapted pieces, or [`NO_PART`].
    pub parts: Tensor,
    /// Columns of B, without padding.
    pub rank: usize,
}

impl Rows {
    pub(super) fn check(&self, op: &'static str, n: usize, wide: usize) -> Result<()> {
        check::tensor(op, "parts", self.parts, DType::U8, &[n])?;
        let whole = wide.is_multiple_of(self.rank.next_multiple_of(PART));
        check::that(op, whole, format!("parts of rank {}", self.rank), format!("{wide} columns"))
    }

    /// Calls `each(from, to)` with the positions of row `n`'s elements in a compact matrix `[N, rank]` and in a matrix
    /// `[N, wide]`, both relative to the panel of the row.
    pub(super) fn each(&self, dtype: DType, parts: &[u8], wide: usize, n: usize, mut each: impl FnMut(usize, usize)) {
        let part = parts[n];
        if part == NO_PART {
            return;
        }
        let first = part as usize * self.rank.next_multiple_of(PART);
        for j in 0..self.rank {
            let at = |k, column| matmul::index(dtype, k, n % PANEL, column);
            each(at(self.rank, j), at(wide, first + j));
        }
    }
}
