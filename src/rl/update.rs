//! The policy update: a mini-batch of rollouts, cut into micro-batches, to gradients and verl's figures.
//!
//! Denominators are counted over the whole mini-batch before it is cut (verl's newer engine; its older actor
//! weighs micro-batches as if they were alike), so the cut changes no term of the loss.

use crate::config::RlConfig;
use crate::device::Device;
use crate::error::Result;
use crate::model::{Grads, Keep, Levels, Model, Policy};
use crate::ops::policy_loss::{self, Denominators, Io, Packed, PolicyLoss, PolicyStats, Sums};
use crate::rl::probs_diff::ProbsDiff;
use crate::rollout::ask::{Question, Rollout};
use crate::tensor::Tensor;
use crate::train::step::{self, Forward, Sequence};

/// One response to learn from.
#[derive(Clone, Debug)]
pub struct Experience {
    /// Prompt and response tokens.
    pub input_ids: Vec<u32>,
    /// `[len]`: true for the response.
    pub loss_mask: Vec<bool>,
    /// Log-probs of the response tokens under the policy that sampled them.
    pub old_log_prob: Vec<f32>,
    /// Log-probs under the reference policy, with a KL term.
    pub ref_log_prob: Option<Vec<f32>>,
    /// Group-relative advantage.
    pub advantage: f64,
    /// Index of the question among those asked.
    pub question: usize,
}

impl Experience {
    /// Of a rollout and its advantage.
    pub fn new(question: &Question, rollout: &Rollout, advantage: f64) -> Experience {
        let prompt = &question.prompt.token_ids;
        let response = &rollout.output.token_ids;
        let mut loss_mask = vec![false; prompt.len()];
        loss_mask.resize(prompt.len() + response.len(), true);
        Experience {
            input_ids: [&prompt[..], &response[..]].concat(),
            loss_mask,
            old_log_prob: rollout.output.logprobs.clone(),
            ref_log_prob: None,
            advantage,
            question: rollout.question,
        }
    }

    /// It as a sequence to be trained on.
    pub fn sequence<'a>(&'a self, questions: &[&'a Question]) -> Sequence<'a> {
        let prompt = &questions[self.question].prompt;
        Sequence {
            input_ids: &self.input_ids,
            images: &prompt.pixels,
            prompt_len: prompt.token_ids.len(),
            loss_mask: &self.loss_mask,
        }
    }
}

/// What a mini-batch's pass saw.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Seen {
    /// Loss and clip figures.
    pub stats: PolicyStats,
    /// How far trainer and sampler are apart: 0 before the first update of a batch (DESIGN section 8).
    pub probs_diff: ProbsDiff,
    /// Tokens computed.
    pub tokens: usize,
}

/// A mini-batch's pass whose figures still lie on the device.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    loss: PolicyLoss,
    denominators: Denominators,
    tokens: usize,
    stats: Tensor,
}

impl Queued {
    /// The losses that have to be finite, f64.
    pub fn losses(&self) -> Tensor {
        self.stats.slice(0, policy_loss::LOSSES)
    }

    /// The figures; waits for the device.
    pub fn read(&self, dev: &mut Device) -> Result<Seen> {
        let sums = Sums::of(&dev.read::<f64>(self.stats)?);
        let stats = PolicyStats::new(&self.loss, &self.denominators, &sums);
        Ok(Seen { stats, probs_diff: ProbsDiff::from(&sums.probs()), tokens: self.tokens })
    }
}

/// What a mini-batch is learned by.
#[derive(Clone, Copy)]
pub struct Learner<'a> {
    /// The policy's weights.
    pub model: &'a Model,
    /// The ids it picks from, and its temperature.
    pub policy: Policy,
    /// The loss and how a mini-batch is cut.
    pub config: &'a RlConfig,
    /// What passes keep for backward.
    pub levels: Levels,
}

