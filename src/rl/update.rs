//! The policy update: a mini-batch of rollouts, cut into micro-batches, to gradients and verl's figures.
//!
//! Denominators are counted over the whole mini-batch before it is cut (verl's newer engine; its older actor
//! weighs micro-batches as if they were alike), so the cut changes no term of the loss. Figures that are means are over
//! the responses computed: of those that cannot move the policy that is one in [`FIGURES`].

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::config::RlConfig;
use crate::device::{Device, Region};
use crate::error::Result;
use crate::model::{Grads, Keep, Levels, Model, Policy};
use crate::ops::policy_loss::{self, Denominators, Io, LOSSES, Packed, PolicyLoss, PolicyStats, STATS, Sums};
use crate::philox::{self, Purpose, philox4x32_10};
use crate::rl::batching::karmarkar_karp;
use crate::rl::experience::Experience;
use crate::rl::groups;
use crate::rl::probs_diff::ProbsDiff;
use crate::rollout::ask::Question;
use crate::tensor::{DType, Tensor};
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
    responses: usize,
    done: Done,
    stats: Tensor,
}

impl Queued {
    /// The losses that have to be finite, f64, of a mini-batch of one lane.
    pub fn losses(&self) -> Tensor {
        self.stats.slice(0, LOSSES)
    }

    /// The figures, lane after lane; waits for the device.
    pub fn read(&self, dev: &mut Device) -> Result<Seen> {
        let mut sums = Sums::NONE;
        dev.read::<f64>(self.stats)?.chunks(STATS).for_each(|lane| sums += Sums::of(lane));
        let &Queued { ref loss, denominators, computed, responses, done, .. } = self;
        let mut stats = PolicyStats::new(loss, &computed, &sums);
        let weight = |of: &Denominators| of.token_weight(loss.loss_agg_mode, 1.0);
        stats.entropy *= weight(&computed) / weight(&denominators);
        let probs_diff = ProbsDiff::from(&sums.probs());
        Ok(Seen { stats, probs_diff, tokens: done.tokens, responses, micro_batches: done.micro_batches })
    }
}

/// What a lane computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Tokens.
    pub tokens: usize,
    /// Micro-batches they were cut into.
    pub micro_batches: usize,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Done) {
        self.tokens += other.tokens;
        self.micro_batches += other.micro_batches;
    }
}

/// Where the figures of a mini-batch's lanes lie while an update runs.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// f64 `[lanes * STATS]`.
    pub stats: Tensor,
    /// f64 `[lanes * LOSSES]`: those of them that have to be finite.
    pub losses: Tensor,
}

/// [`Figures`] of so many lanes, their content undefined.
pub fn figures(dev: &mut Device, lanes: usize) -> Result<Figures> {
    let mut alloc = |n: usize| dev.alloc(Region::Overlay, DType::F64, &[lanes * n]);
    Ok(Figures { stats: alloc(STATS)?, losses: alloc(LOSSES)? })
}

impl Figures {
    /// The figures of `lane`.
    pub fn of_lane(&self, lane: usize) -> Tensor {
        self.stats.slice(lane * STATS, (lane + 1) * STATS)
    }

