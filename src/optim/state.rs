//! What the optimizer keeps of a parameter.

use crate::ops::adamw::Moments;
use crate::tensor::Tensor;

/// One parameter's state; moments and low halves in its element order, of the range that the rank owns.
pub(super) struct State {
    /// First and second moment.
    pub moments: Moments,
    /// What the bf16 weight lacks of its fp32 master.
    pub lo: Option<Tensor>,
    /// Updates made: a parameter without a gradient is passed over and its count stays, as in torch.
    pub updates: u64,
}
