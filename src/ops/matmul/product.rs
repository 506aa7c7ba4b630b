//! The operands of a product.

use super::block::Across;
use super::panels::{PANEL, panel_count, panel_len};
use crate::tensor::{DType, Elem};

/// A left operand, a right operand in panels, and how many steps they share.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Product<'a> {
    pub(super) left: &'a [u8],
    pub(super) across: Across,
    /// Bytes from row to row and from step to step of the left operand.
    pub(super) row_stride: usize,
    pub(super) step_stride: usize,
    pub(super) rows: usize,
    pub(super) right: &'a [u8],
    pub(super) panels: usize,
    pub(super) dtype: DType,
    /// Words over K, and whether the last is half a word.
    pub(super) steps: usize,
    pub(super) odd: bool,
}

impl<'a> Product<'a> {
    /// x [rows, k] times panels over the same k ([`panel_len`] of n columns).
    pub fn rows<E: Elem>(x: &'a [E], rows: usize, k: usize, right: &'a [E], n: usize) -> Product<'a> {
        assert_eq!((x.len(), right.len()), (rows * k, panel_len(E::DTYPE, n, k)), "product [{rows}, {k}] x [{n}, {k}]");
        let paired = E::DTYPE == DType::Bf16;
        Product {
            left: bytemuck::cast_slice(x),
            across: Across::Steps,
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

    /// The columns of `left` (`[steps][rows]` words) times panels over `steps` words: a weight gradient.
    pub(super) fn columns(dtype: DType, left: &'a [u32], rows: usize, right: &'a [u32], n: usize) -> Product<'a> {
        let steps = left.len().checked_div(rows).unwrap_or(0);
        assert_eq!(
            (left.len(), right.len()),
            (rows * steps, panel_count(n) * steps * PANEL),
            "columns [{rows}] x [{n}]"
        );
        Product {
            left: bytemuck::cast_slice(left),
            across: Across::Rows,
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

    /// The rows of `left` (bf16 `[rows][stride]`) times panels over `tokens`: a weight gradient by tiles.
    pub(super) fn turned<E: Elem>(
        left: &'a [E],
        stride: usize,
        tokens: usize,
        right: &'a [E],
        n: usize,
    ) -> Product<'a> {
        Product {
            left: bytemuck::cast_slice(left),
            across: Across::Steps,
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
