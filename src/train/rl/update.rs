//! The policy update: computes gradients and verl's metrics for a mini-batch of rollouts, which is cut into
//! micro-batches.
//!
//! Denominators are counted over the complete mini-batch before it is cut, so the cut changes no term of the loss. This
//! is the behaviour of verl's newer engine; its older actor gives all micro-batches the same weight. Metrics that are
//! means cover only the responses that are computed. Of the responses that cannot move the
//! policy, one in [`IDLE_PER_MEASURED`] is computed.

use std::collections::BTreeMap;

use crate::rl::balance::{karmarkar_karp, shared_workload};
use crate::rl::experience::Experience;
use crate::rl::group::{Group, ResponseId, borders, micro_batches, responses, sequences, unmasked};
use crate::rl::probs_diff::ProbsDiff;
use crate::training::exchange::Reach;
use crate::training::lanes::interleaved;
use crate::training::step::{self, Computed, Forward};
use omr_base::config::{LossMode, RlConfig};
use omr_base::error::Result;
use omr_base::philox::{self, Purpose, philox4x32_10};
use omr_model::nn::{CheckpointPolicy, GradientSink, LayerPolicy, Model, Policy};
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::policy_loss::{
    self, Denominators, Distillation, Io, KlLoss, LOSSES, Packed, PolicyLoss, PolicyStats, STATS, Sums,
};
use omr_runtime::tensor::{DType, Tensor};

/// A micro-batch in which log-probs of the trainer differ from those of the sampler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Differing {
    /// Number of the micro-batch in its update.
    pub micro_batch: usize,
    /// Number of tokens that differ.
    pub tokens: u64,
    /// Position of the first of them among the response tokens of the micro-batch.
    pub first: usize,
}

/// The results of an update over a mini-batch.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct UpdateResults {
    /// Loss and clipping metrics.
    pub stats: PolicyStats,
    /// Difference between trainer and sampler. It is 0 before the first update of a batch (see
    /// `docs/dev/design/training.md`).
    pub probs_diff: ProbsDiff,
    /// The micro-batches with tokens whose log-probs of trainer and sampler differ.
    pub differing: Vec<Differing>,
    /// Number of tokens computed.
    pub tokens: usize,
    /// Number of tokens not computed, because responses share their prompt.
    pub shared_tokens: usize,
    /// Number of responses computed.
    pub responses: usize,
    /// Number of micro-batches.
    pub micro_batches: usize,
}

/// Number of responses that cannot move the policy, for each one of them that is computed for the metrics.
pub const IDLE_PER_MEASURED: u32 = 8;

/// Memory for the results of a mini-batch's micro-batches during an update.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatchStats {
    /// Results of all micro-batches, f64 `[count * STATS]`.
    pub stats: Tensor,
    /// The losses among these results, which must be finite, f64 `[count * LOSSES]`.
    pub losses: Tensor,
}

impl MicroBatchStats {
    /// Allocates memory for as many micro-batches as a mini-batch of `config` can have: one for each response. The
    /// content is undefined.
    pub fn new(dev: &mut Device, config: &RlConfig) -> Result<MicroBatchStats> {
        let most = config.ppo_mini_batch_size * config.rollout.n;
        let mut alloc = |n: usize| dev.alloc(Region::Overlay, DType::F64, &[most * n]);
        Ok(MicroBatchStats { stats: alloc(STATS)?, losses: alloc(LOSSES)? })
    }

    /// Returns the memory for `count` micro-batches, with empty results.
    pub fn of_update(&self, dev: &mut Device, count: usize) -> Result<MicroBatchStats> {
        let (stats, losses) = (self.stats.slice(0, count * STATS), self.losses.slice(0, count * LOSSES));
        policy_loss::reset(dev, stats)?;
        Ok(MicroBatchStats { stats, losses })
    }

    /// Returns the results of micro-batch `number`.
    pub fn of(&self, number: usize) -> Tensor {
        self.stats.slice(number * STATS, (number + 1) * STATS)
    }

    /// Copies the losses of all micro-batches from their results and returns them. The results must be complete.
    pub fn losses(&self, dev: &mut Device) -> Result<Tensor> {
        let copy = |i: usize| dev.copy(self.of(i).slice(0, LOSSES), self.losses.slice(i * LOSSES, (i + 1) * LOSSES));
        (0..self.stats.len() / STATS).try_for_each(copy)?;
        Ok(self.losses)
    }
}

