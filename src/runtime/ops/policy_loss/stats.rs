//! Statistics of a policy loss: their sums on the device, and the metrics computed from them.

use std::ops::{AddAssign, Index, IndexMut};

use super::loss::{Denominators, MEAN_EPS, PolicyLoss};

/// Number of values in a [`Sums`].
pub const STATS: usize = 22;

/// Number of loss terms, which come first in a [`Sums`] and must be finite.
pub const LOSSES: usize = 3;

/// Statistics over tokens. Those before `MAXIMA` are sums, the others are maxima. The order is that of
/// `policy_loss::Stat` in kernels/policy_loss.cu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Stat {
    /// Weighted sum of the policy loss.
    PgLoss,
    /// Weighted sum of the divergence from the reference policy.
    KlLoss,
    /// Weighted sum of the entropies.
    Entropy,
    /// Number of tokens.
    Tokens,
    /// Number of tokens whose ratio is clipped.
    Clipped,
    /// Number of clipped tokens with a positive advantage.
    ClippedUpper,
    /// Number of clipped tokens with a negative advantage.
    ClippedLower,
    /// Number of tokens whose loss is limited by `clip_ratio_c`.
    DualClipped,
    /// Sum of the old log-prob minus the new one.
    PpoKl,
    /// Sum of the differences of the two probabilities.
    ProbDiff,
    /// Sum of their squares.
    ProbDiffSquared,
    /// Sum of 1 - p. Most probabilities p are close to 1, so the squares of 1 - p keep more digits than those of p.
    Prob,
    /// Sum of 1 - p for the old probabilities.
    OldProb,
    /// Sum of the squares of 1 - p.
    ProbSquared,
    /// Sum of the squares of 1 - p for the old probabilities.
    OldProbSquared,
    /// Sum of the products of 1 - p for both probabilities.
    ProbProduct,
    /// Number of tokens whose two log-probs differ.
    Different,
    /// Minus the smallest ratio.
    MinusRatio,
    /// Largest ratio.
    Ratio,
    /// Largest difference of the two probabilities.
    MaxProbDiff,
    /// Largest difference of the two log-probs.
    MaxLogProbDiff,
    /// Minus the position in the batch of the first token whose log-probs differ.
    MinusFirstDifferent,
}

impl Stat {
    /// Index of the first statistic that is a maximum.
    pub const MAXIMA: usize = Stat::MinusRatio as usize;
}

/// Statistics of a part of a mini-batch, in f64 and in the layout of the device's `stats` tensor. The statistics of
/// several micro-batches can be added.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sums(pub [f64; STATS]);

impl Sums {
    /// Statistics of no tokens.
    pub const NONE: Sums = {
        let mut none = [0.0; STATS];
        let mut i = Stat::MAXIMA;
        while i < STATS {
            none[i] = f64::NEG_INFINITY;
            i += 1;
        }
        Sums(none)
    };

    /// Copies the elements of a tensor. Panics if there are not [`STATS`] of them.
    pub fn of(values: &[f64]) -> Sums {
        let mut sums = Sums::NONE;
        sums.0.copy_from_slice(values);
        sums
    }

    /// Returns the number of tokens whose log-prob differs from the old one, and the position of the first of them in
    /// the batch. The position has a meaning only for statistics of one batch.
    pub fn different(&self) -> (u64, Option<usize>) {
        let first = -self[Stat::MinusFirstDifferent];
        (self[Stat::Different] as u64, first.is_finite().then_some(first as usize))
    }
}

impl Index<Stat> for Sums {
    type Output = f64;
    fn index(&self, stat: Stat) -> &f64 {
        &self.0[stat as usize]
    }
}

impl IndexMut<Stat> for Sums {
    fn index_mut(&mut self, stat: Stat) -> &mut f64 {
        &mut self.0[stat as usize]
    }
}

/// Returns the larger value, or `a` if `b` is NaN.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Sums) {
        for (i, (a, b)) in self.0.iter_mut().zip(other.0).enumerate() {
            *a = if i < Stat::MAXIMA { *a + b } else { larger(*a, b) };
        }
    }
}

/// Loss and metrics of a mini-batch.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct PolicyStats {
    /// Total loss, `pg_loss + kl_loss_coef x kl_loss - entropy_coeff x entropy`.
    pub loss: f64,
    /// Policy term of the loss.
    pub pg_loss: f64,
    /// KL term of the loss, without its coefficient.
    pub kl_loss: f64,
    /// Aggregated entropy (0 if no entropies were given).
    pub entropy: f64,
    /// Fraction of tokens for which the clipped surrogate determines the loss.
    pub pg_clipfrac: f64,
    /// Fraction of tokens that are clipped and have a positive advantage (upper clip).
    pub clipfrac_upper: f64,
    /// Fraction of tokens that are clipped and have a negative advantage (lower clip).
    pub clipfrac_lower: f64,
    /// Fraction of tokens to which the dual clip applies (verl logs it as `actor/pg_clipfrac_lower`).
    pub dual_clipfrac: f64,
    /// Mean of `old_log_prob - log_prob`.
    pub ppo_kl: f64,
    /// Smallest ratio of a token (for GSPO, of a sequence); infinite if there are no tokens.
    pub ratio_min: f64,
    /// Largest ratio of a token (for GSPO, of a sequence).
    pub ratio_max: f64,
}

impl PolicyStats {
    /// Computes the metrics from `sums` and the mini-batch's `denominators`.
    pub fn new(config: &PolicyLoss, denominators: &Denominators, sums: &Sums) -> PolicyStats {
        let mean = 1.0 / (denominators.batch_num_tokens + MEAN_EPS);
        let (pg_loss, kl_loss, entropy) = (sums[Stat::PgLoss], sums[Stat::KlLoss], sums[Stat::Entropy]);
        let kl = config.kl_loss.map_or(0.0, |kl| kl.kl_loss_coef * kl_loss);
        PolicyStats {
            loss: pg_loss + kl - config.entropy_coeff * entropy,
            pg_loss,
            kl_loss,
            entropy,
            pg_clipfrac: sums[Stat::Clipped] * mean,
            clipfrac_upper: sums[Stat::ClippedUpper] * mean,
            clipfrac_lower: sums[Stat::ClippedLower] * mean,
            dual_clipfrac: sums[Stat::DualClipped] * mean,
            ppo_kl: sums[Stat::PpoKl] * mean,
            ratio_min: -sums[Stat::MinusRatio],
            ratio_max: sums[Stat::Ratio],
        }
    }

    /// Returns names and values for `metrics.jsonl`: verl's metrics, plus both clip sides and the range of ratios.
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
