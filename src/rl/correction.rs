//! Rollout correction: what to do when the policy that sampled is not bit for bit the one that trains. Metrics,
//! truncated importance weights and rejection, by verl's rules and names. Where sampler and trainer share their
//! arithmetic all of it is the identity, which `training/rollout_probs_diff_max` shows.

use crate::error::{Error, Result};
use crate::ops::policy_loss::{ProbSums, Real};

/// Bound on log ratios before `exp`, as in verl.
const SAFETY_BOUND: f64 = 20.0;
/// verl's guard in masked means.
const MEAN_EPS: f64 = 1e-8;

/// Over what importance weights are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RolloutIs {
    /// A weight a token.
    Token,
    /// The product over a response.
    Sequence,
}

/// Over what a rejection test runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Token,
    SeqSum,
    SeqMean,
    SeqMax,
}

/// Which estimator a rejection test compares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Estimator {
    K1,
    K2,
    K3,
}

/// One rejection test; see [`Rejection::parse`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rejection {
    scope: Scope,
    estimator: Estimator,
    lower: f64,
    upper: f64,
}

/// The settings; names and defaults are verl's `algorithm.rollout_correction`.
#[derive(Clone, PartialEq, Debug)]
pub struct RolloutCorrection {
    /// Importance weights, or none.
    pub rollout_is: Option<RolloutIs>,
    /// Weights above it are cut to it.
    pub rollout_is_threshold: f64,
    /// Divide the weights by their mean.
    pub rollout_is_batch_normalize: bool,
    /// Rejection tests; a token stays when all pass.
    pub rollout_rs: Vec<Rejection>,
}

impl Default for RolloutCorrection {
    fn default() -> Self {
        let (rollout_is_threshold, rollout_is_batch_normalize) = (2.0, false);
        RolloutCorrection { rollout_is: None, rollout_is_threshold, rollout_is_batch_normalize, rollout_rs: Vec::new() }
    }
}

impl Rejection {
    /// Reads a comma list of `token_k1|k2|k3`, `seq_sum_k1|k2|k3`, `seq_mean_k1|k2|k3`, `seq_max_k2|k3`, with one
    /// threshold for all or one each. k1 takes ratio bounds `low_high` (a single `high` means `1/high` below),
    /// k2 and k3 an upper bound.
    pub fn parse(rollout_rs: &str, threshold: &str) -> Result<Vec<Rejection>> {
        let names: Vec<&str> = rollout_rs.split(',').map(str::trim).collect();
        let bounds: Vec<&str> = threshold.split(',').map(str::trim).collect();
        if bounds.len() != 1 && bounds.len() != names.len() {
            let expected = format!("one value or {}", names.len());
            return Err(Error::input("rollout_rs_threshold", format!("{} values", bounds.len()), expected));
        }
        let bound = |i: usize| bounds[i.min(bounds.len() - 1)];
        names.iter().enumerate().map(|(i, name)| Rejection::parse_one(name, bound(i))).collect()
    }