/// Adds the gradients of a mini-batch's loss to `grads`; its figures overwrite `stats` (see [`policy_loss::stats`]).
/// Nothing waits for the device.
///
/// Responses that cannot move the policy (advantage 0, no KL or entropy term) are computed apart from the others and
/// forward only, for the figures: what their backward would add is exactly 0.
pub fn accumulate(
    dev: &mut Device,
    learner: Learner<'_>,
    grads: &mut Grads,
    batch: &[Experience],
    questions: &[&Question],
    stats: Tensor,
) -> Result<Queued> {
    let Learner { model, policy, config, levels } = learner;
    let loss = PolicyLoss::from(config);
    let whole = response_borders(batch);
    let denominators = Denominators::new(&whole, Some(config.max_response_length as f64));
    let advantage_alone = loss.kl_loss.is_none() && loss.entropy_coeff == 0.0;
    let idle = |e: &&Experience| advantage_alone && e.advantage == 0.0;
    let (mut idle, mut moving): (Vec<&Experience>, Vec<&Experience>) = batch.iter().partition(idle);
    // A parameter only idle responses reach (the tower, when no other has a picture) still has a gradient, of 0, and
    // its update: momentum and decay go on as in torch.
    let pictures = |e: &&Experience| !questions[e.question].prompt.pixels.is_empty();
    if moving.is_empty() || (idle.iter().any(pictures) && !moving.iter().any(pictures)) {
        moving = batch.iter().collect();
        idle.clear();
    }
    policy_loss::reset(dev, stats)?;
    let mut tokens = 0;
    for (group, moves) in [(moving, true), (idle, false)] {
        let lengths: Vec<usize> = group.iter().map(|e| e.input_ids.len()).collect();
        for range in step::micro_batches(&lengths, config.micro_batch_tokens)? {
            let part = &group[range];
            let sequences: Vec<Sequence<'_>> = part.iter().map(|e| e.sequence(questions)).collect();
            let forward = step::forward(dev, model, &sequences, policy, levels, true)?;
            tokens += sequences.iter().map(|s| s.input_ids.len()).sum::<usize>();
            let (dlog_prob, dentropy) = dev.range(format_args!("loss"), |dev| -> Result<_> {
                let packed = upload(dev, &forward, part)?;
                let dlog_prob = forward.like_log_prob(dev)?;
                let counts = loss.entropy_coeff != 0.0;
                let dentropy = counts.then(|| forward.like_log_prob(dev)).transpose()?;
                let Forward { log_prob, entropy, .. } = forward;
                let io = Io { log_prob, entropy, dlog_prob, dentropy, stats };
                policy_loss::fwd(dev, &loss, &denominators, &packed, io)?;
                Ok((dlog_prob, dentropy))
            })?;
            if moves {
                forward.backward(dev, grads, dlog_prob, dentropy)?;
            } else {
                forward.discard(dev);
            }
        }
    }
    Ok(Queued { loss, denominators, tokens, stats })
}

/// Log-probs of every response under `model`, filled into `ref_log_prob`; waits for the device.
pub fn reference(
    dev: &mut Device,
    model: &Model,
    batch: &mut [Experience],
    questions: &[&Question],
    policy: Policy,
    micro_batch_tokens: usize,
) -> Result<()> {
    let lengths: Vec<usize> = batch.iter().map(|e| e.input_ids.len()).collect();
    for range in step::micro_batches(&lengths, micro_batch_tokens)? {
        let part = &mut batch[range];
        let sequences: Vec<Sequence<'_>> = part.iter().map(|e| e.sequence(questions)).collect();
        let forward = step::forward(dev, model, &sequences, policy, Keep::Inputs, false)?;
        let log_prob = dev.read::<f32>(forward.log_prob)?;
        for (experience, borders) in part.iter_mut().zip(forward.cu_targets.windows(2)) {
            experience.ref_log_prob = Some(log_prob[borders[0] as usize..borders[1] as usize].to_vec());
        }
        forward.discard(dev);
    }
    Ok(())
}

/// Borders of the responses, one after another.
fn response_borders<'a>(batch: impl IntoIterator<Item = &'a Experience>) -> Vec<u32> {
    let mut borders = vec![0u32];
    borders.extend(batch.into_iter().scan(0, |end, e| {
        *end += e.old_log_prob.len() as u32;
        Some(*end)
    }));
    borders
}

/// A micro-batch's response tokens, one response after another, beside its activations.
fn upload(dev: &mut Device, forward: &Forward, part: &[&Experience]) -> Result<Packed> {
    let rows = |of: fn(&Experience) -> Option<&Vec<f32>>| -> Option<Vec<f32>> {
        let rows: Option<Vec<&Vec<f32>>> = part.iter().map(|e| of(e)).collect();
        rows.map(|rows| rows.into_iter().flatten().copied().collect())
    };
    let old_log_prob = rows(|e| Some(&e.old_log_prob)).unwrap_or_default();
    let ref_log_prob = rows(|e| e.ref_log_prob.as_ref());
    let advantages: Vec<f64> = part.iter().map(|e| e.advantage).collect();
    Ok(Packed {
        cu_seqlens: forward.upload(dev, &forward.cu_targets)?,
        old_log_prob: forward.upload(dev, &old_log_prob)?,
        ref_log_prob: ref_log_prob.map(|rows| forward.upload(dev, &rows)).transpose()?,
        advantages: forward.upload(dev, &advantages)?,
    })
}