/// Everything that an update needs besides the responses.
#[derive(Clone, Copy)]
pub struct Learner<'a> {
    /// Weights of the policy.
    pub model: &'a Model,
    /// Allowed ids and temperature of the policy.
    pub policy: Policy,
    /// Settings for the loss and for the cut of a mini-batch.
    pub config: &'a RlConfig,
    /// Activation checkpointing policy of the passes.
    pub levels: CheckpointPolicy,
    /// Number of steps done. It determines which responses are computed only for the metrics.
    pub step: u64,
}

/// Returns the loss that `config` selects.
pub fn loss_of(config: &RlConfig) -> PolicyLoss {
    let &RlConfig { kl_loss_type, kl_loss_coef, .. } = config;
    PolicyLoss {
        loss_mode: config.loss_mode,
        clip_ratio_low: config.clip_ratio_low,
        clip_ratio_high: config.clip_ratio_high,
        clip_ratio_c: (config.loss_mode == LossMode::Vanilla).then_some(config.clip_ratio_c),
        loss_agg_mode: config.loss_agg_mode,
        kl_loss: config.use_kl_loss.then_some(KlLoss { kl_loss_type, kl_loss_coef }),
        distillation: config
            .distillation
            .as_ref()
            .map(|term| Distillation { coef: term.coef, loss_max_clamp: term.loss_max_clamp }),
        entropy_coeff: config.entropy_coeff,
    }
}

/// Adds the gradients of a mini-batch's loss to `grads`, in one lane, and overwrites `stats` (f64 `[STATS]`) with its
/// results (see [`policy_loss::stats`]), which [`MiniBatch::results`] reads. Does not wait for the device.
pub fn accumulate(
    dev: &mut Device,
    learner: Learner<'_>,
    grads: &mut dyn GradientSink,
    groups: &[Group],
    stats: Tensor,
) -> Result<Computed> {
    let mini_batch = MiniBatch::new(learner.config, learner.step, groups, 1);
    policy_loss::reset(dev, stats)?;
    let mut done = Computed::default();
    for micro_batch in mini_batch.micro_batches(learner.config.micro_batch_tokens) {
        done += mini_batch.compute(dev, learner, grads, &micro_batch, stats)?;
    }
    Ok(done)
}

/// Responses that pass through the model together.
#[derive(Clone, PartialEq, Debug)]
pub struct MicroBatch {
    /// The responses. Those of a group are consecutive.
    pub responses: Vec<ResponseId>,
    /// False if none of the responses can move the policy, so that no backward follows.
    pub moves: bool,
}

/// The responses of a mini-batch, or of one of its lanes, that are computed. The responses of a group are consecutive.
#[derive(Clone, Default)]
struct Chosen {
    /// Responses that take part in backward.
    moving: Vec<ResponseId>,
    /// Responses that run only forward, for the metrics.
    idle: Vec<ResponseId>,
}

impl Chosen {
    fn all(&self) -> Vec<ResponseId> {
        [&self.moving[..], &self.idle].concat()
    }

    /// Cuts one of the two lists into micro-batches.
    fn cut(&self, groups: &[Group], moves: bool, max_tokens: usize) -> Vec<MicroBatch> {
        let ids = if moves { &self.moving } else { &self.idle };
        let micro_batch = |range: std::ops::Range<usize>| MicroBatch { responses: ids[range].to_vec(), moves };
        micro_batches(groups, ids, max_tokens).into_iter().map(micro_batch).collect()
    }
}

/// A mini-batch whose responses are assigned to gradient lanes. The assignment depends only on the batch and the number
/// of lanes, not on the ranks that compute them.
///
/// Responses that cannot move the policy (advantage 0, no KL, distillation or entropy term) are computed separately,
/// forward only, and only some of them, for the metrics. Their contribution to the gradients is exactly 0.
pub struct MiniBatch<'a> {
    groups: &'a [Group],
    loss: PolicyLoss,
    denominators: Denominators,
    /// Denominators over the computed responses only.
    computed: Denominators,
    lanes: Vec<Chosen>,
}

