//! Bytes that an op moves at least: one transfer of each operand and result. An op records them with its arithmetic at its
//! start ([`Device::note_work`](crate::device::Device::note_work)).

use crate::tensor::Tensor;

/// Returns the bytes of the tensors, each moved once.
pub(super) fn moved(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|t| t.span().bytes as f64).sum()
}

/// Returns the extra bytes read from a gradient that is accumulated into.
pub(super) fn added(dx: Tensor, accumulate: bool) -> f64 {
    if accumulate { moved(&[dx]) } else { 0.0 }
}
