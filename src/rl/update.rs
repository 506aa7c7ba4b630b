//! The policy update: a mini-batch of rollouts, cut into micro-batches, to gradients and verl's figures.
//!
//! Denominators are counted over the whole mini-batch before it is cut (verl's newer engine; its older actor
//! weighs micro-batches as if they were alike), so the cut changes no term of the loss. Figures that are means are over
//! the responses computed: of those that cannot move the policy that is one in [`FIGURES`].

use std::collections::BTreeMap;

use crate::config::{LossMode, RlConfig};
use crate::device::{Device, Region};
use crate::error::Result;
use crate::model::{Grads, Keep, Levels, Model, Policy};
use crate::ops::policy_loss::{self, Denominators, Io, KlLoss, LOSSES, Packed, PolicyLoss, PolicyStats, STATS, Sums};
use crate::philox::{self, Purpose, philox4x32_10};
use crate::rl::balance::karmarkar_karp;
use crate::rl::experience::Experience;
use crate::rl::group::{Group, ResponseId, borders, responses};
use crate::rl::micro_batches;
use crate::rl::probs_diff::ProbsDiff;
use crate::tensor::{DType, Tensor};
use crate::train::step::{self, Computed, Forward};

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
    done: Computed,
    stats: Tensor,
}

impl Queued {
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

/// Returns the loss that `config` asks for.
pub fn loss_of(config: &RlConfig) -> PolicyLoss {
    let &RlConfig { kl_loss_type, kl_loss_coef, .. } = config;
    PolicyLoss {
        loss_mode: config.loss_mode,
        clip_ratio_low: config.clip_ratio_low,
        clip_ratio_high: config.clip_ratio_high,
        clip_ratio_c: (config.loss_mode == LossMode::Vanilla).then_some(config.clip_ratio_c),
        loss_agg_mode: config.loss_agg_mode,
        kl_loss: config.use_kl_loss.then_some(KlLoss { kl_loss_type, kl_loss_coef }),
        entropy_coeff: config.entropy_coeff,
    }
}

/// Adds the gradients of a mini-batch's loss to `grads`, in one lane; its figures overwrite `stats` (see
/// [`policy_loss::stats`]). Nothing waits for the device.
pub fn accumulate(
    dev: &mut Device,
    learner: Learner<'_>,
    grads: &mut Grads,
    groups: &[Group],
    stats: Tensor,
) -> Result<Queued> {
    let dealt = Dealt::new(learner.config, learner.step, groups, 1);
    policy_loss::reset(dev, stats)?;
    let done = dealt.accumulate(dev, learner, grads, 0, stats)?;
    Ok(dealt.queued(done, stats))
}

/// The responses that are computed: of a mini-batch or of one of its lanes. Those of a group are together.
#[derive(Clone, Default)]
struct Chosen {
    /// Those that go through backward.
    moving: Vec<ResponseId>,
    /// Those that run forward for the figures alone.
    idle: Vec<ResponseId>,
}

impl Chosen {
    fn all(&self) -> Vec<ResponseId> {
        [&self.moving[..], &self.idle].concat()
    }
}

/// A mini-batch dealt to gradient lanes: a function of the batch and their number, whoever computes them.
///
/// Responses that cannot move the policy (advantage 0, no KL or entropy term) are computed apart from the others, forward
/// only and few of them, for the figures: what their backward would add is exactly 0.
pub struct Dealt<'a> {
    groups: &'a [Group],
    loss: PolicyLoss,
    denominators: Denominators,
    /// The same of the responses computed alone.
    computed: Denominators,
    lanes: Vec<Chosen>,
}

