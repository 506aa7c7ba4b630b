//! Records the minimum cost of a pass, op by op, on a counting device: the arithmetic, and one transfer of every
//! operand and result. A plan derives its lower bounds of time from these.

use crate::device::Device;
use crate::model::params::{Linear, Matrix};
use crate::ops::matmul::Weight;
use crate::tensor::Tensor;

/// Returns the bytes of the tensors, each moved once.
pub(super) fn moved(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|t| t.span().bytes as f64).sum()
}

/// Returns the extra bytes read from a gradient that is accumulated into.
pub(super) fn added(dx: Tensor, accumulate: bool) -> f64 {
    if accumulate { moved(&[dx]) } else { 0.0 }
}

/// Records y = x W^T, which continues over the second pair of an adapter. `rest` is the number of bytes of everything
/// except `x` and the weights.
pub(super) fn note_linear(dev: &mut Device, x: Tensor, layer: Linear, rest: f64) {
    let Weight { data, n, k, .. } = layer.weight.weight;
    let (rank, s) = layer.adapter.map_or((0, 0.0), |adapter| (adapter.s.k, moved(&[adapter.s.data])));
    dev.note_product("linear", [x.rows(), n, k + rank], moved(&[x, data]) + s + rest);
}

/// Records dx = dy W. `rest` is the number of bytes of everything except `dy`, the weight and dx.
pub(super) fn note_dgrad(dev: &mut Device, x: Tensor, matrix: Matrix, rest: f64) {
    let Weight { data, n, k, .. } = matrix.weight;
    let dy = (x.rows() * n * x.dtype.size()) as f64;
    dev.note_product("linear::dgrad", [x.rows(), k, n], dy + moved(&[data, x]) + rest);
}

/// Records dW += dy^T x in f32, where dW is read and written.
pub(super) fn note_wgrad(dev: &mut Device, x: Tensor, matrix: Matrix, dw: Tensor) {
    let Weight { n, k, .. } = matrix.weight;
    let dy = (x.rows() * n * x.dtype.size()) as f64;
    dev.note_product("linear::wgrad", [n, k, x.rows()], dy + moved(&[x, dw, dw]));
}
