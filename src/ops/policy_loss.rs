//! Policy losses: GRPO and DAPO (token ratios, dual clip), GSPO (sequence ratios), KL and entropy terms.
//!
//! A loss is a sum over masked tokens of `weight x token loss`; the weight depends on [`LossAggMode`], the
//! sequence's length and the [`Denominators`] of the whole mini-batch, so micro-batches add up to the whole
//! whatever the split. Inputs are f32 or f64, all arithmetic is f64 in one fixed order, so that equal
//! log-probs give a ratio of exactly 1. Masked positions are never read as numbers.

use std::ops::AddAssign;

pub use crate::config::{KlLossType, LossAggMode, LossMode};

use crate::config::RlConfig;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Bound on a token's log ratio (GRPO, DAPO) and on k3's log ratio, as in verl.
const MAX_LOG_RATIO: f64 = 20.0;
/// Upper bound on GSPO's mean log ratio and on a k3 value, as in verl.
const MAX_TEN: f64 = 10.0;
/// verl's guard in masked means.
const MEAN_EPS: f64 = 1e-8;

/// The estimate of the KL divergence from one token's log-probs, and its derivative by `log_prob` (0 where a clamp
/// of k3 is active).
pub fn kl_value_and_grad(kl_loss_type: KlLossType, log_prob: f64, ref_log_prob: f64) -> (f64, f64) {
    let x = log_prob - ref_log_prob;
    match kl_loss_type {
        KlLossType::Kl => (x, 1.0),
        KlLossType::Abs => (x.abs(), if x == 0.0 { 0.0 } else { x.signum() }),
        KlLossType::Mse => (0.5 * x * x, x),
        KlLossType::LowVarKl => {
            let u = (-x).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
            let value = u.exp() - u - 1.0;
            let inside = x.abs() <= MAX_LOG_RATIO && value.abs() <= MAX_TEN;
            (value.clamp(-MAX_TEN, MAX_TEN), if inside { 1.0 - u.exp() } else { 0.0 })
        }
    }
}

/// A KL term added to the loss.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KlLoss {
    /// The estimator.
    pub kl_loss_type: KlLossType,
    /// Its weight.
    pub kl_loss_coef: f64,
}

/// What to optimise; names and defaults are verl's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PolicyLoss {
    /// Token or sequence ratios.
    pub loss_mode: LossMode,
    /// The ratio is clipped below `1 - clip_ratio_low`.
    pub clip_ratio_low: f64,
    /// The ratio is clipped above `1 + clip_ratio_high`.
    pub clip_ratio_high: f64,
    /// Dual clip: with a negative advantage the token loss is at most `-advantage x clip_ratio_c`. Not used by GSPO.
    pub clip_ratio_c: Option<f64>,
    /// Aggregation.
    pub loss_agg_mode: LossAggMode,
    /// KL term, if any.
    pub kl_loss: Option<KlLoss>,
    /// The entropy's weight; the loss falls as the entropy grows.
    pub entropy_coeff: f64,
}

impl From<&RlConfig> for PolicyLoss {
    fn from(config: &RlConfig) -> PolicyLoss {
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
}

impl PolicyLoss {
    /// GRPO with verl's defaults.
    pub fn grpo() -> PolicyLoss {
        PolicyLoss {
            loss_mode: LossMode::Vanilla,
            clip_ratio_low: 0.2,
            clip_ratio_high: 0.2,
            clip_ratio_c: Some(3.0),
            loss_agg_mode: LossAggMode::TokenMean,
            kl_loss: None,
            entropy_coeff: 0.0,
        }
    }

    /// DAPO: the upper clip is higher, the dual clip wider (the published script).
    pub fn dapo() -> PolicyLoss {
        PolicyLoss { clip_ratio_high: 0.28, clip_ratio_c: Some(10.0), ..PolicyLoss::grpo() }
    }

