//! What a pass costs at least, noted op by op on a device that only counts: arithmetic, and every operand and result
//! moved once. From these a plan has its floors.

use crate::device::Device;
use crate::model::params::Matrix;
use crate::ops::matmul::Weight;
use crate::tensor::Tensor;

/// Bytes of tensors moved once.
pub(super) fn moved(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|t| t.span().bytes as f64).sum()
}

/// Bytes of a gradient that is added to: it is read as well.
pub(super) fn added(dx: Tensor, accumulate: bool) -> f64 {
    if accumulate { moved(&[dx]) } else { 0.0 }
}

/// y = x W^T; `rest` has the bytes of everything but `x` and the weight.
pub(super) fn note_linear(dev: &mut Device, x: Tensor, matrix: Matrix, rest: f64) {
    let Weight { data, n, k, .. } = matrix.weight;
    dev.note_product("linear", [x.rows(), n, k], moved(&[x, data]) + rest);
}

/// dx = dy W; `rest` has the bytes of everything but `dy`, the weight and dx.
pub(super) fn note_dgrad(dev: &mut Device, x: Tensor, matrix: Matrix, rest: f64) {
    let Weight { data, n, k, .. } = matrix.weight;
    let dy = (x.rows() * n * x.dtype.size()) as f64;
    dev.note_product("linear::dgrad", [x.rows(), k, n], dy + moved(&[data, x]) + rest);
}

/// dW += dy^T x in f32, which is read and written.
pub(super) fn note_wgrad(dev: &mut Device, x: Tensor, matrix: Matrix, dw: Tensor) {
    let Weight { n, k, .. } = matrix.weight;
    let dy = (x.rows() * n * x.dtype.size()) as f64;
    dev.note_product("linear::wgrad", [n, k, x.rows()], dy + moved(&[x, dw, dw]));
}
