//! Tiling of rows over a grid and row layout in shared memory, for both kernel variants.

use crate::error::Result;
use crate::ops::check;

/// Returns the maximum number of slots that `tokens` tokens in `sequences` sequences fill. A slot is a place in the
/// grid for up to `rows` rows of one sequence (`attend::sequence_of`).
pub(crate) fn slots(op: &'static str, tokens: usize, sequences: usize, group: usize, rows: usize) -> Result<u32> {
    check::count(op, "rows of a key head", tokens * group)?;
    check::grid(op, tokens * group / rows + sequences)
}

/// Returns the bytes of `rows` rows of bf16 in shared memory, each padded by 16 bytes (`attend::PITCH`).
pub(crate) fn shared_rows(rows: usize, dim: usize) -> usize {
    rows * (dim + 8) * 2
}