    /// The losses of all lanes, once these have their figures.
    pub fn losses(&self, dev: &mut Device) -> Result<Tensor> {
        let lanes = self.stats.len() / STATS;
        let copy = |lane: usize| {
            dev.copy(self.of_lane(lane).slice(0, LOSSES), self.losses.slice(lane * LOSSES, (lane + 1) * LOSSES))
        };
        (0..lanes).try_for_each(copy)?;
        Ok(self.losses)
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

/// Adds the gradients of a mini-batch's loss to `grads`, in one lane; its figures overwrite `stats` (see
/// [`policy_loss::stats`]). Nothing waits for the device.
pub fn accumulate(
    dev: &mut Device,
    learner: Learner<'_>,
    grads: &mut Grads,
    batch: &[Experience],
    questions: &[&Question],
    stats: Tensor,
) -> Result<Queued> {
    let dealt = Dealt::new((learner.config, learner.step), batch, questions, 1);
    policy_loss::reset(dev, stats)?;
    let done = dealt.accumulate(dev, learner, grads, 0, stats)?;
    Ok(dealt.queued(done, stats))
}

/// A mini-batch dealt to gradient lanes: a function of the batch and their number, whoever computes them.
///
/// Responses that cannot move the policy (advantage 0, no KL or entropy term) are computed apart from the others, forward
/// only and few of them, for the figures: what their backward would add is exactly 0.
pub struct Dealt<'a> {
    batch: &'a [Experience],
    questions: &'a [&'a Question],
    loss: PolicyLoss,
    denominators: Denominators,
    computed: Denominators,
    /// By lane: the responses that go through backward, and those that run forward for the figures alone, each question's
    /// together.
    lanes: Vec<[Vec<usize>; 2]>,
}

