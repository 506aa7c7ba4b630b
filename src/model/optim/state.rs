//! Optimizer state of one parameter.

use omr_runtime::ops::adamw::Moments;
use omr_runtime::tensor::Tensor;

/// State of the range of a parameter that this rank owns. Moments and low halves are in the parameter's element order.
pub(super) struct State {
    /// First and second moment.
    pub moments: Moments,
    /// Low half of the fp32 master of a bf16 weight, if there is a master.
    pub lo: Option<Tensor>,
    /// Number of updates. A parameter without a gradient is skipped and its count does not change, as in torch.
    pub updates: u64,
}
