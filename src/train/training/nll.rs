//! The SFT loss: computes the gradients of the mean negative log-prob of an update, one micro-batch after another.

use super::step::{self, Computed, Cost, Sequence};
use omr_base::error::Result;
use omr_model::nn::{CheckpointPolicy, GradientSink, Model, Policy};
use omr_runtime::device::Device;
use omr_runtime::ops::nll;
use omr_runtime::tensor::Tensor;

/// The divisor of an update's mean loss, and the tensor to which a micro-batch's part of the mean is added.
#[derive(Clone, Copy, Debug)]
pub struct Mean {
    /// Number of targets of the whole update.
    pub targets: usize,
    /// Loss, f64 `[1]`. The micro-batch adds its part.
    pub loss: Tensor,
}

/// Adds the gradients of the mean negative log-prob over all targets of `batch`, which is one update, to `grads`.
/// Overwrites `loss` (f64 `[1]`) with the mean. Micro-batches have at most `micro_batch_tokens` tokens, or a
/// single sequence. Does not wait for the device.
pub fn gradients(
    dev: &mut Device,
    model: &Model,
    grads: &mut dyn GradientSink,
    batch: &[Sequence<'_>],
    micro_batch_tokens: usize,
    levels: CheckpointPolicy,
    loss: Tensor,
) -> Result<Computed> {
    let costs: Vec<Cost> = batch.iter().map(Sequence::cost).collect();
    let mean = Mean { targets: batch.iter().map(Sequence::num_targets).sum(), loss };
    dev.fill_zero(loss)?;
    let mut done = Computed::default();
    for range in step::micro_batches(&costs, micro_batch_tokens) {
        done += micro_batch(dev, model, grads, &batch[range], mean, levels)?;
    }
    Ok(done)
}

/// Adds the gradients of a micro-batch to `grads`, and the micro-batch's part of the mean loss to `mean.loss`.
pub fn micro_batch(
    dev: &mut Device,
    model: &Model,
    grads: &mut dyn GradientSink,
    batch: &[Sequence<'_>],
    mean: Mean,
    levels: CheckpointPolicy,
) -> Result<Computed> {
    let done = Computed::micro_batch(batch);
    if done.targets > 0 {
        let weight = 1.0 / mean.targets as f64;
        let forward = step::forward(dev, model, batch, Policy::default(), levels, false)?;
        let dlog_prob = forward.like_log_prob(dev)?;
        dev.range(format_args!("loss"), |dev| nll::fwd(dev, forward.log_prob, weight, dlog_prob, mean.loss))?;
        forward.backward(dev, grads, dlog_prob, None)?;
    }
    Ok(done)
}
