//! Operands of a CPU product. A *word* is one f32, or a pair of bf16 that are adjacent in K. A product adds one word
//! per step to each sum.

use super::block::ContiguousAxis;
use super::panels::{PANEL, panel_count, panel_len};
use crate::tensor::{DType, Elem};

/// A left operand, a right operand in panels, and the number of steps.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Product<'a> {
    pub(super) left: &'a [u8],
    pub(super) contiguous: ContiguousAxis,
    /// Distance between rows of the left operand, in bytes.
    pub(super) row_stride: usize,
    /// Distance between steps of the left operand, in bytes.
    pub(super) step_stride: usize,
    pub(super) rows: usize,
    pub(super) right: &'a [u8],
    pub(super) panels: usize,
    pub(super) dtype: DType,
    /// Number of steps: the number of words in K values.
    pub(super) steps: usize,
    /// True if the last word has only its low half.
    pub(super) odd: bool,
}

impl<'a> Product<'a> {
    /// Returns the product of x `[rows, k]` and the panels of a matrix `[n, k]`.
    pub fn rows<E: Elem>(x: &'a [E], rows: usize, k: usize, right: &'a [E], n: usize) -> Product<'a> {
        assert_eq!((x.len(), right.len()), (rows * k, panel_len(E::DTYPE, n, k)), "product [{rows}, {k}] x [{n}, {k}]");
        let paired = E::DTYPE == DType::Bf16;
        Product {
            left: bytemuck::cast_slice(x),
            contiguous: ContiguousAxis::K,
            row_stride: k * size_of::<E>(),
            step_stride: 4,
            rows,
            right: bytemuck::cast_slice(right),
            panels: panel_count(n),
            dtype: E::DTYPE,
            steps: if paired { k.div_ceil(2) } else { k },
            odd: paired && k % 2 == 1,
        }
    }

    /// Returns the product of the columns of `left` (`[steps][rows]` words) and panels of `[steps][32]` words: a weight
    /// gradient, which is summed over tokens.
    pub(super) fn columns(dtype: DType, left: &'a [u32], rows: usize, right: &'a [u32], n: usize) -> Product<'a> {
        let steps = left.len().checked_div(rows).unwrap_or(0);
        assert_eq!(
            (left.len(), right.len()),
            (rows * steps, panel_count(n) * steps * PANEL),
            "columns [{rows}] x [{n}]"
        );
        Product {
            left: bytemuck::cast_slice(left),
            contiguous: ContiguousAxis::Rows,
            row_stride: 4,
            step_stride: rows * 4,
            rows,
            right: bytemuck::cast_slice(right),
            panels: panel_count(n),
            dtype,
            steps,
            odd: false,
        }
    }

    /// Returns the product of the rows of `left` (bf16 `[rows][stride]`) and panels, summed over `tokens`: a weight
    /// gradient with AMX tiles.
    pub(super) fn transposed<E: Elem>(
        left: &'a [E],
        stride: usize,
        tokens: usize,
        right: &'a [E],
        n: usize,
    ) -> Product<'a> {
        Product {
            left: bytemuck::cast_slice(left),
            contiguous: ContiguousAxis::K,
            row_stride: stride * size_of::<E>(),
            step_stride: 4,
            rows: left.len() / stride,
            right: bytemuck::cast_slice(right),
            panels: panel_count(n),
            dtype: E::DTYPE,
            steps: tokens.div_ceil(2),
            odd: false,
        }
    }
}