impl<'a> Dealt<'a> {
    /// All responses of a group are in one lane, lanes have about as many tokens each; ties go by index. `step`: steps done.
    pub fn new(config: &RlConfig, step: u64, groups: &'a [Group], lanes: usize) -> Dealt<'a> {
        let loss = loss_of(config);
        let computed = split(config, step, &loss, groups);
        let (all, some) = (responses(groups), computed.all());
        // As Dr. GRPO and TRL divide: verl's function on one rank leaves the number of responses out.
        let denominators = |of: &[ResponseId]| {
            let scale = Some((of.len() * config.max_response_length) as f64);
            Denominators::new(&borders(of.iter().map(|id| id.of(groups))), scale)
        };
        let mut tokens: BTreeMap<usize, u64> = BTreeMap::new();
        some.iter().for_each(|id| *tokens.entry(id.group).or_default() += id.of(groups).input_ids.len() as u64);
        let (asked, tokens): (Vec<usize>, Vec<u64>) = tokens.into_iter().unzip();
        let mut of_lane: BTreeMap<usize, usize> = BTreeMap::new();
        for (lane, part) in karmarkar_karp(&tokens, lanes).into_iter().enumerate() {
            of_lane.extend(part.into_iter().map(|at| (asked[at], lane)));
        }
        let mut dealt = vec![Chosen::default(); lanes];
        computed.moving.iter().for_each(|id| dealt[of_lane[&id.group]].moving.push(*id));
        computed.idle.iter().for_each(|id| dealt[of_lane[&id.group]].idle.push(*id));
        Dealt { groups, loss, denominators: denominators(&all), computed: denominators(&some), lanes: dealt }
    }

    /// The responses that `lane` computes.
    pub fn of_lane(&self, lane: usize) -> Vec<ResponseId> {
        self.lanes[lane].all()
    }

    /// Adds the gradients of `lane` to `grads`, and its figures to `stats`. Nothing waits for the device.
    pub fn accumulate(
        &self,
        dev: &mut Device,
        learner: Learner<'_>,
        grads: &mut Grads,
        lane: usize,
        stats: Tensor,
    ) -> Result<Computed> {
        let Learner { model, policy, config, levels, .. } = learner;
        let mut done = Computed::default();
        let Chosen { moving, idle } = &self.lanes[lane];
        for (ids, moves) in [(moving, true), (idle, false)] {
            let mark = dev.mark(Region::Overlay);
            for part in micro_batches::cut(dev, model, self.groups, ids, config.micro_batch_tokens, moves)? {
                let forward = step::forward(dev, model, &part.sequences, policy, levels, true)?;
                done += Computed::micro_batch(&part.sequences);
                let (dlog_prob, dentropy) = dev.range(format_args!("loss"), |dev| -> Result<_> {
                    let responses: Vec<&Experience> = ids[part.responses].iter().map(|id| id.of(self.groups)).collect();
                    let packed = upload(dev, &forward, &responses)?;
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
    pub fn queued(&self, done: Computed, stats: Tensor) -> Queued {
        let &Dealt { loss, denominators, computed, .. } = self;
        let responses = self.lanes.iter().map(|lane| lane.moving.len() + lane.idle.len()).sum();
        Queued { loss, denominators, computed, responses, done, stats }
    }
}

/// Chooses the responses to compute.
fn split(config: &RlConfig, step: u64, loss: &PolicyLoss, groups: &[Group]) -> Chosen {
    let all = responses(groups);
    if loss.kl_loss.is_some() || loss.entropy_coeff != 0.0 {
        return Chosen { moving: all, idle: Vec::new() };
    }
    let (mut idle, mut moving): (Vec<ResponseId>, Vec<_>) =
        all.into_iter().partition(|id| id.of(groups).advantage == 0.0);
    // A parameter only idle responses reach (the tower, when no other has a picture) still has a gradient, of 0, and
    // its update: momentum and decay go on as in torch. One of them reaches it as all would.
    let pictures = |id: &ResponseId| !groups[id.group].question.prompt.pixels.is_empty();
    let pictured = idle.iter().position(pictures).filter(|_| !moving.iter().any(pictures));
    if let Some(at) = pictured.or((moving.is_empty() && !idle.is_empty()).then_some(0)) {
        moving.push(idle.remove(at));
        moving.sort_by_key(|id| id.group);
    }
    idle.retain(|id| runs_for_figures(config.seed, step, groups[id.group].index, id.rollout));
    Chosen { moving, idle }
}

/// Returns whether a response that cannot move the policy is computed in a step of the run of this `seed`: `question` is its
/// question's index among those asked, `rollout` its number among the responses to it.
pub fn runs_for_figures(seed: u64, step: u64, question: usize, rollout: usize) -> bool {
    let key = philox::key(seed, Purpose::Figures, step);
    philox4x32_10(key, [question as u32, rollout as u32, 0, 0])[0].is_multiple_of(FIGURES)
}

/// The model that the policy is compared with.
#[derive(Clone, Copy)]
pub struct Reference<'a> {
    /// Its weights.
    pub model: &'a Model,
    /// The ids it picks from, and its temperature.
    pub policy: Policy,
}

/// Fills in the log-probs under `reference` of the responses `ids` of `groups`; waits for the device.
pub fn reference(
    dev: &mut Device,
    Reference { model, policy }: Reference<'_>,
    groups: &mut [Group],
    mut ids: Vec<ResponseId>,
    micro_batch_tokens: usize,
) -> Result<()> {
    ids.sort_by_key(|id| id.group);
    let mut found = Vec::with_capacity(ids.len());
    let mark = dev.mark(Region::Overlay);
    for part in micro_batches::cut(dev, model, groups, &ids, micro_batch_tokens, false)? {
        let forward = step::forward(dev, model, &part.sequences, policy, Keep::Inputs, false)?;
        let log_prob = dev.read::<f32>(forward.log_prob)?;
        let borders = forward.cu_targets.windows(2).map(|w| w[0] as usize..w[1] as usize);
        found.extend(borders.map(|range| log_prob[range].to_vec()));
        forward.discard(dev);
    }
    dev.release(mark);
    for (id, log_prob) in ids.into_iter().zip(found) {
        groups[id.group].experience[id.rollout].ref_log_prob = Some(log_prob);
    }
    Ok(())
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
