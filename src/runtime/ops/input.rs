//! Input of a product: its left operand, and a second pair of operands if the layer has an adapter (see
//! [`super::lora`]).

use crate::ops::check;
use crate::ops::matmul::Weight;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// The operands over which the sums of a product continue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Left operand `[T, R]`: t, or the gradient of t.
    pub left: Tensor,
    /// Right operand: S `[N, R]`, or A `[R, K]` in a product with the transposed weight.
    pub right: Weight,
}

/// Input of a product: x, and the second pair if the layer has an adapter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Input {
    /// Left operand.
    pub x: Tensor,
    /// Second pair.
    pub pair: Option<Pair>,
}

impl From<Tensor> for Input {
    fn from(x: Tensor) -> Input {
        Input { x, pair: None }
    }
}

impl Input {
    /// Returns an error unless the second pair continues a product of `dtype` with `n` outputs. `transposed` selects
    /// the orientation of its right operand.
    pub(super) fn check(&self, op: &'static str, dtype: DType, n: usize, transposed: bool) -> Result<()> {
        let Some(Pair { left, right }) = self.pair else { return Ok(()) };
        let (rows, cols) = if transposed { (left.cols(), n) } else { (n, left.cols()) };
        check::that(op, right.data.dtype == dtype, format!("{dtype:?}"), format!("{:?}", right.data.dtype))?;
        check::weight(op, &right, rows, cols)?;
        check::tensor(op, "t", left, dtype, &[self.x.rows(), left.cols()])
    }

    /// Returns the tensors of the second pair, or empty slices of x in place of an absent one.
    pub(super) fn pair_or_empty(&self) -> [Tensor; 2] {
        let none = self.x.slice(0, 0);
        self.pair.map_or([none; 2], |Pair { left, right }| [left, right.data])
    }
}