    /// GSPO with the paper's clip range.
    pub fn gspo() -> PolicyLoss {
        PolicyLoss {
            loss_mode: LossMode::Gspo,
            clip_ratio_low: 3e-4,
            clip_ratio_high: 4e-4,
            clip_ratio_c: None,
            loss_agg_mode: LossAggMode::SeqMeanTokenMean,
            ..PolicyLoss::grpo()
        }
    }

    /// Aggregation of the policy term.
    pub fn pg_agg_mode(&self) -> LossAggMode {
        match self.loss_mode {
            LossMode::Vanilla => self.loss_agg_mode,
            LossMode::Gspo => LossAggMode::SeqMeanTokenMean,
        }
    }
}

/// What losses are divided by. Counted once over the whole mini-batch (all ranks, all micro-batches).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Denominators {
    /// Masked-in tokens.
    pub batch_num_tokens: f64,
    /// Sequences with at least one such token.
    pub num_seqs: f64,
    /// The constant of [`LossAggMode::SeqMeanTokenSumNorm`].
    pub loss_scale_factor: f64,
}

impl Denominators {
    /// Counts a mini-batch: `cu_seqlens` `[S+1]`, `mask` `[T]`. Without a `loss_scale_factor` the longest row is
    /// taken, which is verl's padded width.
    pub fn new(cu_seqlens: &[u32], mask: &[u8], loss_scale_factor: Option<f64>) -> Denominators {
        let (mut tokens, mut seqs, mut longest) = (0usize, 0usize, 0usize);
        for row in rows(cu_seqlens) {
            longest = longest.max(row.len());
            let n = mask[row].iter().filter(|&&m| m != 0).count();
            tokens += n;
            seqs += usize::from(n > 0);
        }
        Denominators {
            batch_num_tokens: tokens as f64,
            num_seqs: seqs as f64,
            loss_scale_factor: loss_scale_factor.unwrap_or(longest as f64),
        }
    }

    /// What a token of a sequence with `n` masked-in tokens counts in the sum.
    pub fn token_weight(&self, mode: LossAggMode, n: usize) -> f64 {
        match mode {
            LossAggMode::TokenMean => 1.0 / self.batch_num_tokens,
            LossAggMode::SeqMeanTokenSum => 1.0 / self.num_seqs,
            LossAggMode::SeqMeanTokenMean => 1.0 / ((n as f64 + MEAN_EPS) * self.num_seqs),
            LossAggMode::SeqMeanTokenSumNorm => 1.0 / self.loss_scale_factor,
        }
    }

    /// Aggregates any per-token quantity (an entropy, a KL estimate) of a part of the mini-batch.
    pub fn aggregate<F: Real>(&self, mode: LossAggMode, cu_seqlens: &[u32], mask: &[u8], values: &[F]) -> f64 {
        let mut sum = 0.0;
        for row in rows(cu_seqlens) {
            let n = mask[row.clone()].iter().filter(|&&m| m != 0).count();
            let in_row: f64 = row.filter(|&t| mask[t] != 0).map(|t| values[t].into()).sum();
            sum += if n > 0 { in_row * self.token_weight(mode, n) } else { 0.0 };
        }
        sum
    }
}

fn rows(cu_seqlens: &[u32]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    cu_seqlens.windows(2).map(|w| w[0] as usize..w[1] as usize)
}

/// Storage of log-probs and gradients: f32 in training, f64 for reference.
pub trait Real: Copy + Into<f64> {
    /// Nearest value.
    fn from_f64(x: f64) -> Self;
}
impl Real for f32 {
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
}
impl Real for f64 {
    fn from_f64(x: f64) -> f64 {
        x
    }
}

/// A mini-batch or a part of one. `T` tokens in `S` sequences, ragged (no padding) or padded (equal rows).
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a, F> {
    /// Row borders, `[S+1]`, from 0 to T.
    pub cu_seqlens: &'a [u32],
    /// `[T]`, 1 where the token counts.
    pub mask: &'a [u8],
    /// `[T]`, log-probs of the policy that acted.
    pub old_log_prob: &'a [F],
    /// `[T]`, the reference policy's; needed with a KL term.
    pub ref_log_prob: Option<&'a [F]>,
    /// `[S]`.
    pub advantages: &'a [f64],
    /// `[T]`, rollout correction: factors on the policy term's token losses, after clipping, not differentiated.
    pub rollout_is_weights: Option<&'a [F]>,
}

