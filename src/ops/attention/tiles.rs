//! How rows are cut into the tiles of a grid and laid out in shared memory, in both bodies.

use crate::error::Result;
use crate::ops::check;

/// Slots of `rows` rows that `tokens` tokens in `sequences` sequences can fill (`attend::sequence_of`).
pub(crate) fn slots(op: &'static str, tokens: usize, sequences: usize, group: usize, rows: usize) -> Result<u32> {
    check::count(op, "rows of a key head", tokens * group)?;
    check::grid(op, tokens * group / rows + sequences)
}

/// Bytes of `rows` rows of bf16 in shared memory: 16 more each (`attend::PITCH`).
pub(crate) fn shared_rows(rows: usize, dim: usize) -> usize {
    rows * (dim + 8) * 2
}
