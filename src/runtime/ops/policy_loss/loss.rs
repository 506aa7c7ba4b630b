//! Definition of the policy loss: its settings, KL estimators and denominators.

use omr_base::choice::{KlLossType, LossAggMode, LossMode};
use omr_base::math::{exp_f64, hold_f64};

/// Bound of a token's log ratio (GRPO, DAPO) and of the log ratio in k3, as in verl.
pub(super) const MAX_LOG_RATIO: f64 = 20.0;
/// Upper bound of GSPO's mean log ratio and of a k3 value, as in verl.
pub(super) const MAX_TEN: f64 = 10.0;
/// Constant that verl adds to the denominators of masked means.
pub(super) const MEAN_EPS: f64 = 1e-8;

/// Returns the estimate of the KL divergence from one token's log-probs, and its derivative with respect to `log_prob`
/// (0 where k3 is clamped).
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

/// A KL term that is added to the loss.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct KlLoss {
    /// Estimator of the KL divergence.
    pub kl_loss_type: KlLossType,
    /// Coefficient of the term.
    pub kl_loss_coef: f64,
}

/// On-policy distillation: `coef` times the difference of the teacher's and the policy's log-prob is added to the
/// advantage of a token.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Distillation {
    /// Weight of the difference.
    pub coef: f64,
    /// Bound of the difference in both directions.
    pub loss_max_clamp: Option<f64>,
}

impl Distillation {
    /// Returns the advantage of a token whose sequence has the `advantage`, as a constant of the loss.
    pub(super) fn advantage(&self, advantage: f64, log_prob: f64, teacher_log_prob: f64) -> f64 {
        let most = self.loss_max_clamp.unwrap_or(f64::INFINITY);
        advantage - self.coef * hold_f64(log_prob - teacher_log_prob, -most, most)
    }
}

/// Settings of the policy loss. Names and defaults are those of verl.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PolicyLoss {
    /// Type of ratio: per token or per sequence.
    pub loss_mode: LossMode,
    /// Lower clip range: the ratio is clipped to at least `1 - clip_ratio_low`.
    pub clip_ratio_low: f64,
    /// Upper clip range: the ratio is clipped to at most `1 + clip_ratio_high`.
    pub clip_ratio_high: f64,
    /// Dual clip: with a negative advantage, the token loss is at most `-advantage x clip_ratio_c`. GSPO does not use
    /// it.
    pub clip_ratio_c: Option<f64>,
    /// Aggregation of token losses.
    pub loss_agg_mode: LossAggMode,
    /// KL term, if any.
    pub kl_loss: Option<KlLoss>,
    /// Distillation from a teacher, if any.
    pub distillation: Option<Distillation>,
    /// Coefficient of the entropy. The loss decreases as the entropy grows.
    pub entropy_coeff: f64,
}

impl PolicyLoss {
    /// Returns the aggregation of the policy term.
    pub fn pg_agg_mode(&self) -> LossAggMode {
        match self.loss_mode {
            LossMode::Vanilla | LossMode::Cispo => self.loss_agg_mode,
            LossMode::Gspo => LossAggMode::SeqMeanTokenMean,
        }
    }
}

/// Denominators of the losses, counted once over the whole mini-batch (all ranks, all micro-batches).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Denominators {
    /// Number of tokens.
    pub batch_num_tokens: f64,
    /// Number of sequences with at least one token.
    pub num_seqs: f64,
    /// Divisor of [`LossAggMode::SeqMeanTokenSumNorm`].
    pub loss_scale_factor: f64,
}

impl Denominators {
    /// Denominators with which every token has the weight 0, except in [`LossAggMode::TokenSum`].
    pub const INFINITE: Denominators =
        Denominators { batch_num_tokens: f64::INFINITY, num_seqs: f64::INFINITY, loss_scale_factor: f64::INFINITY };

    /// Counts a mini-batch with cumulative sequence lengths `cu_seqlens` `[S+1]`. If `loss_scale_factor` is `None`, the
    /// length of the longest sequence is used.
    pub fn new(cu_seqlens: &[u32], loss_scale_factor: Option<f64>) -> Denominators {
        let lengths = || rows(cu_seqlens).map(|row| row.len());
        Denominators {
            batch_num_tokens: lengths().sum::<usize>() as f64,
            num_seqs: lengths().filter(|&n| n > 0).count() as f64,
            loss_scale_factor: loss_scale_factor.unwrap_or(lengths().max().unwrap_or(0) as f64),
        }
    }

    /// Returns the weight of a token in the sum, for a sequence with `n` tokens.
    pub fn token_weight(&self, mode: LossAggMode, n: f64) -> f64 {
        match mode {
            LossAggMode::TokenMean => 1.0 / self.batch_num_tokens,
            LossAggMode::SeqMeanTokenSum => 1.0 / self.num_seqs,
            LossAggMode::SeqMeanTokenMean => 1.0 / ((n + MEAN_EPS) * self.num_seqs),
            LossAggMode::SeqMeanTokenSumNorm => 1.0 / self.loss_scale_factor,
            LossAggMode::TokenSum => 1.0,
        }
    }
}

/// Returns the range of tokens of each sequence.
pub(super) fn rows(cu_seqlens: &[u32]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    cu_seqlens.windows(2).map(|w| w[0] as usize..w[1] as usize)
}
