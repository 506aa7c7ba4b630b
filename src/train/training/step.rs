//! Forward and backward of one micro-batch, for any loss over the log-probs of target tokens.
//!
//! SFT and RL differ only in the coefficients that they pass to [`Forward::backward`]: the derivative of the loss by
//! each target's log-prob. The caller divides by the size of the whole mini-batch. Therefore the terms of the sum do
//! not depend on how a mini-batch is cut into micro-batches.

use std::ops::AddAssign;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use omr_base::error::{Error, Result};
use omr_data::image::ImageInput;
use omr_data::rows::Sample;
use omr_model::nn::{CheckpointPolicy, GradientSink, Inputs, Mode, Model, Policy, Tape, Var};
use omr_runtime::device::Device;
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::{DType, Elem, Tensor};

/// A sequence to train on.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Token ids, with image placeholders expanded.
    pub input_ids: &'a [u32],
    /// Images of the sequence, in order.
    pub images: &'a [Arc<ImageInput>],
    /// Number of prompt tokens. Later tokens were generated: an image token id among them is treated as a plain token.
    pub prompt_len: usize,
    /// True for each token whose prediction counts, `[len]`. The first token never counts, because nothing predicts it.
    pub loss_mask: &'a [bool],
    /// True if the sequence has the same prompt, with the same images, as the sequence before it. The prompt of such
    /// consecutive sequences is computed once.
    pub same_prompt: bool,
}

impl<'a> From<&'a Sample> for Sequence<'a> {
    /// Makes a sequence of a sample. All of its tokens are given.
    fn from(sample: &'a Sample) -> Sequence<'a> {
        Sequence {
            input_ids: &sample.input_ids,
            images: &sample.images,
            prompt_len: sample.input_ids.len(),
            loss_mask: &sample.loss_mask,
            same_prompt: false,
        }
    }
}

impl Sequence<'_> {
    /// Returns the number of tokens whose prediction counts.
    pub fn num_targets(&self) -> usize {
        self.loss_mask.iter().skip(1).filter(|&&m| m).count()
    }

    /// Returns the tokens of the sequence, as [`micro_batches`] counts them.
    pub fn cost(&self) -> Cost {
        Cost { prompt: self.prompt_len, own: self.input_ids.len() - self.prompt_len, same_prompt: self.same_prompt }
    }
}

/// Counts of the work that training passes have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Computed {
    /// Number of tokens predicted.
    pub targets: usize,
    /// Number of tokens computed.
    pub tokens: usize,
    /// Number of tokens not computed, because sequences share their prompt.
    pub shared_tokens: usize,
    /// Number of micro-batches, including those without a target.
    pub micro_batches: usize,
}

