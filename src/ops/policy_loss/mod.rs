//! Policy losses: GRPO and DAPO (token ratios, dual clip), GSPO (sequence ratios), KL and entropy terms.
//!
//! A loss is a sum over tokens of `weight x token loss`; the weight depends on [`LossAggMode`], the
//! sequence's length and the [`Denominators`] of the whole mini-batch, so micro-batches add up to the whole
//! whatever the split. Inputs are f32 or f64, all arithmetic is f64 in one fixed order (`row.rs`) and with one `exp` of
//! our own, so that the CPU and the kernels give equal bits and equal log-probs a ratio of exactly 1.

mod device;
mod row;
mod stats;

pub use device::{Io, Packed, fwd, reset, stats};
pub use row::{seq_mean_log_ratio, seq_ratio};
pub use stats::{LOSSES, PolicyStats, ProbSums, STATS, Sums};

pub use crate::config::{KlLossType, LossAggMode, LossMode};

use crate::error::{Error, Result};
use crate::math::{exp_f64, hold_f64};

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
        KlLossType::Abs => (x.abs(), if x == 0.0 { x } else { x.signum() }),
        KlLossType::Mse => (0.5 * x * x, x),
        KlLossType::LowVarKl => {
            let u = hold_f64(-x, -MAX_LOG_RATIO, MAX_LOG_RATIO);
            let e = exp_f64(u);
            let value = e - u - 1.0;
            let outside = x.abs() > MAX_LOG_RATIO || value.abs() > MAX_TEN;
            (hold_f64(value, -MAX_TEN, MAX_TEN), if outside { 0.0 } else { 1.0 - e })
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
    /// Tokens.
    pub batch_num_tokens: f64,
    /// Sequences with at least one token.
    pub num_seqs: f64,
    /// What [`LossAggMode::SeqMeanTokenSumNorm`] divides by.
    pub loss_scale_factor: f64,
}

impl Denominators {
    /// Counts a mini-batch: `cu_seqlens` `[S+1]`. Without a `loss_scale_factor` the longest row is taken.
    pub fn new(cu_seqlens: &[u32], loss_scale_factor: Option<f64>) -> Denominators {
        let lengths = || rows(cu_seqlens).map(|row| row.len());
        Denominators {
            batch_num_tokens: lengths().sum::<usize>() as f64,
            num_seqs: lengths().filter(|&n| n > 0).count() as f64,
            loss_scale_factor: loss_scale_factor.unwrap_or(lengths().max().unwrap_or(0) as f64),
        }
    }

    /// What a token of a sequence with `n` tokens counts in the sum.
    pub fn token_weight(&self, mode: LossAggMode, n: f64) -> f64 {
        match mode {
            LossAggMode::TokenMean => 1.0 / self.batch_num_tokens,
            LossAggMode::SeqMeanTokenSum => 1.0 / self.num_seqs,
            LossAggMode::SeqMeanTokenMean => 1.0 / ((n + MEAN_EPS) * self.num_seqs),
            LossAggMode::SeqMeanTokenSumNorm => 1.0 / self.loss_scale_factor,
        }
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

/// A mini-batch or a part of one. `T` tokens in `S` sequences, packed.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a, F> {
    /// Row borders, `[S+1]`, from 0 to T.
    pub cu_seqlens: &'a [u32],
    /// `[T]`, log-probs of the policy that acted.
    pub old_log_prob: &'a [F],
    /// `[T]`, the reference policy's; needed with a KL term.
    pub ref_log_prob: Option<&'a [F]>,
    /// `[S]`.
    pub advantages: &'a [f64],
}

/// The loss of `batch` under the mini-batch's `denominators`, and its gradient: `dlog_prob` `[T]` is overwritten.
/// `entropy` is the entropies `[T]` and their gradient, overwritten too. The sums of micro-batches add up. Errors when lengths do not fit or a reference is missing.
pub fn compute<F: Real>(
    config: &PolicyLoss,
    denominators: &Denominators,
    batch: &Batch<'_, F>,
    log_prob: &[F],
    dlog_prob: &mut [F],
    entropy: Option<(&[F], &mut [F])>,
) -> Result<Sums> {
    let (entropy, dentropy) = entropy.unzip();
    fits(
        config,
        batch,
        log_prob.len(),
        dlog_prob.len(),
        [entropy.map(<[F]>::len), dentropy.as_deref().map(<[F]>::len)],
    )?;
    Ok(sums(config, denominators, batch, log_prob, entropy, dlog_prob, dentropy))
}

/// [`compute`] of what fits.
fn sums<F: Real>(
    config: &PolicyLoss,
    denominators: &Denominators,
    batch: &Batch<'_, F>,
    log_prob: &[F],
    entropy: Option<&[F]>,
    dlog_prob: &mut [F],
    mut dentropy: Option<&mut [F]>,
) -> Sums {
    let (mut sums, mut lanes) = (Sums::NONE, Vec::new());
    let row = row::Rows { config, denominators, batch, log_prob, entropy };
    for (i, at) in rows(batch.cu_seqlens).enumerate() {
        let d = &mut dlog_prob[at.clone()];
        let dh = dentropy.as_deref_mut().map(|d| &mut d[at]);
        sums += row.sums(i, d, dh, &mut lanes);
    }
    sums
}

fn fits<F>(
    config: &PolicyLoss,
    batch: &Batch<'_, F>,
    log_prob: usize,
    dlog_prob: usize,
    entropy: [Option<usize>; 2],
) -> Result<()> {
    let shape = |what: &str, want: usize, got: usize| match want == got {
        true => Ok(()),
        false => Err(Error::Shape { op: "policy_loss", want: format!("{what} {want}"), got: got.to_string() }),
    };
    let (t, s) = (log_prob, batch.advantages.len());
    shape("length of cu_seqlens", s + 1, batch.cu_seqlens.len())?;
    shape("first row border", 0, batch.cu_seqlens[0] as usize)?;
    shape("last row border", t, batch.cu_seqlens[s] as usize)?;
    if let Some(w) = batch.cu_seqlens.windows(2).find(|w| w[0] > w[1]) {
        return Err(Error::Shape { op: "policy_loss", want: "ascending cu_seqlens".into(), got: format!("{w:?}") });
    }
    let reference = if config.kl_loss.is_some() { 0 } else { t };
    shape("length of dlog_prob", t, dlog_prob)?;
    shape("length of old_log_prob", t, batch.old_log_prob.len())?;
    shape("length of ref_log_prob", t, batch.ref_log_prob.map_or(reference, <[F]>::len))?;
    shape("length of entropy", t, entropy[0].unwrap_or(t))?;
    shape("length of dentropy", t, entropy[1].unwrap_or(t))
}