impl<'a> MiniBatch<'a> {
    /// Assigns all responses of a group to the same lane, and balances the lanes by work: the tokens and the pairs of
    /// attention that are computed. Ties are resolved by index. `step` is the number of steps done.
    pub fn new(config: &RlConfig, step: u64, groups: &'a [Group], lanes: usize) -> MiniBatch<'a> {
        let loss = loss_of(config);
        let computed = split(config, step, &loss, groups);
        let (all, some) = (unmasked(groups), computed.all());
        // The scale includes the number of responses, as in Dr. GRPO and TRL, which also count those that are left out.
        // verl's function on one rank omits it.
        let denominators = |of: &[ResponseId], responses: usize| match all.is_empty() {
            true => Denominators::INFINITE,
            false => {
                let scale = Some((responses * config.max_response_length) as f64);
                Denominators::new(&borders(of.iter().map(|id| id.of(groups))), scale)
            }
        };
        let mut lengths: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        some.iter().for_each(|id| lengths.entry(id.group).or_default().push(id.of(groups).old_log_prob.len()));
        let prompt = |group: usize| groups[group].question.prompt.token_ids.len();
        let work = |(group, responses)| (group, shared_workload(prompt(group), responses));
        let (numbers, work): (Vec<usize>, Vec<u64>) = lengths.into_iter().map(work).unzip();
        let mut of_lane: BTreeMap<usize, usize> = BTreeMap::new();
        for (lane, part) in karmarkar_karp(&work, lanes).into_iter().enumerate() {
            of_lane.extend(part.into_iter().map(|at| (numbers[at], lane)));
        }
        let mut lanes = vec![Chosen::default(); lanes];
        computed.moving.iter().for_each(|id| lanes[of_lane[&id.group]].moving.push(*id));
        computed.idle.iter().for_each(|id| lanes[of_lane[&id.group]].idle.push(*id));
        MiniBatch {
            groups,
            loss,
            denominators: denominators(&all, responses(groups).len()),
            computed: denominators(&some, some.len()),
            lanes,
        }
    }

    /// Returns the micro-batches of at most `max_tokens` tokens in the order in which their gradients and results are
    /// added. Those without backward come last.
    pub fn micro_batches(&self, max_tokens: usize) -> Vec<MicroBatch> {
        let of = |moves: bool| interleaved(self.lanes.iter().map(|lane| lane.cut(self.groups, moves, max_tokens)));
        [of(true), of(false)].concat()
    }

    /// Returns the number of tokens that are computed for a micro-batch.
    pub fn tokens(&self, micro_batch: &MicroBatch) -> usize {
        Computed::micro_batch(&sequences(self.groups, &micro_batch.responses)).tokens
    }

    /// Returns the parts of the model to which a micro-batch with backward has gradients.
    pub fn reach(&self, micro_batch: &MicroBatch) -> Reach {
        let mut questions = micro_batch.responses.iter().map(|id| &self.groups[id.group].question);
        Reach { targets: true, images: questions.any(|question| !question.prompt.pixels.is_empty()) }
    }

    /// Adds the gradients of a micro-batch to `grads` if it has any, and its results to `stats`. Does not wait for the
    /// device.
    pub fn compute(
        &self,
        dev: &mut Device,
        learner: Learner<'_>,
        grads: &mut dyn GradientSink,
        micro_batch: &MicroBatch,
        stats: Tensor,
    ) -> Result<Computed> {
        let Learner { model, policy, levels, .. } = learner;
        let MicroBatch { responses, moves } = micro_batch;
        let sequences = sequences(self.groups, responses);
        let forward = step::forward(dev, model, &sequences, policy, levels, true)?;
        let (dlog_prob, dentropy) = dev.range(format_args!("loss"), |dev| -> Result<_> {
            let responses: Vec<&Experience> = responses.iter().map(|id| id.of(self.groups)).collect();
            let packed = upload(dev, &forward, &responses)?;
            let dlog_prob = forward.like_log_prob(dev)?;
            let counts = self.loss.entropy_coeff != 0.0;
            let dentropy = counts.then(|| forward.like_log_prob(dev)).transpose()?;
            let Forward { log_prob, entropy, .. } = forward;
            let io = Io { log_prob, entropy, dlog_prob, dentropy, stats };
            policy_loss::fwd(dev, &self.loss, &self.denominators, &packed, io)?;
            Ok((dlog_prob, dentropy))
        })?;
        match moves {
            true => forward.backward(dev, grads, dlog_prob, dentropy)?,
            false => forward.discard(dev),
        }
        Ok(Computed::micro_batch(&sequences))
    }

    /// Adds up the results of all micro-batches in order and returns them. `done` is the work of all micro-batches, and
    /// `stats` f64 `[count * STATS]` has their results. Waits for the device.
    pub fn results(&self, dev: &mut Device, done: Computed, stats: Tensor) -> Result<UpdateResults> {
        let (mut sums, mut differing) = (Sums::NONE, Vec::new());
        for (micro_batch, part) in dev.read::<f64>(stats)?.chunks(STATS).map(Sums::of).enumerate() {
            let (tokens, first) = part.different();
            differing.extend(first.map(|first| Differing { micro_batch, tokens, first }));
            sums += part;
        }
        let mut stats = PolicyStats::new(&self.loss, &self.computed, &sums);
        let weight = |of: &Denominators| of.token_weight(self.loss.loss_agg_mode, 1.0);
        if weight(&self.denominators) > 0.0 {
            stats.entropy *= weight(&self.computed) / weight(&self.denominators);
        }
        let responses = self.lanes.iter().map(|lane| lane.moving.len() + lane.idle.len()).sum();
        let probs_diff = ProbsDiff::from(&sums);
        let Computed { tokens, shared_tokens, micro_batches, .. } = done;
        Ok(UpdateResults { stats, probs_diff, differing, tokens, shared_tokens, responses, micro_batches })
    }
}

/// Selects the responses to compute.
fn split(config: &RlConfig, step: u64, loss: &PolicyLoss, groups: &[Group]) -> Chosen {
    let all = unmasked(groups);
    if all.is_empty() {
        // Its weight is 0, which has the effect of an idle response in backward.
        return Chosen { moving: responses(groups).into_iter().take(1).collect(), idle: Vec::new() };
    }
    if loss.kl_loss.is_some() || loss.distillation.is_some() || loss.entropy_coeff != 0.0 {
        return Chosen { moving: all, idle: Vec::new() };
    }
    let (mut idle, mut moving): (Vec<ResponseId>, Vec<_>) =
        all.into_iter().partition(|id| id.of(groups).advantage == 0.0);
    // It is possible that only idle responses reach some parameters, for example those of the vision tower if no moving
    // response has an image. In torch such a parameter has a gradient of 0, so momentum and weight decay still update
    // it. One idle response in backward has the same effect as all of them.
    let images = |id: &ResponseId| !groups[id.group].question.prompt.pixels.is_empty();
    let with_images = idle.iter().position(images).filter(|_| !moving.iter().any(images));
    if let Some(at) = with_images.or((moving.is_empty() && !idle.is_empty()).then_some(0)) {
        moving.push(idle.remove(at));
        moving.sort_by_key(|id| id.group);
    }
    idle.retain(|id| runs_for_metrics(config.seed, step, groups[id.group].index, id.rollout));
    Chosen { moving, idle }
}

/// Returns true if a response that cannot move the policy is computed in a step of the run with this `seed`. `question`
/// is the index of its question among the questions of the step, and `rollout` is the index of the response among the
/// responses to that question.
pub fn runs_for_metrics(seed: u64, step: u64, question: usize, rollout: usize) -> bool {
    let key = philox::key(seed, Purpose::Figures, step);
    philox4x32_10(key, [question as u32, rollout as u32, 0, 0])[0].is_multiple_of(IDLE_PER_MEASURED)
}

/// The model with which the policy is compared.
#[derive(Clone, Copy)]
pub struct Reference<'a> {
    /// Weights of the model.
    pub model: &'a Model,
    /// Allowed ids and temperature.
    pub policy: Policy,
}

