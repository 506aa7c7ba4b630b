//! One micro-batch, forward and backward, for any loss over the log-probs of target tokens.
//!
//! SFT and RL differ only in the coefficients they hand to [`Forward::backward`]: the derivative of the loss by
//! each target's log-prob. What a sum over the mini-batch is divided by is the caller's, so cutting a mini-batch
//! into micro-batches changes no term of the sum.

use std::ops::AddAssign;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::image::ImageInput;
use crate::model::{Grads, Inputs, Levels, LogProbs, Mode, Model, Policy, Shared, Tape};
use crate::tensor::{DType, Elem, Tensor};

/// A sequence to be trained on.
#[derive(Clone, Copy, Debug)]
pub struct Sequence<'a> {
    /// Tokens, image places expanded.
    pub input_ids: &'a [u32],
    /// Its images, in order.
    pub images: &'a [Arc<ImageInput>],
    /// Tokens from here on were generated: an image id among them is a plain token.
    pub prompt_len: usize,
    /// `[len]`: the prediction of this token counts. The first token is predicted by nothing and never counts.
    pub loss_mask: &'a [bool],
    /// Whose its images are, too.
    pub shared: Shared,
}

impl Sequence<'_> {
    /// Tokens whose prediction counts.
    pub fn num_targets(&self) -> usize {
        self.loss_mask.iter().skip(1).filter(|&&m| m).count()
    }
}

/// What passes have computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Computed {
    /// Tokens predicted.
    pub targets: usize,
    /// Tokens computed.
    pub tokens: usize,
    /// Micro-batches they were cut into, those without a target among them.
    pub micro_batches: usize,
}

