//! What to optimise: the loss's settings, its KL estimators and what its terms are divided by.

use crate::config::{KlLossType, LossAggMode, LossMode};
use crate::math::{exp_f64, hold_f64};

/// Bound on a token's log ratio (GRPO, DAPO) and on k3's log ratio, as in verl.
pub(super) const MAX_LOG_RATIO: f64 = 20.0;
/// Upper bound on GSPO's mean log ratio and on a k3 value, as in verl.
pub(super) const MAX_TEN: f64 = 10.0;
/// verl's guard in masked means.
pub(super) const MEAN_EPS: f64 = 1e-8;

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

/// The tokens of each sequence.
pub(super) fn rows(cu_seqlens: &[u32]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    cu_seqlens.windows(2).map(|w| w[0] as usize..w[1] as usize)
}