/// Returns the log-probs of the responses `ids` of `groups` under `reference`. The responses of a group must be
/// consecutive. Waits for the device.
pub fn ref_log_prob(
    dev: &mut Device,
    Reference { model, policy }: Reference<'_>,
    groups: &[Group],
    ids: &[ResponseId],
    micro_batch_tokens: usize,
) -> Result<Vec<Vec<f32>>> {
    let mut ref_log_prob = Vec::with_capacity(ids.len());
    for range in micro_batches(groups, ids, micro_batch_tokens) {
        let sequences = sequences(groups, &ids[range]);
        let forward = step::forward(dev, model, &sequences, policy, LayerPolicy::Inputs, false)?;
        ref_log_prob.extend(forward.read(dev)?);
    }
    Ok(ref_log_prob)
}

/// Uploads a micro-batch's response tokens, one response after another, next to its activations.
fn upload(dev: &mut Device, forward: &Forward, part: &[&Experience]) -> Result<Packed> {
    let rows = |of: fn(&Experience) -> Option<&Vec<f32>>| -> Option<Vec<f32>> {
        let rows: Option<Vec<&Vec<f32>>> = part.iter().map(|e| of(e)).collect();
        rows.map(|rows| rows.into_iter().flatten().copied().collect())
    };
    let old_log_prob = rows(|e| Some(&e.old_log_prob)).unwrap_or_default();
    let [ref_log_prob, teacher_log_prob] = [rows(|e| e.ref_log_prob.as_ref()), rows(|e| e.teacher_log_prob.as_ref())];
    let advantages: Vec<f64> = part.iter().map(|e| e.advantage).collect();
    Ok(Packed {
        cu_seqlens: forward.upload(dev, &forward.cu_targets)?,
        old_log_prob: forward.upload(dev, &old_log_prob)?,
        ref_log_prob: ref_log_prob.map(|rows| forward.upload(dev, &rows)).transpose()?,
        teacher_log_prob: teacher_log_prob.map(|rows| forward.upload(dev, &rows)).transpose()?,
        advantages: forward.upload(dev, &advantages)?,
    })
}