impl<'a> Dealt<'a> {
    /// All responses to a question are in one lane, lanes have about as many tokens each; ties go by index. `run`: config and
    /// steps done.
    pub fn new(
        run: (&RlConfig, u64),
        batch: &'a [Experience],
        questions: &'a [&'a Question],
        lanes: usize,
    ) -> Dealt<'a> {
        let loss = PolicyLoss::from(run.0);
        let (moving, idle) = split(run, &loss, batch, questions);
        let both = || moving.iter().chain(&idle);
        // As Dr. GRPO and TRL divide: verl's function on one rank leaves the number of responses out.
        let scale = |responses: usize| Some((responses * run.0.max_response_length) as f64);
        let denominators = Denominators::new(&response_borders(batch), scale(batch.len()));
        let computed =
            Denominators::new(&response_borders(both().map(|&i| &batch[i])), scale(moving.len() + idle.len()));
        let mut tokens: BTreeMap<usize, u64> = BTreeMap::new();
        both().for_each(|&i| *tokens.entry(batch[i].question).or_default() += batch[i].input_ids.len() as u64);
        let (asked, tokens): (Vec<usize>, Vec<u64>) = tokens.into_iter().unzip();
        let mut of_lane: BTreeMap<usize, usize> = BTreeMap::new();
        for (lane, part) in karmarkar_karp(&tokens, lanes).into_iter().enumerate() {
            of_lane.extend(part.into_iter().map(|at| (asked[at], lane)));
        }
        let mut dealt = vec![[Vec::new(), Vec::new()]; lanes];
        for (kind, responses) in [moving, idle].into_iter().enumerate() {
            responses.into_iter().for_each(|i| dealt[of_lane[&batch[i].question]][kind].push(i));
        }
        Dealt { batch, questions, loss, denominators, computed, lanes: dealt }
    }

    /// The responses that `lane` computes.
    pub fn of_lane(&self, lane: usize) -> Vec<usize> {
        self.lanes[lane].concat()
    }

    /// Adds the gradients of `lane` to `grads`, and its figures to `stats`. Nothing waits for the device.
    pub fn accumulate(
        &self,
        dev: &mut Device,
        learner: Learner<'_>,
        grads: &mut Grads,
        lane: usize,
        stats: Tensor,
    ) -> Result<Done> {
        let Learner { model, policy, config, levels, .. } = learner;
        let mut done = Done::default();
        for (group, moves) in self.lanes[lane].iter().zip([true, false]) {
            let group: Vec<&Experience> = group.iter().map(|&i| &self.batch[i]).collect();
            let mark = dev.mark(Region::Overlay);
            for part in groups::cut(dev, model, &group, self.questions, config.micro_batch_tokens, moves)? {
                let forward = step::forward(dev, model, &part.sequences, policy, levels, true)?;
                done.micro_batches += 1;
                done.tokens += part.sequences.iter().map(|s| s.input_ids.len()).sum::<usize>();
                let (dlog_prob, dentropy) = dev.range(format_args!("loss"), |dev| -> Result<_> {
                    let packed = upload(dev, &forward, &group[part.responses])?;
                    let dlog_prob = forward.like_log_prob(dev)?;
                    let counts = self.loss.entropy_coeff != 0.0;
                    let dentropy = counts.then(|| forward.like_log_prob(dev)).transpose()?;
                    let Forward { log_prob, entropy, .. } = forward;
                    let io = Io { log_prob, entropy, dlog_prob, dentropy, stats };
                    policy_loss::fwd(dev, &self.loss, &self.denominators, &packed, io)?;
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
        Ok(done)
    }

    /// The pass that all lanes together have `done`; `stats` f64 `[lanes * STATS]` has the figures of each.
    pub fn queued(&self, done: Done, stats: Tensor) -> Queued {
        let &Dealt { loss, denominators, computed, .. } = self;
        let responses = self.lanes.iter().flatten().map(Vec::len).sum();
        Queued { loss, denominators, computed, responses, done, stats }
    }
}

/// The responses that go through backward, and those that run forward for the figures alone, each question's together.
fn split(
    (config, step): (&RlConfig, u64),
    loss: &PolicyLoss,
    batch: &[Experience],
    questions: &[&Question],
) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..batch.len()).collect();
    order.sort_by_key(|&i| batch[i].question);
    if loss.kl_loss.is_some() || loss.entropy_coeff != 0.0 {
        return (order, Vec::new());
    }
    let mut rollout = 0;
    let numbered = order.iter().enumerate().map(|(at, &i)| {
        rollout = if at > 0 && batch[order[at - 1]].question == batch[i].question { rollout + 1 } else { 0 };
        (rollout, i)
    });
    let (mut idle, moving): (Vec<(u32, usize)>, Vec<_>) = numbered.partition(|&(_, i)| batch[i].advantage == 0.0);
    let mut moving: Vec<usize> = moving.into_iter().map(|(_, i)| i).collect();
    // A parameter only idle responses reach (the tower, when no other has a picture) still has a gradient, of 0, and
    // its update: momentum and decay go on as in torch. One of them reaches it as all would.
    let pictures = |i: usize| !questions[batch[i].question].prompt.pixels.is_empty();
    let pictured = idle.iter().position(|&(_, i)| pictures(i)).filter(|_| !moving.iter().any(|&i| pictures(i)));
    if let Some(at) = pictured.or((moving.is_empty() && !idle.is_empty()).then_some(0)) {
        moving.push(idle.remove(at).1);
        moving.sort_by_key(|&i| batch[i].question);
    }
    idle.retain(|&(rollout, i)| runs_for_figures((config.seed, step), batch[i].question, rollout));
    (moving, idle.into_iter().map(|(_, i)| i).collect())
}

/// Whether a response that cannot move the policy is computed: `seed` is (run seed, step), `rollout` its number among those
/// to its question.
pub fn runs_for_figures(seed: (u64, u64), question: usize, rollout: u32) -> bool {
    let key = philox::key(seed.0, Purpose::Figures, seed.1);
    philox4x32_10(key, [question as u32, rollout, 0, 0])[0].is_multiple_of(FIGURES)
}

/// Log-probs of the responses `order` of `batch` under `model`, filled into `ref_log_prob`; waits for the device.
pub fn reference(
    dev: &mut Device,
    model: &Model,
    (batch, mut order): (&mut [Experience], Vec<usize>),
    questions: &[&Question],
    policy: Policy,
    micro_batch_tokens: usize,
) -> Result<()> {
    order.sort_by_key(|&i| batch[i].question);
    let responses: Vec<&Experience> = order.iter().map(|&i| &batch[i]).collect();
    let mut found = Vec::with_capacity(order.len());
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
