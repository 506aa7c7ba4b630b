//! The policy update: a mini-batch of rollouts, cut into micro-batches, to gradients and verl's figures.
//!
//! Denominators are counted over the whole mini-batch before it is cut (verl's newer engine; its older actor
//! weighs micro-batches as if they were alike), so the cut changes no term of the loss. Figures that are means are over
//! the responses computed: of those that cannot move the policy that is one in [`FIGURES`].

use crate::config::RlConfig;
use crate::device::{Device, Region};
use crate::error::Result;
use crate::model::{Grads, Keep, Levels, Model, Policy};
use crate::ops::policy_loss::{self, Denominators, Io, Packed, PolicyLoss, PolicyStats, Sums};
use crate::philox::{self, Purpose, philox4x32_10};
use crate::rl::experience::Experience;
use crate::rl::groups;
use crate::rl::probs_diff::ProbsDiff;
use crate::rollout::ask::Question;
use crate::tensor::Tensor;
use crate::train::step::{self, Forward};

/// What a mini-batch's pass saw.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Seen {
    /// Loss and clip figures.
    pub stats: PolicyStats,
    /// How far trainer and sampler are apart: 0 before the first update of a batch (DESIGN section 8).
    pub probs_diff: ProbsDiff,
    /// Tokens computed.
    pub tokens: usize,
    /// Responses computed.
    pub responses: usize,
    /// Micro-batches they were cut into.
    pub micro_batches: usize,
}

/// Of so many responses that cannot move the policy one is computed, for the figures.
pub const FIGURES: u32 = 8;

/// A mini-batch's pass whose figures still lie on the device.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    loss: PolicyLoss,
    denominators: Denominators,
    /// The same of the responses computed alone.
    computed: Denominators,
    tokens: usize,
    responses: usize,
    micro_batches: usize,
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
        let &Queued { ref loss, denominators, computed, tokens, responses, micro_batches, .. } = self;
        let mut stats = PolicyStats::new(loss, &computed, &sums);
        let weight = |of: &Denominators| of.token_weight(loss.loss_agg_mode, 1.0);
        stats.entropy *= weight(&computed) / weight(&denominators);
        let probs_diff = ProbsDiff::from(&sums.probs());
        Ok(Seen { stats, probs_diff, tokens, responses, micro_batches })
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
    /// Steps done: which responses run for their figures differs from one to the next.
    pub step: u64,
}

/// Adds the gradients of a mini-batch's loss to `grads`; its figures overwrite `stats` (see [`policy_loss::stats`]).
/// Nothing waits for the device.
///
/// Responses that cannot move the policy (advantage 0, no KL or entropy term) are computed apart from the others, forward
/// only and few of them, for the figures: what their backward would add is exactly 0.
pub fn accumulate(
    dev: &mut Device,
    learner: Learner<'_>,
    grads: &mut Grads,
    batch: &[Experience],
    questions: &[&Question],
    stats: Tensor,
) -> Result<Queued> {
    let Learner { model, policy, config, levels, .. } = learner;
    let loss = PolicyLoss::from(config);
    let scale = Some(config.max_response_length as f64);
    let denominators = Denominators::new(&response_borders(batch), scale);
    let (moving, idle) = split(learner, &loss, batch, questions);
    let computed = Denominators::new(&response_borders(moving.iter().chain(&idle).copied()), scale);
    let responses = moving.len() + idle.len();
    policy_loss::reset(dev, stats)?;
    let (mut tokens, mut micro_batches) = (0, 0);
    for (group, moves) in [(moving, true), (idle, false)] {
        let mark = dev.mark(Region::Overlay);
        for part in groups::cut(dev, model, &group, questions, config.micro_batch_tokens, moves)? {
            let forward = step::forward(dev, model, &part.sequences, policy, levels, true)?;
            micro_batches += 1;
            tokens += part.sequences.iter().map(|s| s.input_ids.len()).sum::<usize>();
            let (dlog_prob, dentropy) = dev.range(format_args!("loss"), |dev| -> Result<_> {
                let packed = upload(dev, &forward, &group[part.responses])?;
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
        dev.release(mark);
    }
    Ok(Queued { loss, denominators, computed, tokens, responses, micro_batches, stats })
}

/// The responses that go through backward, and those that run forward for the figures alone, each question's together.
fn split<'a>(
    learner: Learner<'_>,
    loss: &PolicyLoss,
    batch: &'a [Experience],
    questions: &[&Question],
) -> (Vec<&'a Experience>, Vec<&'a Experience>) {
    let mut batch: Vec<&Experience> = batch.iter().collect();
    batch.sort_by_key(|e| e.question);
    if loss.kl_loss.is_some() || loss.entropy_coeff != 0.0 {
        return (batch, Vec::new());
    }
    let mut rollout = 0;
    let numbered = batch.iter().enumerate().map(|(i, &e)| {
        rollout = if i > 0 && batch[i - 1].question == e.question { rollout + 1 } else { 0 };
        (rollout, e)
    });
    let (mut idle, moving): (Vec<(u32, &Experience)>, Vec<_>) = numbered.partition(|(_, e)| e.advantage == 0.0);
    let mut moving: Vec<&Experience> = moving.into_iter().map(|(_, e)| e).collect();
    // A parameter only idle responses reach (the tower, when no other has a picture) still has a gradient, of 0, and
    // its update: momentum and decay go on as in torch. One of them reaches it as all would.
    let pictures = |e: &Experience| !questions[e.question].prompt.pixels.is_empty();
    let pictured = idle.iter().position(|(_, e)| pictures(e)).filter(|_| !moving.iter().any(|e| pictures(e)));
    if let Some(at) = pictured.or((moving.is_empty() && !idle.is_empty()).then_some(0)) {
        moving.push(idle.remove(at).1);
        moving.sort_by_key(|e| e.question);
    }
    let seed = (learner.config.seed, learner.step);
    idle.retain(|(rollout, e)| runs_for_figures(seed, e.question, *rollout));
    (moving, idle.into_iter().map(|(_, e)| e).collect())
}

/// Whether a response that cannot move the policy is computed: `seed` is (run seed, step), `rollout` its number among those
/// to its question.
pub fn runs_for_figures(seed: (u64, u64), question: usize, rollout: u32) -> bool {
    let key = philox::key(seed.0, Purpose::Figures, seed.1);
    philox4x32_10(key, [question as u32, rollout, 0, 0])[0].is_multiple_of(FIGURES)
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
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&i| batch[i].question);
    let responses: Vec<&Experience> = order.iter().map(|&i| &batch[i]).collect();
    let mut found = Vec::with_capacity(batch.len());
    let mark = dev.mark(Region::Overlay);
    for part in groups::cut(dev, model, &responses, questions, micro_batch_tokens, false)? {
        let forward = step::forward(dev, model, &part.sequences, policy, Keep::Inputs, false)?;
        let log_prob = dev.read::<f32>(forward.log_prob)?;
        let borders = forward.cu_targets.windows(2).map(|w| w[0] as usize..w[1] as usize);
        found.extend(borders.map(|range| log_prob[range].to_vec()));
        forward.discard(dev);
    }
    dev.release(mark);
    for (i, log_prob) in order.into_iter().zip(found) {
        batch[i].ref_log_prob = Some(log_prob);
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
