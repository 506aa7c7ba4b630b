//! The loss of SFT: an update's micro-batches to the gradients of its mean negative log-prob.

use super::step::{self, Sequence};
use crate::device::Device;
use crate::error::Result;
use crate::model::{Grads, Levels, Model, Policy};
use crate::ops::nll;
use crate::tensor::Tensor;

/// What an update was computed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Tokens predicted.
    pub targets: usize,
    /// Tokens computed.
    pub tokens: usize,
}

/// Adds the gradients of the mean negative log-prob over all targets of `batch`, an update, to `grads`; the mean itself
/// overwrites `loss` (f64 `[1]`). Micro-batches have at most `micro_batch_tokens` tokens. Nothing waits for the device.
pub fn gradients(
    dev: &mut Device,
    model: &Model,
    grads: &mut Grads,
    batch: &[Sequence<'_>],
    micro_batch_tokens: usize,
    levels: Levels,
    loss: Tensor,
) -> Result<Done> {
    let lengths: Vec<usize> = batch.iter().map(|s| s.input_ids.len()).collect();
    let targets: usize = batch.iter().map(Sequence::num_targets).sum();
    let weight = 1.0 / targets.max(1) as f64;
    dev.fill_zero(loss)?;
    for range in step::micro_batches(&lengths, micro_batch_tokens)? {
        let part = &batch[range];
        if part.iter().all(|s| s.num_targets() == 0) {
            continue;
        }
        let forward = step::forward(dev, model, part, Policy::default(), levels, false)?;
        let dlog_prob = forward.like_log_prob(dev)?;
        dev.range(format_args!("loss"), |dev| nll::fwd(dev, forward.log_prob, weight, dlog_prob, loss))?;
        forward.backward(dev, grads, dlog_prob, None)?;
    }
    Ok(Done { targets, tokens: lengths.iter().sum() })
}