/// Loss and metrics; those of micro-batches add up to the mini-batch's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PolicyStats {
    /// `pg_loss + kl_loss_coef x kl_loss - entropy_coeff x entropy`.
    pub loss: f64,
    /// The policy term.
    pub pg_loss: f64,
    /// The KL term without its coefficient.
    pub kl_loss: f64,
    /// The aggregated entropy (0 when none is given).
    pub entropy: f64,
    /// Share of tokens whose clipped surrogate rules.
    pub pg_clipfrac: f64,
    /// The part of `pg_clipfrac` with a positive advantage: clipped above.
    pub clipfrac_upper: f64,
    /// The part with a negative advantage: clipped below.
    pub clipfrac_lower: f64,
    /// Share of tokens under the dual clip (verl logs it as `actor/pg_clipfrac_lower`).
    pub dual_clipfrac: f64,
    /// Mean of `old_log_prob - log_prob`.
    pub ppo_kl: f64,
    /// Smallest ratio of a token (GSPO: of a sequence); infinite when there is none.
    pub ratio_min: f64,
    /// Largest ratio.
    pub ratio_max: f64,
}

impl Default for PolicyStats {
    fn default() -> Self {
        PolicyStats {
            loss: 0.0,
            pg_loss: 0.0,
            kl_loss: 0.0,
            entropy: 0.0,
            pg_clipfrac: 0.0,
            clipfrac_upper: 0.0,
            clipfrac_lower: 0.0,
            dual_clipfrac: 0.0,
            ppo_kl: 0.0,
            ratio_min: f64::INFINITY,
            ratio_max: f64::NEG_INFINITY,
        }
    }
}

impl AddAssign for PolicyStats {
    fn add_assign(&mut self, o: PolicyStats) {
        self.loss += o.loss;
        self.pg_loss += o.pg_loss;
        self.kl_loss += o.kl_loss;
        self.entropy += o.entropy;
        self.pg_clipfrac += o.pg_clipfrac;
        self.clipfrac_upper += o.clipfrac_upper;
        self.clipfrac_lower += o.clipfrac_lower;
        self.dual_clipfrac += o.dual_clipfrac;
        self.ppo_kl += o.ppo_kl;
        self.ratio_min = self.ratio_min.min(o.ratio_min);
        self.ratio_max = self.ratio_max.max(o.ratio_max);
    }
}

impl PolicyStats {
    /// Names and values for `metrics.jsonl`: verl's, plus both clip sides and the range of ratios.
    pub fn metrics(&self, config: &PolicyLoss) -> Vec<(&'static str, f64)> {
        let mut out = vec![
            ("actor/loss", self.loss),
            ("actor/pg_loss", self.pg_loss),
            ("actor/pg_clipfrac", self.pg_clipfrac),
            ("actor/pg_clipfrac_lower", self.dual_clipfrac),
            ("actor/clipfrac_upper", self.clipfrac_upper),
            ("actor/clipfrac_lower", self.clipfrac_lower),
            ("actor/ppo_kl", self.ppo_kl),
        ];
        if self.ratio_min <= self.ratio_max {
            out.extend([("actor/ratio_min", self.ratio_min), ("actor/ratio_max", self.ratio_max)]);
        }
        if let Some(kl) = &config.kl_loss {
            out.extend([("actor/kl_loss", self.kl_loss), ("actor/kl_coef", kl.kl_loss_coef)]);
        }
        out
    }
}

/// GSPO's mean log ratio of one sequence, over its masked-in tokens (0 for an empty one).
pub fn seq_mean_log_ratio<F: Real>(log_prob: &[F], old_log_prob: &[F], mask: &[u8]) -> f64 {
    let (mut sum, mut n) = (0.0, 0usize);
    for ((&lp, &old), _) in log_prob.iter().zip(old_log_prob).zip(mask).filter(|(_, m)| **m != 0) {
        sum += lp.into() - old.into();
        n += 1;
    }
    sum / n.max(1) as f64
}