    fn parse_one(name: &str, bounds: &str) -> Result<Rejection> {
        let unknown = || {
            let expected = "token_k1|k2|k3, seq_sum_k1|k2|k3, seq_mean_k1|k2|k3, seq_max_k2|k3";
            Error::input("rollout_rs", format!("\"{name}\""), expected)
        };
        let (scope, estimator) = name.rsplit_once('_').ok_or_else(unknown)?;
        let estimator = match estimator {
            "k1" => Estimator::K1,
            "k2" => Estimator::K2,
            "k3" => Estimator::K3,
            _ => return Err(unknown()),
        };
        let scope = match scope {
            "token" => Scope::Token,
            "seq_sum" => Scope::SeqSum,
            "seq_mean" => Scope::SeqMean,
            "seq_max" if estimator != Estimator::K1 => Scope::SeqMax,
            _ => return Err(unknown()),
        };
        let positive = |text: &str| -> Result<f64> {
            let value = text.parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0);
            value.ok_or_else(|| Error::input("rollout_rs_threshold", format!("\"{bounds}\""), "positive numbers"))
        };
        let (lower, upper) = match (estimator, bounds.split_once('_')) {
            (Estimator::K1, Some((low, high))) => (positive(low)?.ln(), positive(high)?.ln()),
            (Estimator::K1, None) => (-positive(bounds)?.ln(), positive(bounds)?.ln()),
            _ => (f64::NEG_INFINITY, positive(bounds)?),
        };
        if lower > upper {
            return Err(Error::input("rollout_rs_threshold", format!("\"{bounds}\""), "low_high with low <= high"));
        }
        Ok(Rejection { scope, estimator, lower, upper })
    }

    /// The estimator at one token's log ratio.
    fn value(&self, q: f64) -> f64 {
        let safe = q.clamp(-SAFETY_BOUND, SAFETY_BOUND);
        match self.estimator {
            Estimator::K1 => -q,
            Estimator::K2 => 0.5 * q * q,
            Estimator::K3 => safe.exp() - 1.0 - safe,
        }
    }

    fn passes(&self, value: f64) -> bool {
        self.lower <= value && value <= self.upper
    }

    /// Clears `mask` where a response's tokens (or all of them) fail; `q` are the log ratios of the row.
    fn apply(&self, q: &[f64], counted: &[bool], mask: &mut [u8]) {
        let values = || q.iter().zip(counted).filter(|(_, c)| **c).map(|(&q, _)| self.value(q));
        let n = values().count();
        if n == 0 {
            return;
        }
        let whole = match self.scope {
            Scope::Token => {
                for ((m, &q), _) in mask.iter_mut().zip(q).zip(counted).filter(|(_, c)| **c) {
                    *m &= u8::from(self.passes(self.value(q)));
                }
                return;
            }
            Scope::SeqSum => values().sum(),
            Scope::SeqMean => values().sum::<f64>() / (n as f64 + MEAN_EPS),
            Scope::SeqMax => values().fold(f64::NEG_INFINITY, f64::max),
        };
        if !self.passes(whole) {
            mask.fill(0);
        }
    }
}

/// The correction of one batch.
#[derive(Clone, PartialEq, Debug)]
pub struct Corrected<F> {
    /// `[T]`, 0 where the original mask is; for `Batch::rollout_is_weights`.
    pub rollout_is_weights: Option<Vec<F>>,
    /// `[T]`, the mask without the rejected tokens. Denominators and advantages use it.
    pub response_mask: Vec<u8>,
    /// `rollout_corr/*`.
    pub metrics: Vec<(&'static str, f64)>,
}

/// Compares the trainer's log-probs with the sampler's. Rows by `cu_seqlens`; `mask` and both log-probs `[T]`.
/// Panics when lengths differ.
pub fn correct<F: Real>(
    config: &RolloutCorrection,
    cu_seqlens: &[u32],
    mask: &[u8],
    old_log_prob: &[F],
    rollout_log_prob: &[F],
) -> Corrected<F> {
    let rows = Rows::new(cu_seqlens, mask, old_log_prob, rollout_log_prob);
    let mut metrics = Vec::new();
    let rollout_is_weights = config.rollout_is.map(|level| {
        let weights = importance_weights(config, level, &rows, &mut metrics);
        weights.into_iter().map(F::from_f64).collect()
    });
    let mut response_mask: Vec<u8> = mask.iter().map(|&m| u8::from(m != 0)).collect();
    if !config.rollout_rs.is_empty() {
        for row in rows.iter() {
            for test in &config.rollout_rs {
                test.apply(&rows.q[row.clone()], &rows.counted[row.clone()], &mut response_mask[row.clone()]);
            }
        }
        let gone: Vec<f64> = rows.counted.iter().zip(&response_mask).map(|(&c, &m)| f64::from(c && m == 0)).collect();
        let seqs = rows.iter().filter(|r| gone[r.clone()].iter().any(|&g| g > 0.0)).count();
        metrics.push(("rollout_corr/rollout_rs_masked_fraction", rows.mean(|t| gone[t])));
        metrics.push(("rollout_corr/rollout_rs_seq_masked_fraction", seqs as f64 / rows.len() as f64));
    }
    off_policy_metrics(&rows, &mut metrics);
    Corrected { rollout_is_weights, response_mask, metrics }
}

/// A batch's rows, log ratios and counted tokens.
struct Rows<'a> {
    cu_seqlens: &'a [u32],
    counted: Vec<bool>,
    old: Vec<f64>,
    roll: Vec<f64>,
    q: Vec<f64>,
}