impl Computed {
    /// Counts one micro-batch.
    pub fn micro_batch(sequences: &[Sequence<'_>]) -> Computed {
        Computed {
            targets: sequences.iter().map(Sequence::num_targets).sum(),
            tokens: sequences.iter().map(|s| s.input_ids.len()).sum(),
            micro_batches: 1,
        }
    }
}

impl AddAssign for Computed {
    fn add_assign(&mut self, other: Computed) {
        self.targets += other.targets;
        self.tokens += other.tokens;
        self.micro_batches += other.micro_batches;
    }
}

/// A forward pass whose backward is still to come.
pub struct Forward {
    tape: Tape,
    logprobs: LogProbs,
    /// log p of each target, sequence after sequence, f32 `[R]`.
    pub log_prob: Tensor,
    /// Entropy of the distribution each target was predicted from, when asked for, f32 `[R]`.
    pub entropy: Option<Tensor>,
    /// Borders of the sequences in the targets, `[S + 1]`.
    pub cu_targets: Vec<u32>,
}

/// Runs the model on `sequences`, packed, and returns the targets' log-probs under `policy`. `keep` says what is
/// recomputed in backward; it changes no bit. Nothing waits for the device. Errors on ids outside the vocabulary, image places that do not match
/// the images, and a micro-batch without a target.
pub fn forward(
    dev: &mut Device,
    model: &Model,
    sequences: &[Sequence<'_>],
    policy: Policy,
    keep: impl Into<Levels>,
    entropy: bool,
) -> Result<Forward> {
    let (inputs, targets) = dev.range(format_args!("data"), |_| pack(model, sequences))?;
    let mut tape = Tape::new(dev, Mode::train(keep));
    let hidden = dev.range(format_args!("forward"), |dev| model.forward(&mut tape, dev, &inputs))?;
    dev.range(format_args!("loss"), |dev| {
        let Targets { rows, ids, cu_targets } = targets;
        let idx = tape.upload(dev, &rows, &[rows.len()])?;
        let hidden = tape.gather(dev, hidden, idx)?;
        let ids = tape.upload(dev, &ids, &[ids.len()])?;
        let logprobs = tape.linear_logprob(dev, hidden, model.decoder.lm_head, policy, ids, entropy)?;
        let (log_prob, entropy) = (logprobs.logprob.tensor, logprobs.entropy.map(|e| e.tensor));
        Ok(Forward { tape, logprobs, log_prob, entropy, cu_targets })
    })
}

/// What is predicted, sequence after sequence.
struct Targets {
    /// Packed rows that predict, `[R]`.
    rows: Vec<u32>,
    /// What they predict, `[R]`.
    ids: Vec<u32>,
    /// Borders of the sequences, `[S + 1]`.
    cu_targets: Vec<u32>,
}

fn pack(model: &Model, sequences: &[Sequence<'_>]) -> Result<(Inputs, Targets)> {
    let mut inputs = Inputs::empty();
    let (mut rows, mut ids, mut cu_targets) = (Vec::new(), Vec::new(), vec![0]);
    for s in sequences {
        let start = inputs.len();
        inputs.push(&model.config, s.input_ids, s.images, s.prompt_len, s.shared)?;
        for t in 1..s.input_ids.len() {
            if s.loss_mask[t] {
                rows.push((start + t - 1) as u32);
                ids.push(s.input_ids[t]);
            }
        }
        cu_targets.push(rows.len() as u32);
    }
    if rows.is_empty() {
        return Err(Error::input("batch", "no token to be predicted", "at least one in each micro-batch"));
    }
    Ok((inputs, Targets { rows, ids, cu_targets }))
}

impl Forward {
    /// Host data that lives as long as the activations.
    pub fn upload<T: Elem>(&self, dev: &mut Device, values: &[T]) -> Result<Tensor> {
        self.tape.upload(dev, values, &[values.len()])
    }

    /// A tensor like the log-probs that lives as long as the activations, for a derivative. Its content is undefined.
    pub fn like_log_prob(&self, dev: &mut Device) -> Result<Tensor> {
        dev.alloc(self.tape.region(), DType::F32, &[self.log_prob.len()])
    }

    /// Adds the gradients to `grads`. `dlog_prob` f32 `[R]` is the derivative of the loss by each target's log-prob,
    /// `dentropy` by its entropy. Frees the activations.
    pub fn backward(
        mut self,
        dev: &mut Device,
        grads: &mut Grads,
        dlog_prob: Tensor,
        dentropy: Option<Tensor>,
    ) -> Result<()> {
        let done = dev.range(format_args!("backward"), |dev| {
            let mut seeds = vec![(self.logprobs.logprob, dlog_prob)];
            seeds.extend(self.logprobs.entropy.zip(dentropy));
            self.tape.backward(dev, grads, &seeds)
        });
        self.tape.finish(dev);
        done
    }

    /// Frees the activations without a backward pass.
    pub fn discard(self, dev: &mut Device) {
        self.tape.finish(dev);
    }
}

/// Cuts sequences, in their order, into micro-batches of at most `max_tokens` tokens: ranges of indices. Errors
/// when one sequence alone is longer.
pub fn micro_batches(lengths: &[usize], max_tokens: usize) -> Result<Vec<std::ops::Range<usize>>> {
    let (mut out, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (i, &len) in lengths.iter().enumerate() {
        if len > max_tokens {
            let expected = format!("at most micro_batch_tokens, which is {max_tokens}");
            return Err(Error::input(format!("sequence {i}"), format!("{len} tokens"), expected));
        }
        if tokens + len > max_tokens {
            out.push(start..i);
            (start, tokens) = (i, 0);
        }
        tokens += len;
    }
    if start < lengths.len() {
        out.push(start..lengths.len());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_keep_order_and_budget() {
        let cuts = micro_batches(&[3, 4, 2, 9, 1], 9).unwrap();
        assert_eq!(cuts, [0..3, 3..4, 4..5]);
        assert!(micro_batches(&[], 9).unwrap().is_empty());
        let error = micro_batches(&[3, 10], 9).unwrap_err().to_string();
        assert_eq!(error, "sequence 1: found 10 tokens, expected at most micro_batch_tokens, which is 9");
    }
}
