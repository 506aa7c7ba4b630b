//! Operands of a CPU product. A *word* is one f32, or a pair of bf16 that are adjacent in K. A product adds one word
//! per step to each sum.

use super::block::ContiguousAxis;
use super::codes::Codes;
use super::panels::{PANEL, Weight, panel_count, panel_len, panel_stride};
use crate::device::View;
use crate::tensor::{DType, Elem};

/// A left operand, a right operand in panels, and the number of steps.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    pub(super) left: &'a [u8],
    pub(super) contiguous: ContiguousAxis,
    /// Distance between rows of the left operand, in bytes.
    pub(super) row_stride: usize,
    /// Distance between steps of the left operand, in bytes.
    pub(super) step_stride: usize,
    pub(super) rows: usize,
    pub(super) right: &'a [u8],
    pub(super) panels: usize,
    /// True if the last panel has at most 16 columns.
    pub(super) half: bool,
    pub(super) dtype: DType,
    /// Number of steps: the number of words in K values.
    pub(super) steps: usize,
    /// True if the last word has only its low half.
    pub(super) odd: bool,
    /// Distance between panels of the right operand, in bytes.
    pub(super) panel_stride: usize,
    /// Number of steps of a slice, or 0 if each sum is a single chain; see [`Product::sliced`].
    pub(super) slice: usize,
    /// The product over which every sum continues after the last step; see [`Product::then`].
    pub(super) second: Option<&'a Product<'a>>,
    /// Codes of a quantised right operand, in place of `right`.
    pub(super) codes: Option<Codes<'a>>,
}

/// Terms of a slice of a [`Product::sliced`] product.
pub(in crate::ops) const SLICE: usize = 1024;

impl<'a> Product<'a> {
    /// Returns the product of x `[rows, k]` and the panels of a matrix `[n, k]`.
    pub fn rows<E: Elem>(x: &'a [E], rows: usize, k: usize, right: &'a [E], n: usize) -> Product<'a> {
        assert_eq!((x.len(), right.len()), (rows * k, panel_len(E::DTYPE, n, k)), "product [{rows}, {k}] x [{n}, {k}]");
        Product::along_k(x, rows, k, k, right, n)
    }

    /// Returns the product of x `[rows, k]` and the weight `w`, whose data and scales are given.
    pub fn of<E: Elem>(x: &'a [E], rows: usize, w: &Weight, data: View<'a>, scales: View<'a>) -> Product<'a> {
        let Some(quantized) = w.quantized else { return Product::rows::<E>(x, rows, w.k, data.of(), w.n) };
        let (layout, panels) = w.order.quantized(quantized.format, w.n, w.k);
        let (codes, scales) = (data.of::<u8>(), scales.of::<u8>());
        assert_eq!((x.len(), codes.len()), (rows * w.k, panels * layout.codes()), "product of [{rows}, {}]", w.k);
        Product { codes: Some(Codes { layout, codes, scales }), ..Product::along_k(x, rows, w.k, w.k, &[], w.n) }
    }

    /// Returns the product of the rows of x, which are `stride` apart, and the panels of a matrix `[n, k]`.
    fn along_k<E: Elem>(x: &'a [E], rows: usize, stride: usize, k: usize, right: &'a [E], n: usize) -> Product<'a> {
        let paired = E::DTYPE == DType::Bf16;
        Product {
            left: bytemuck::cast_slice(x),
            contiguous: ContiguousAxis::K,
            row_stride: stride * size_of::<E>(),
            step_stride: 4,
            rows,
            right: bytemuck::cast_slice(right),
            panels: panel_count(n),
            half: (1..=PANEL / 2).contains(&(n % PANEL)),
            dtype: E::DTYPE,
            steps: if paired { k.div_ceil(2) } else { k },
            odd: paired && k % 2 == 1,
            panel_stride: panel_stride(E::DTYPE, k) * size_of::<E>(),
            slice: 0,
            second: None,
            codes: None,
        }
    }

    /// Returns the same product, whose sums continue over the terms of `second`: the same chain as if K were longer.
    pub fn then(self, second: Option<&'a Product<'a>>) -> Product<'a> {
        let size = |p: &Product<'_>| (p.rows, p.panels, p.dtype, p.contiguous);
        assert!(second.is_none_or(|second| size(second) == size(&self)), "a second pair of another size");
        Product { second, ..self }
    }

    /// Returns the same product with another order of sums: K is cut every 1,024 terms, each slice is a chain that
    /// starts with zero, and the slices are added in ascending order in f32.
    pub fn sliced(self) -> Product<'a> {
        let words = SLICE * self.dtype.size() / 4;
        if self.steps > words { Product { slice: words, ..self } } else { self }
    }

    /// Returns parts of `slice` steps as products of their own, in ascending order.
    pub(super) fn slices(&self, slice: usize) -> impl Iterator<Item = Product<'a>> + '_ {
        (0..self.steps).step_by(slice).map(move |first| {
            let steps = slice.min(self.steps - first);
            Product {
                left: &self.left[first * self.step_stride..],
                right: &self.right[first * PANEL * 4..],
                steps,
                odd: self.odd && first + steps == self.steps,
                ..*self
            }
        })
    }

    /// Returns the product of the columns of `left` (`[steps][rows]` words) and panels of `[steps][32]` words: a weight
    /// gradient, which is summed over tokens.
    pub fn columns(dtype: DType, left: &'a [u32], rows: usize, right: &'a [u32], n: usize) -> Product<'a> {
        let steps = left.len().checked_div(rows).unwrap_or(0);
        assert_eq!(
            (left.len(), right.len()),
            (rows * steps, panel_count(n) * steps * PANEL),
            "columns [{rows}] x [{n}]"
        );
        let [left, right] = [left, right].map(bytemuck::cast_slice);
        // A word has the size of an f32.
        let words = Product::along_k::<f32>(left, rows, 1, steps, right, n);
        Product { contiguous: ContiguousAxis::Rows, step_stride: rows * 4, dtype, ..words }
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
        Product { odd: false, ..Product::along_k(left, left.len() / stride, stride, tokens, right, n) }
    }
}