impl<'a> Rows<'a> {
    fn new<F: Real>(cu_seqlens: &'a [u32], mask: &[u8], old: &[F], roll: &[F]) -> Rows<'a> {
        assert!(old.len() == mask.len() && roll.len() == mask.len(), "one log-prob a token");
        let counted: Vec<bool> = mask.iter().map(|&m| m != 0).collect();
        let cleared =
            |v: &[F]| -> Vec<f64> { v.iter().zip(&counted).map(|(&x, &c)| if c { x.into() } else { 0.0 }).collect() };
        let (old, roll) = (cleared(old), cleared(roll));
        let q = old.iter().zip(&roll).map(|(o, r)| o - r).collect();
        Rows { cu_seqlens, counted, old, roll, q }
    }

    fn len(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    fn iter(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.cu_seqlens.windows(2).map(|w| w[0] as usize..w[1] as usize)
    }

    /// Masked mean over all counted tokens.
    fn mean(&self, value: impl Fn(usize) -> f64) -> f64 {
        self.mean_in(0..self.counted.len(), value)
    }

    /// Masked mean over one row; 0 for an empty one.
    fn mean_in(&self, row: std::ops::Range<usize>, value: impl Fn(usize) -> f64) -> f64 {
        let (mut sum, mut n) = (0.0, 0usize);
        for t in row.filter(|&t| self.counted[t]) {
            sum += value(t);
            n += 1;
        }
        sum / (n as f64 + MEAN_EPS)
    }

    /// Mean over rows of a value of each row.
    fn row_mean(&self, value: impl Fn(std::ops::Range<usize>) -> f64) -> f64 {
        self.iter().map(value).sum::<f64>() / self.len() as f64
    }
}

fn bounded_exp(x: f64) -> f64 {
    x.clamp(-SAFETY_BOUND, SAFETY_BOUND).exp()
}

/// Truncated weights, 0 where nothing counts, and their metrics (taken before truncation).
fn importance_weights(
    config: &RolloutCorrection,
    level: RolloutIs,
    rows: &Rows<'_>,
    metrics: &mut Vec<(&'static str, f64)>,
) -> Vec<f64> {
    let upper = config.rollout_is_threshold;
    let (lower, mut raw) = (1.0 / upper, vec![0.0; rows.counted.len()]);
    let (mut max, mut min, mut high, mut low) = (f64::NEG_INFINITY, f64::INFINITY, 0.0, 0.0);
    for row in rows.iter() {
        let sum: f64 = rows.q[row.clone()].iter().sum();
        if level == RolloutIs::Sequence {
            max = max.max(sum.min(SAFETY_BOUND).exp());
            min = min.min(sum.exp());
            high += f64::from(sum > upper.ln()) / rows.len() as f64;
            low += f64::from(sum < lower.ln()) / rows.len() as f64;
        }
        for t in row.filter(|&t| rows.counted[t]) {
            raw[t] = bounded_exp(if level == RolloutIs::Token { rows.q[t] } else { sum });
        }
    }
    if level == RolloutIs::Token {
        let counted = || (0..raw.len()).filter(|&t| rows.counted[t]).map(|t| raw[t]);
        max = counted().fold(max, f64::max);
        min = counted().fold(min, f64::min);
        high = rows.mean(|t| f64::from(raw[t] > upper));
        low = rows.mean(|t| f64::from(raw[t] < lower));
    }
    let within = |t: usize| raw[t].clamp(lower.min(upper), upper.max(lower));
    let mean = rows.mean(within);
    let std = (rows.mean(|t| within(t) * within(t)) - mean * mean).max(0.0).sqrt();
    let share = |t: usize| within(t) / (mean + MEAN_EPS);
    let per_row: Vec<f64> = rows.iter().map(|r| rows.mean_in(r, |t| raw[t])).collect();
    let n = per_row.len() as f64;
    let seq_mean = per_row.iter().sum::<f64>() / n;
    let seq_var = per_row.iter().map(|w| (w - seq_mean) * (w - seq_mean)).sum::<f64>() / (n - 1.0).max(1.0);
    metrics.extend([
        ("rollout_corr/rollout_is_mean", rows.mean(|t| raw[t])),
        ("rollout_corr/rollout_is_max", max),
        ("rollout_corr/rollout_is_min", min),
        ("rollout_corr/rollout_is_std", std),
        ("rollout_corr/rollout_is_ratio_fraction_high", high),
        ("rollout_corr/rollout_is_ratio_fraction_low", low),
        ("rollout_corr/rollout_is_eff_sample_size", 1.0 / rows.mean(|t| share(t) * share(t))),
        ("rollout_corr/rollout_is_seq_mean", seq_mean),
        ("rollout_corr/rollout_is_seq_std", seq_var.sqrt()),
        ("rollout_corr/rollout_is_seq_max", per_row.iter().fold(f64::NEG_INFINITY, |m, &w| m.max(w))),
        ("rollout_corr/rollout_is_seq_min", per_row.iter().fold(f64::INFINITY, |m, &w| m.min(w))),
    ]);
    let mut weights: Vec<f64> = raw.iter().map(|w| w.min(upper)).collect();
    if config.rollout_is_batch_normalize {
        let mean = match level {
            RolloutIs::Token => rows.mean(|t| weights[t]),
            RolloutIs::Sequence => {
                let filled = rows.iter().filter(|r| rows.counted[r.clone()].iter().any(|&c| c)).count();
                rows.iter().map(|r| rows.mean_in(r, |t| weights[t])).sum::<f64>() / (filled as f64).max(MEAN_EPS)
            }
        };
        let factor = if mean > MEAN_EPS { mean } else { 1.0 };
        weights.iter_mut().for_each(|w| *w /= factor);
        metrics.push(("rollout_corr/rollout_is_batch_norm_factor", factor));
    }
    weights
}

fn off_policy_metrics(rows: &Rows<'_>, metrics: &mut Vec<(&'static str, f64)>) {
    let (old, roll, q) = (&rows.old, &rows.roll, &rows.q);
    let train = |r: std::ops::Range<usize>| -rows.mean_in(r, |t| old[t]);
    let rollout = |r: std::ops::Range<usize>| -rows.mean_in(r, |t| roll[t]);
    let diff = |r: std::ops::Range<usize>| train(r.clone()) - rollout(r);
    let seq_ratio = |r: std::ops::Range<usize>| bounded_exp(q[r].iter().sum());
    metrics.extend([
        ("rollout_corr/kl", rows.mean(|t| -q[t])),
        ("rollout_corr/k3_kl", rows.mean(|t| q[t].exp() - q[t] - 1.0)),
        ("rollout_corr/training_ppl", rows.row_mean(|r| train(r).exp())),
        ("rollout_corr/training_log_ppl", rows.row_mean(train)),
        ("rollout_corr/rollout_ppl", rows.row_mean(|r| rollout(r).exp())),
        ("rollout_corr/rollout_log_ppl", rows.row_mean(rollout)),
        ("rollout_corr/log_ppl_diff", rows.row_mean(diff)),
        ("rollout_corr/log_ppl_abs_diff", rows.row_mean(|r| diff(r).abs())),
        ("rollout_corr/log_ppl_diff_max", rows.iter().map(diff).fold(f64::NEG_INFINITY, f64::max)),
        ("rollout_corr/log_ppl_diff_min", rows.iter().map(diff).fold(f64::INFINITY, f64::min)),
        ("rollout_corr/ppl_ratio", rows.row_mean(|r| diff(r).exp())),
        ("rollout_corr/chi2_token", rows.mean(|t| bounded_exp(q[t]).powi(2)) - 1.0),
        ("rollout_corr/chi2_seq", rows.row_mean(|r| seq_ratio(r).powi(2)) - 1.0),
    ]);
}

/// How far the sampler's probabilities are from the trainer's, over counted tokens.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ProbsDiff {
    /// False when no token counts; the rest is then 0.
    pub valid: bool,
    /// Largest difference of probabilities.
    pub max: f64,
    /// Mean difference.
    pub mean: f64,
    /// Standard deviation of the differences, with N - 1.
    pub std: f64,
    /// Pearson correlation of the probabilities (1 when both are the same constant).
    pub pearson: f64,
    /// Largest difference of log-probs.
    pub log_prob_max: f64,
}

impl ProbsDiff {
    /// Compares the two log-probs of each token with a mask. Panics when lengths differ.
    pub fn of<F: Real>(mask: &[u8], old_log_prob: &[F], rollout_log_prob: &[F]) -> ProbsDiff {
        assert!(old_log_prob.len() == mask.len() && rollout_log_prob.len() == mask.len(), "one log-prob a token");
        let counted = || {
            let both = old_log_prob.iter().zip(rollout_log_prob).zip(mask);
            both.filter(|(_, m)| **m != 0).map(|((&a, &b), _)| (a.into(), b.into()))
        };
        let n = counted().count() as f64;
        if n == 0.0 {
            return ProbsDiff::default();
        }
        let mean_of = |f: &dyn Fn(f64, f64) -> f64| counted().map(|(a, b): (f64, f64)| f(a, b)).sum::<f64>() / n;
        let diff = |a: f64, b: f64| (a.exp() - b.exp()).abs();
        let mean = mean_of(&diff);
        let var = counted().map(|(a, b)| (diff(a, b) - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
        let (mean_a, mean_b) = (mean_of(&|a, _| a.exp()), mean_of(&|_, b| b.exp()));
        let cov = mean_of(&|a, b| (a.exp() - mean_a) * (b.exp() - mean_b));
        let (var_a, var_b) = (mean_of(&|a, _| (a.exp() - mean_a).powi(2)), mean_of(&|_, b| (b.exp() - mean_b).powi(2)));
        let spread = (var_a * var_b).sqrt();
        ProbsDiff {
            valid: true,
            max: counted().map(|(a, b)| diff(a, b)).fold(0.0, f64::max),
            mean,
            std: var.sqrt(),
            pearson: if spread > 0.0 { cov / spread } else { f64::from(mean == 0.0) },
            log_prob_max: counted().map(|(a, b): (f64, f64)| (a - b).abs()).fold(0.0, f64::max),
        }
    }

    /// The same from sums; the deviation and the correlation then come from moments about 1 and not about the mean.
    pub fn from(sums: &ProbSums) -> ProbsDiff {
        let n = sums.tokens;
        if n == 0.0 {
            return ProbsDiff::default();
        }
        let mean = sums.diff / n;
        let variance = (sums.diff_squared - sums.diff * mean) / (n - 1.0).max(1.0);
        let [a, b] = sums.below_one.map(|sum| sum / n);
        let [var_a, var_b] = [(sums.below_one_squared[0], a), (sums.below_one_squared[1], b)]
            .map(|(squares, mean)| (squares / n - mean * mean).max(0.0));
        let spread = (var_a * var_b).sqrt();
        let cov = sums.product / n - a * b;
        ProbsDiff {
            valid: true,
            max: sums.max_diff,
            mean,
            std: variance.max(0.0).sqrt(),
            pearson: if spread > 0.0 { (cov / spread).clamp(-1.0, 1.0) } else { f64::from(mean == 0.0) },
            log_prob_max: sums.max_log_diff,
        }
    }

    /// `training/rollout_*`.
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