impl Computed {
    /// Returns the counts of one micro-batch.
    pub fn micro_batch(sequences: &[Sequence<'_>]) -> Computed {
        let tokens = computed(&sequences.iter().map(Sequence::cost).collect::<Vec<_>>());
        Computed {
            targets: sequences.iter().map(Sequence::num_targets).sum(),
            tokens,
            shared_tokens: sequences.iter().map(|s| s.input_ids.len()).sum::<usize>() - tokens,
            micro_batches: 1,
        }
    }
}

impl AddAssign for Computed {
    fn add_assign(&mut self, other: Computed) {
        self.targets += other.targets;
        self.tokens += other.tokens;
        self.shared_tokens += other.shared_tokens;
        self.micro_batches += other.micro_batches;
    }
}

/// A forward pass that still waits for its backward pass.
pub struct Forward {
    tape: Tape,
    /// The log-probs and the entropies as values of the tape.
    values: (Var, Option<Var>),
    /// Log-prob of each target, sequence after sequence, f32 `[R]`.
    pub log_prob: Tensor,
    /// Entropy of the distribution from which each target was predicted, f32 `[R]`, if it was requested.
    pub entropy: Option<Tensor>,
    /// Start offsets of the sequences in the list of targets, followed by its length, `[S + 1]`.
    pub cu_targets: Vec<u32>,
}

/// Runs the model on `sequences` as one packed batch and returns the log-probs of the targets under `policy`. `keep` is
/// the activation checkpointing policy: it selects what backward recomputes and does not change results. Does not wait
/// for the device. Errors on ids outside the vocabulary, image placeholders that do not match the images, and a
/// micro-batch without a target.
pub fn forward(
    dev: &mut Device,
    model: &Model,
    sequences: &[Sequence<'_>],
    policy: Policy,
    keep: impl Into<CheckpointPolicy>,
    entropy: bool,
) -> Result<Forward> {
    forward_changed(dev, model, sequences, policy, keep, entropy, |_| ())
}

/// Does the same as [`forward`] after `change` has changed the packed batch.
pub fn forward_changed(
    dev: &mut Device,
    model: &Model,
    sequences: &[Sequence<'_>],
    policy: Policy,
    keep: impl Into<CheckpointPolicy>,
    entropy: bool,
    change: impl FnOnce(&mut Inputs),
) -> Result<Forward> {
    let (mut inputs, targets) = dev.range(format_args!("data"), |_| pack(model, sequences))?;
    change(&mut inputs);
    let mut tape = Tape::new(dev, Mode::train(keep));
    let hidden = dev.range(format_args!("forward"), |dev| model.forward(&mut tape, dev, &inputs))?;
    dev.range(format_args!("loss"), |dev| {
        let Targets { rows, ids, cu_targets } = targets;
        let idx = tape.upload(dev, &rows, &[rows.len()])?;
        // The last row of a shared prompt predicts the first token of each response.
        let repeated = inputs.shares_prompts().then(|| Segments::upload(dev, tape.region(), &rows)).transpose()?;
        let hidden = tape.gather(dev, hidden, idx, repeated)?;
        let ids = tape.upload(dev, &ids, &[ids.len()])?;
        let values = tape.linear_logprob(dev, hidden, model.decoder.lm_head, policy, ids, entropy)?;
        let (log_prob, entropy) = (values.0.tensor, values.1.map(|entropy| entropy.tensor));
        Ok(Forward { tape, values, log_prob, entropy, cu_targets })
    })
}

/// The predictions that count, sequence after sequence.
struct Targets {
    /// Packed rows that make the predictions, `[R]`.
    rows: Vec<u32>,
    /// Token ids that they predict, `[R]`.
    ids: Vec<u32>,
    /// Start offsets of the sequences in `rows`, followed by its length, `[S + 1]`.
    cu_targets: Vec<u32>,
}

fn pack(model: &Model, sequences: &[Sequence<'_>]) -> Result<(Inputs, Targets)> {
    let mut inputs = Inputs::empty();
    let (mut rows, mut ids, mut cu_targets) = (Vec::new(), Vec::new(), vec![0]);
    for group in sequences.chunk_by(|_, next| next.same_prompt) {
        let (prompt, shares) = (inputs.len(), group.len() > 1);
        if let (Some(s), true) = (group.first(), shares) {
            inputs.push(&model.config, &s.input_ids[..s.prompt_len], s.images, s.prompt_len)?;
        }
        for s in group {
            let (start, own) = (inputs.len(), if shares { s.prompt_len } else { 0 });
            match shares {
                true => inputs.push_response(&model.config, &s.input_ids[own..])?,
                false => inputs.push(&model.config, s.input_ids, s.images, s.prompt_len)?,
            }
            for t in (1..s.input_ids.len()).filter(|t| s.loss_mask[*t]) {
                let before = t - 1;
                rows.push(if before < own { prompt + before } else { start + before - own } as u32);
                ids.push(s.input_ids[t]);
            }
            cu_targets.push(rows.len() as u32);
        }
    }
    if rows.is_empty() {
        return Err(Error::input("batch", "no token to predict", "at least one in each micro-batch"));
    }
    Ok((inputs, Targets { rows, ids, cu_targets }))
}

impl Forward {
    /// Copies host data to a tensor that lives as long as the activations.
    pub fn upload<T: Elem>(&self, dev: &mut Device, values: &[T]) -> Result<Tensor> {
        self.tape.upload(dev, values, &[values.len()])
    }

    /// Allocates a tensor for a derivative, shaped like the log-probs, that lives as long as the activations. Its
    /// content is undefined.
    pub fn like_log_prob(&self, dev: &mut Device) -> Result<Tensor> {
        dev.alloc(self.tape.region(), DType::F32, &[self.log_prob.len()])
    }

    /// Adds the gradients to `grads` and frees the activations. `dlog_prob` f32 `[R]` is the derivative of the loss by
    /// each target's log-prob; `dentropy` is the derivative by its entropy.
    pub fn backward(
        mut self,
        dev: &mut Device,
        grads: &mut dyn GradientSink,
        dlog_prob: Tensor,
        dentropy: Option<Tensor>,
    ) -> Result<()> {
        let done = dev.range(format_args!("backward"), |dev| {
            let mut seeds = vec![(self.values.0, dlog_prob)];
            seeds.extend(self.values.1.zip(dentropy));
            self.tape.backward(dev, grads, &seeds)
        });
        self.tape.finish(dev);
        done
    }

    /// Returns the log-probs of each sequence's targets, and frees the activations. Waits for the device.
    pub fn read(self, dev: &mut Device) -> Result<Vec<Vec<f32>>> {
        let log_prob = dev.read::<f32>(self.log_prob)?;
        let borders = self.cu_targets.windows(2).map(|w| w[0] as usize..w[1] as usize);
        let rows = borders.map(|range| log_prob[range].to_vec()).collect();
        self.discard(dev);
        Ok(rows)
    }

    /// Frees the activations without a backward pass.
    pub fn discard(self, dev: &mut Device) {
        self.tape.finish(dev);
    }
}

/// The tokens of a sequence that is cut into micro-batches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Tokens of the prompt, which consecutive sequences with the same prompt share.
    pub prompt: usize,
    /// The other tokens.
    pub own: usize,
    /// True if the prompt is that of the sequence before it.
    pub same_prompt: bool,
}

impl Cost {
    /// Returns the cost of a sequence of `len` tokens that shares no prompt.
    pub fn whole(len: usize) -> Cost {
        Cost { prompt: 0, own: len, same_prompt: false }
    }

    /// Returns the number of tokens that are computed for the sequence if those before it are in the same micro-batch.
    pub fn computed(&self) -> usize {
        self.own + if self.same_prompt { 0 } else { self.prompt }
    }
}

/// Returns the number of tokens that are computed for sequences in one micro-batch.
pub fn computed(costs: &[Cost]) -> usize {
    costs.iter().map(Cost::computed).sum::<usize>() + costs.first().filter(|c| c.same_prompt).map_or(0, |c| c.prompt)
}

/// Cuts sequences, in their order, into micro-batches of at most `max_tokens` computed tokens. A longer sequence is a
/// micro-batch of its own. Returns ranges of indices.
pub fn micro_batches(costs: &[Cost], max_tokens: usize) -> Vec<std::ops::Range<usize>> {
    let (mut out, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (i, cost) in costs.iter().enumerate() {
        let len = cost.prompt + cost.own;
        let added = if i > start { cost.computed() } else { len };
        if i > start && tokens + added > max_tokens {
            out.push(start..i);
            (start, tokens) = (i, len);
        } else {
            tokens += added;
        }
    }
    if start < costs.len() {
        out.push(start..costs.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_keep_order_and_budget() {
        let cut = |lengths: &[usize]| micro_batches(&lengths.iter().map(|&n| Cost::whole(n)).collect::<Vec<_>>(), 9);
        assert_eq!(cut(&[3, 4, 2, 9, 1]), [0..3, 3..4, 4..5]);
        assert!(cut(&[]).is_empty());
    }

    #[test]
    fn a_sequence_that_is_longer_is_a_micro_batch_of_its_own() {
        let cut = |lengths: &[usize]| micro_batches(&lengths.iter().map(|&n| Cost::whole(n)).collect::<Vec<_>>(), 9);
        assert_eq!(cut(&[10, 3, 12, 30, 4, 5]), [0..1, 1..2, 2..3, 3..4, 4..6]);
    }

    #[test]
    fn a_shared_prompt_counts_once_in_each_micro_batch() {
        let of = |same_prompt, own| Cost { prompt: 5, own, same_prompt };
        let group = [of(false, 1), of(true, 2), of(true, 3), of(true, 1), of(false, 2)];
        // 5 + 1 + 2, then 5 + 3 + 1, then 5 + 2.
        assert_eq!(micro_batches(&group, 9), [0..2, 2..4, 4..5]);
        assert_eq!(micro_batches(&group, 12), [0..4, 4..5]);
        assert_eq!(micro_batches(&group, 19).len(), 1);
    }
}
