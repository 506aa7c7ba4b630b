//! The verdict on log-probs that another program recorded: they agree with omr's within rounding, or they do not.
//!
//! The scale is omr's own rounding on the same tokens: the difference between its forward passes in bf16 and in f32. A
//! program that computes in bf16 rounds in other places but as often, so its differences have about the same size. Those of
//! a program that computes in float32 are more than a thousand times smaller. Rounding does not depend on the token, but a
//! change of the weights does: the mean difference of a token id is tested by an analysis of variance.
//!
//! The limits come from rollouts of TRL, transformers and vLLM with four models (`bench/peers/rollouts.py`), whose
//! differences are in `tests/goldens/rollouts/differences.json`.

use std::collections::BTreeMap;

/// Largest root mean square of differences by rounding in float32, in units of that of omr's bf16. Largest of the clean
/// rollouts: 2e-4.
const FLOAT32: f64 = 2e-3;
/// The same without a unit, for models whose bf16 rounds hardly at all.
const FLOAT32_LEAST: f64 = 3e-6;
/// Smallest value of float16 and of TF32, whose mantissa is longer by 3 bits.
const FLOAT16: f64 = 0.03;
/// Smallest value of bf16.
const BF16: f64 = 0.25;
/// Largest value of bf16 for many tokens.
const BF16_MOST: f64 = 1.7;
/// Largest difference of one token, in units of the largest one by omr's rounding.
const LARGEST: f64 = 5.0;
/// Largest F value for many tokens: 1 is expected of rounding.
const SYSTEMATIC: f64 = 1.6;

/// Log-probs of a response: those that were recorded, and omr's.
#[derive(Clone)]
pub struct Row {
    /// Token ids of the response.
    pub ids: Vec<u32>,
    /// The recorded log-probs.
    pub recorded: Vec<f32>,
    /// Those of omr in f32.
    pub exact: Vec<f32>,
    /// Those of omr in bf16.
    pub bf16: Vec<f32>,
}

impl Row {
    /// Returns the differences from omr's log-probs in f32.
    pub fn differences(&self) -> Vec<f64> {
        self.recorded.iter().zip(&self.exact).map(|(a, b)| f64::from(a - b)).collect()
    }

    /// Returns the differences of omr's log-probs in bf16 from those in f32.
    pub fn rounding(&self) -> Vec<f64> {
        self.bf16.iter().zip(&self.exact).map(|(a, b)| f64::from(a - b)).collect()
    }

    /// Returns the sum of the absolute differences.
    pub fn sum(&self) -> f64 {
        self.differences().iter().map(|x| x.abs()).sum()
    }
}

/// How recorded log-probs relate to those of omr.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// They agree within the rounding of float32.
    Float32,
    /// They agree within the rounding of float16 or TF32.
    Float16,
    /// They agree within the rounding of bf16.
    Bf16,
    /// They differ no more than rounding does, but not by rounding.
    Systematic,
    /// They differ more than rounding does.
    Differ,
}

impl Verdict {
    /// Returns true if only rounding differs.
    pub fn agrees(self) -> bool {
        matches!(self, Verdict::Float32 | Verdict::Float16 | Verdict::Bf16)
    }
}

