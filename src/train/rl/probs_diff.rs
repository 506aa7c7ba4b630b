//! Measures the difference between trainer and sampler: verl's `training/rollout_*` metrics, computed from the sums of
//! a policy loss.

use omr_runtime::ops::policy_loss::{Stat, Sums};

/// The difference between the sampler's and the trainer's probabilities, over counted tokens.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ProbsDiff {
    /// False if no token counts. All other fields are then 0.
    pub valid: bool,
    /// Largest difference of probabilities.
    pub max: f64,
    /// Mean difference of probabilities.
    pub mean: f64,
    /// Standard deviation of the differences, with the divisor N - 1.
    pub std: f64,
    /// Pearson correlation of the probabilities. It is 1 if both are the same constant.
    pub pearson: f64,
    /// Largest difference of log-probs.
    pub log_prob_max: f64,
}

impl ProbsDiff {
    /// Computes the differences from sums over counted tokens. Deviation and correlation use moments about 1.
    pub fn from(sums: &Sums) -> ProbsDiff {
        let n = sums[Stat::Tokens];
        if n == 0.0 {
            return ProbsDiff::default();
        }
        let mean = sums[Stat::ProbDiff] / n;
        let variance = (sums[Stat::ProbDiffSquared] - sums[Stat::ProbDiff] * mean) / (n - 1.0).max(1.0);
        let [a, b] = [Stat::Prob, Stat::OldProb].map(|sum| sums[sum] / n);
        let [var_a, var_b] = [(Stat::ProbSquared, a), (Stat::OldProbSquared, b)]
            .map(|(squares, mean)| (sums[squares] / n - mean * mean).max(0.0));
        let spread = (var_a * var_b).sqrt();
        let cov = sums[Stat::ProbProduct] / n - a * b;
        ProbsDiff {
            valid: true,
            max: sums[Stat::MaxProbDiff].max(0.0),
            mean,
            std: variance.max(0.0).sqrt(),
            pearson: if spread > 0.0 { (cov / spread).clamp(-1.0, 1.0) } else { f64::from(mean == 0.0) },
            log_prob_max: sums[Stat::MaxLogProbDiff].max(0.0),
        }
    }

    /// Returns the values under their names in `training/rollout_*`.
    pub fn metrics(&self) -> [(&'static str, f64); 6] {
        [
            ("training/rollout_probs_diff_valid", f64::from(self.valid)),
            ("training/rollout_probs_diff_max", self.max),
            ("training/rollout_probs_diff_mean", self.mean),
            ("training/rollout_probs_diff_std", self.std),
            ("training/rollout_actor_probs_pearson_corr", self.pearson),
            ("training/rollout_log_probs_diff_max", self.log_prob_max),
        ]
    }
}