/// GSPO's ratio of a sequence from its mean log ratio.
pub fn seq_ratio(mean_log_ratio: f64) -> f64 {
    mean_log_ratio.min(MAX_TEN).exp()
}

/// One token under the clip rules.
struct Clipped {
    loss: f64,
    /// Derivative by the log ratio.
    grad: f64,
    clipped: bool,
    dual: bool,
}

fn clip(config: &PolicyLoss, advantage: f64, ratio: f64, dual_clip: Option<f64>) -> Clipped {
    let free = -advantage * ratio;
    let bound = -advantage * ratio.max(1.0 - config.clip_ratio_low).min(1.0 + config.clip_ratio_high);
    let clipped = bound > free;
    let loss = if clipped { bound } else { free };
    let cap = dual_clip.map(|c| -advantage * c).filter(|&cap| advantage < 0.0 && loss > cap);
    Clipped {
        loss: cap.unwrap_or(loss),
        grad: if clipped || cap.is_some() { 0.0 } else { free },
        clipped,
        dual: cap.is_some(),
    }
}

/// The loss of `batch` under the mini-batch's `denominators`, and its gradient: `dlog_prob` `[T]` is overwritten
/// (exactly 0 where the mask is 0). Errors when lengths do not fit or a reference is missing.
pub fn compute<F: Real>(
    config: &PolicyLoss,
    denominators: &Denominators,
    batch: &Batch<'_, F>,
    log_prob: &[F],
    dlog_prob: &mut [F],
) -> Result<PolicyStats> {
    check(config, batch, log_prob.len(), dlog_prob.len())?;
    let mean = 1.0 / (denominators.batch_num_tokens + MEAN_EPS);
    let mut stats = PolicyStats::default();
    for (row, &advantage) in rows(batch.cu_seqlens).zip(batch.advantages) {
        let mask = &batch.mask[row.clone()];
        let n = mask.iter().filter(|&&m| m != 0).count();
        let pg_weight = denominators.token_weight(config.pg_agg_mode(), n);
        let kl_weight = denominators.token_weight(config.loss_agg_mode, n);
        let seq = match config.loss_mode {
            LossMode::Vanilla => None,
            LossMode::Gspo => Some(seq_mean_log_ratio(&log_prob[row.clone()], &batch.old_log_prob[row.clone()], mask)),
        };
        for t in row {
            dlog_prob[t] = F::from_f64(0.0);
            if batch.mask[t] == 0 {
                continue;
            }
            let lp: f64 = log_prob[t].into();
            let d = lp - batch.old_log_prob[t].into();
            let (d, ratio, inside, dual_clip) = match seq {
                Some(mean_log) => (d, seq_ratio(mean_log), mean_log <= MAX_TEN, None),
                None => {
                    let clamped = d.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
                    (clamped, clamped.exp(), d.abs() <= MAX_LOG_RATIO, config.clip_ratio_c)
                }
            };
            let token = clip(config, advantage, ratio, dual_clip);
            let weight = pg_weight * batch.rollout_is_weights.map_or(1.0, |w| w[t].into());
            stats.pg_loss += token.loss * weight;
            let mut grad = if inside { token.grad * weight } else { 0.0 };
            if let (Some(kl), Some(reference)) = (&config.kl_loss, batch.ref_log_prob) {
                let (value, kl_grad) = kl_value_and_grad(kl.kl_loss_type, lp, reference[t].into());
                stats.kl_loss += value * kl_weight;
                grad += kl.kl_loss_coef * kl_grad * kl_weight;
            }
            dlog_prob[t] = F::from_f64(grad);
            stats.pg_clipfrac += if token.clipped { mean } else { 0.0 };
            stats.clipfrac_upper += if token.clipped && advantage > 0.0 { mean } else { 0.0 };
            stats.clipfrac_lower += if token.clipped && advantage < 0.0 { mean } else { 0.0 };
            stats.dual_clipfrac += if token.dual { mean } else { 0.0 };
            stats.ppo_kl -= d * mean;
            stats.ratio_min = stats.ratio_min.min(ratio);
            stats.ratio_max = stats.ratio_max.max(ratio);
        }
    }
    stats.loss = stats.pg_loss + config.kl_loss.map_or(0.0, |kl| kl.kl_loss_coef * stats.kl_loss);
    Ok(stats)
}