/// Returns the verdict on rows, and the indices of those that do not agree. `all` are the rows that give the scale.
pub fn judge(rows: &[&Row], all: &[&Row]) -> (Verdict, Vec<usize>) {
    let rounding: Vec<f64> = all.iter().flat_map(|row| row.rounding()).collect();
    let (scale, largest) = (rms(&rounding), most(&rounding));
    let size = |row: &Row| rms(&row.differences()) / scale.max(rms(&row.rounding())).max(f64::MIN_POSITIVE);
    let is_exact = |row: &Row| rms(&row.differences()) <= FLOAT32_LEAST || size(row) <= FLOAT32;
    let is_near = |row: &Row| size(row) <= limit(row.ids.len()) && most(&row.differences()) <= LARGEST * largest;
    let without = |fits: &dyn Fn(&Row) -> bool| -> Vec<usize> { (0..rows.len()).filter(|&i| !fits(rows[i])).collect() };
    let others = without(&is_exact);
    if others.is_empty() {
        return (Verdict::Float32, others);
    }
    // One program computes in one type.
    if others.len() * 2 < rows.len() {
        return (Verdict::Differ, others);
    }
    let far = without(&is_near);
    let near: Vec<&Row> = rows.iter().copied().filter(|row| is_near(row)).collect();
    let most = limit(near.iter().map(|row| row.ids.len()).sum());
    let [found, rounding] = [measures(&near, Row::differences), measures(&near, Row::rounding)];
    let is_wide = found.iter().zip(rounding).any(|(found, rounding)| *found > most * rounding.max(scale / 20.0));
    let mut sizes: Vec<f64> = rows.iter().map(|row| size(row)).collect();
    let verdict = match quantile(&mut sizes, 0.5) {
        _ if is_wide || !far.is_empty() => Verdict::Differ,
        middle if middle < FLOAT16 || is_systematic(rows) => Verdict::Systematic,
        middle if middle < BF16 => Verdict::Float16,
        _ => Verdict::Bf16,
    };
    let of_all = is_wide || verdict == Verdict::Systematic;
    (verdict, if of_all { (0..rows.len()).collect() } else { far })
}

/// Largest size of differences by rounding in bf16: few tokens vary more.
fn limit(tokens: usize) -> f64 {
    BF16_MOST * (1.0 + 8.0 / (tokens as f64).sqrt())
}

/// Returns the median, the quantiles 0.99 and 0.999 of the absolute values, and the root of twice the mean of k3, the
/// estimate of the KL divergence, which has the unit of a difference.
pub fn measures(rows: &[&Row], of: fn(&Row) -> Vec<f64>) -> [f64; 4] {
    let mut values: Vec<f64> = rows.iter().flat_map(|row| of(row)).collect();
    let k3 = values.iter().map(|d| (-d).exp_m1() + d).sum::<f64>() / values.len().max(1) as f64;
    values.iter_mut().for_each(|value| *value = value.abs());
    let [median, most, rare] = [0.5, 0.99, 0.999].map(|share| quantile(&mut values, share));
    [median, most, rare, (2.0 * k3.max(0.0)).sqrt()]
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((share * values.len().saturating_sub(1) as f64).round() as usize).copied().unwrap_or(0.0)
}

fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|value| value * value).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

fn most(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most, value| value.abs().max(most))
}

/// Returns true if the differences depend on the token id: an analysis of variance of the differences, divided by 1 - p,
/// to which rounding errors of logits are proportional. A token in the same context counts once; it has the same log-prob.
fn is_systematic(rows: &[&Row]) -> bool {
    let mut values: BTreeMap<(u32, u32), f64> = BTreeMap::new();
    for row in rows {
        for ((id, difference), logprob) in row.ids.iter().zip(row.differences()).zip(&row.exact) {
            values.insert((*id, logprob.to_bits()), difference / (1.0 - f64::from(*logprob).exp()).max(0.01));
        }
    }
    let most = 3.0 * rms(&values.values().copied().collect::<Vec<_>>());
    let mut groups: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
    values.iter().for_each(|((id, _), value)| groups.entry(*id).or_default().push(value.clamp(-most, most)));
    groups.retain(|_, values| values.len() > 1);
    let all: Vec<f64> = groups.values().flatten().copied().collect();
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let around = |values: &[f64], mean: f64| values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    let within: f64 = groups.values().map(|values| around(values, mean(values))).sum();
    let between = around(&all, mean(&all)) - within;
    let (k, n) = (groups.len() as f64 - 1.0, all.len() as f64 - groups.len() as f64);
    k >= 8.0 && n >= 20.0 && between / k > (SYSTEMATIC + 4.0 * (2.0 / k + 2.0 / n).sqrt()) * (within / n)
}
