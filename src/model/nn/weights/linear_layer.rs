//! Linear layers with their parameters: indices into the layout, and operands of the ops.

use omr_runtime::ops::lora::Rows;
use omr_runtime::ops::matmul::Weight;
use omr_runtime::tensor::Tensor;

/// A matrix of the model.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Matrix {
    /// Index of the parameter in the layout.
    pub id: usize,
    /// Operand of the matrix ops.
    pub weight: Weight,
}

/// A bias or the weights of a norm.
#[derive(Clone, Copy)]
pub struct Vector {
    /// Index of the parameter in the layout.
    pub id: usize,
    /// Values `[n]` in the compute type.
    pub tensor: Tensor,
}

/// A linear layer.
#[derive(Clone, Copy)]
pub struct Linear {
    /// Weight `[n, k]`.
    pub weight: Matrix,
    /// Bias `[n]`.
    pub bias: Option<Vector>,
    /// Adapter of the weight.
    pub adapter: Option<Adapter>,
}

/// End of the names of A's tensors, in place of `.weight`.
pub const A: &str = ".lora_A.weight";
/// End of the names of B's tensors, in place of `.weight`.
pub const B: &str = ".lora_B.weight";

/// The rows to which adapters apply in a forward pass.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Adapted<Table = Tensor> {
    /// Every row.
    All,
    /// No row: the model is its base.
    None,
    /// Some rows of T: u32 `[T]` with the index of each such row, and T in place of the others.
    Rows(Table),
}

/// The adapter of a linear layer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Adapter {
    /// A `[R, K]`, where R is the sum of the padded parts.
    pub a: Matrix,
    /// B `[N, rank]`. Forward does not read it.
    pub b: Matrix,
    /// S `[N, R]`: scale times B, each row in the columns of its part.
    pub s: Weight,
    /// Tickets of the model for t; see [`omr_runtime::ops::lora::tickets`].
    pub(crate) tickets: Tensor,
    /// Part of each row of B.
    pub(crate) rows: Rows,
    /// Factor of the product of B and A.
    pub(crate) scale: f32,
}