fn check<F>(config: &PolicyLoss, batch: &Batch<'_, F>, log_prob: usize, dlog_prob: usize) -> Result<()> {
    let shape = |what: &str, want: usize, got: usize| match want == got {
        true => Ok(()),
        false => Err(Error::Shape { op: "policy_loss", want: format!("{what} {want}"), got: got.to_string() }),
    };
    let (t, s) = (batch.mask.len(), batch.advantages.len());
    shape("length of cu_seqlens", s + 1, batch.cu_seqlens.len())?;
    shape("first row border", 0, batch.cu_seqlens[0] as usize)?;
    shape("last row border", t, batch.cu_seqlens[s] as usize)?;
    if let Some(w) = batch.cu_seqlens.windows(2).find(|w| w[0] > w[1]) {
        return Err(Error::Shape { op: "policy_loss", want: "ascending cu_seqlens".into(), got: format!("{w:?}") });
    }
    shape("length of log_prob", t, log_prob)?;
    shape("length of dlog_prob", t, dlog_prob)?;
    shape("length of old_log_prob", t, batch.old_log_prob.len())?;
    shape("length of rollout_is_weights", t, batch.rollout_is_weights.map_or(t, <[F]>::len))?;
    shape(
        "length of ref_log_prob",
        t,
        batch.ref_log_prob.map_or(if config.kl_loss.is_some() { 0 } else { t }, <[F]>::len),
    )
}

/// Adds the entropy term: `stats` gets the aggregated entropy and the changed loss, `dentropy` `[T]` is overwritten.
pub fn compute_entropy<F: Real>(
    config: &PolicyLoss,
    denominators: &Denominators,
    batch: &Batch<'_, F>,
    entropy: &[F],
    dentropy: &mut [F],
    stats: &mut PolicyStats,
) -> Result<()> {
    check(config, batch, entropy.len(), dentropy.len())?;
    let mode = config.loss_agg_mode;
    let value = denominators.aggregate(mode, batch.cu_seqlens, batch.mask, entropy);
    stats.entropy += value;
    stats.loss -= config.entropy_coeff * value;
    for row in rows(batch.cu_seqlens) {
        let n = batch.mask[row.clone()].iter().filter(|&&m| m != 0).count();
        let weight = denominators.token_weight(mode, n);
        for t in row {
            dentropy[t] = F::from_f64(if batch.mask[t] != 0 { -config.entropy_coeff * weight } else { 0.0 });
        }
    }
    Ok(())
}

/// [`compute`] on a device: `log_prob` and `dlog_prob` are f32 `[T]`; `entropy` is the pair (values, gradient) for
/// [`compute_entropy`]. A device that only counts returns empty stats.
pub fn fwd(
    dev: &mut Device,
    config: &PolicyLoss,
    denominators: &Denominators,
    batch: &Batch<'_, f32>,
    log_prob: Tensor,
    dlog_prob: Tensor,
    entropy: Option<(Tensor, Tensor)>,
) -> Result<PolicyStats> {
    check(config, batch, log_prob.len(), dlog_prob.len())?;
    let Some(cpu) = dev.cpu_only("policy_loss::fwd")? else { return Ok(PolicyStats::default()) };
    let ([d], [lp]) = cpu.memory.tensors([dlog_prob], [log_prob]);
    let mut stats = compute(config, denominators, batch, lp.of::<f32>(), d.of::<f32>())?;
    if let Some((values, grad)) = entropy {
        let ([d], [h]) = cpu.memory.tensors([grad], [values]);
        compute_entropy(config, denominators, batch, h.of::<f32>(), d.of::<f32>(), &mut stats)?;
    }
    Ok(stats)
}
