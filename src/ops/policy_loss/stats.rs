//! The figures of a policy loss: how they are summed on the device, and what they mean.

use std::ops::{AddAssign, Index, IndexMut};

use super::loss::{Denominators, MEAN_EPS, PolicyLoss};

/// Numbers of a [`Sums`].
pub const STATS: usize = 20;

/// The first of them: the loss's terms, none of which may be infinite or NaN.
pub const LOSSES: usize = 3;

/// What is summed, over tokens; from [`Stat::MAXIMA`] on the largest is taken. The order is that of
/// `policy_loss::Stat` in kernels/policy_loss.cu.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(super) enum Stat {
    PgLoss,
    KlLoss,
    Entropy,
    Tokens,
    Clipped,
    ClippedUpper,
    ClippedLower,
    DualClipped,
    PpoKl,
    ProbDiff,
    ProbDiffSquared,
    /// Of a probability p it is 1 - p that is summed: most are close to 1, and their squares keep their digits so.
    Prob,
    OldProb,
    ProbSquared,
    OldProbSquared,
    ProbProduct,
    MinusRatio,
    Ratio,
    MaxProbDiff,
    MaxLogProbDiff,
}

impl Stat {
    /// The first that is a maximum.
    pub(super) const MAXIMA: usize = Stat::MinusRatio as usize;
}

/// Sums over a part of a mini-batch, f64, in the layout of the device's `stats` tensor: those of micro-batches add up.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sums(pub [f64; STATS]);

impl Sums {
    /// Of no token.
    pub const NONE: Sums = {
        let mut none = [0.0; STATS];
        let mut i = Stat::MAXIMA;
        while i < STATS {
            none[i] = f64::NEG_INFINITY;
            i += 1;
        }
        Sums(none)
    };

    /// From a tensor's elements. Panics when there are not [`STATS`].
    pub fn of(values: &[f64]) -> Sums {
        let mut sums = Sums::NONE;
        sums.0.copy_from_slice(values);
        sums
    }

    /// How far the log-probs are from the old ones.
    pub fn probs(&self) -> ProbSums {
        let at = |stat| self[stat];
        ProbSums {
            tokens: at(Stat::Tokens),
            diff: at(Stat::ProbDiff),
            diff_squared: at(Stat::ProbDiffSquared),
            below_one: [at(Stat::Prob), at(Stat::OldProb)],
            below_one_squared: [at(Stat::ProbSquared), at(Stat::OldProbSquared)],
            product: at(Stat::ProbProduct),
            max_diff: at(Stat::MaxProbDiff).max(0.0),
            max_log_diff: at(Stat::MaxLogProbDiff).max(0.0),
        }
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

/// The larger, `a` where `b` is NaN.
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

/// Moments of two policies' probabilities p and q of the same tokens.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ProbSums {
    /// Tokens.
    pub tokens: f64,
    /// Sum of |p - q|.
    pub diff: f64,
    /// Sum of (p - q)^2.
    pub diff_squared: f64,
    /// Sums of 1 - p and of 1 - q.
    pub below_one: [f64; 2],
    /// Sums of their squares.
    pub below_one_squared: [f64; 2],
    /// Sum of (1 - p)(1 - q).
    pub product: f64,
    /// Largest |p - q|, 0 when there is no token.
    pub max_diff: f64,
    /// Largest difference of log-probs.
    pub max_log_diff: f64,
}

/// Loss and metrics of a mini-batch.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
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

impl PolicyStats {
    /// What `sums` mean under the mini-batch's `denominators`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        let (_, text) = crate::device::images::OWN.sources.iter().find(|(path, _)| *path == "policy_loss.cu").unwrap();
        let body = text.split("enum Stat {").nth(1).unwrap().split('}').next().unwrap();
        let names: Vec<&str> = body.split(',').map(str::trim).filter(|n| *n != "MAXIMA").collect();
        let screaming = |stat: String| {
            let parts = stat.char_indices().map(|(i, c)| match c.is_uppercase() && i > 0 {
                true => format!("_{c}"),
                false => c.to_ascii_uppercase().to_string(),
            });
            parts.collect::<String>()
        };
        let last = Stat::MaxLogProbDiff;
        assert_eq!((names.len(), last as usize + 1, names[STATS]), (STATS + 1, STATS, "STATS"));
        assert_eq!(names[last as usize], screaming(format!("{last:?}")));
        assert_eq!(names[Stat::MAXIMA], "MINUS_RATIO = MAXIMA");
        for stat in [Stat::PgLoss, Stat::PpoKl, Stat::ProbDiffSquared, Stat::OldProbSquared, Stat::ProbProduct] {
            assert_eq!(names[stat as usize], screaming(format!("{stat:?}")));
        }
    }
}
