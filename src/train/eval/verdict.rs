//! The verdict on log-probs that another program recorded: they agree with omr's within rounding, or they do not.
//!
//! The scale is omr's own rounding on the same tokens: the difference between its forward passes in bf16 and in f32. A
//! program that computes in bf16 rounds in other places but as often, so its differences have about the same size. Those of
//! a program that computes in float32 are more than a thousand times smaller. Rounding does not depend on the token, but a
//! change of the weights does: the mean difference of a token id is tested by an analysis of variance.
//!
//! The limits come from rollouts of TRL, transformers and vLLM with three models (`bench/peers/rollouts.py`), whose
//! differences are in `tests/goldens/verdicts.tgz`.

use std::collections::BTreeMap;

/// Largest root mean square of differences by rounding in float32, in units of that of omr's bf16. The largest one of the
/// clean rollouts is 2e-4.
const FLOAT32: f64 = 2e-3;
/// The same without a unit, for rows whose log-probs bf16 hardly rounds.
const FLOAT32_LEAST: f64 = 3e-6;
/// Smallest size of rounding in float16, TF32 or bf16 of the middle row. float16 has 3 bits more than bf16.
const LEAST: f64 = 0.03;
/// Largest size of rounding in bf16, if many tokens contribute to the scale. The largest one is 1.4.
const MOST: f64 = 2.0;
/// Number of tokens from which on quantiles are compared.
const FEW: f64 = 5.0;
/// Largest F value of rounding for many tokens, where 1 is expected. The largest one is 1.5.
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

/// Relation of recorded log-probs to those of omr.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// They agree within the rounding of float32.
    Float32,
    /// They agree within the rounding of bf16 (or of float16 and TF32, which is smaller).
    Bf16,
    /// They differ no more than rounding does, but not by rounding.
    Systematic,
    /// They differ more than rounding does.
    Differ,
}

impl Verdict {
    /// Returns true if only rounding differs.
    pub fn agrees(self) -> bool {
        matches!(self, Verdict::Float32 | Verdict::Bf16)
    }
}

/// Returns the verdict on rows, and the indices of those that do not agree. `all` are the rows that give the scale.
pub fn judge(rows: &[&Row], all: &[&Row]) -> (Verdict, Vec<usize>) {
    let rounding: Vec<f64> = all.iter().flat_map(|row| row.rounding()).collect();
    let unsure: Vec<f64> = all.iter().flat_map(|row| &row.exact).map(|p| 1.0 - f64::from(*p).exp()).collect();
    // If few tokens contribute, their rounding may be small by chance.
    let few = effective(&rounding);
    let scale = rms(&rounding).hypot(0.02 * rms(&unsure) / few).max(f64::MIN_POSITIVE);
    let largest = most(&rounding).max(scale * (rounding.len() as f64 / few).sqrt());
    let size = |row: &Row| rms(&row.differences()) / scale.max(rms(&row.rounding()));
    let is_exact = |row: &Row| rms(&row.differences()) <= FLOAT32_LEAST || size(row) <= FLOAT32;
    let is_near =
        |row: &Row| size(row) <= limit(&row.rounding()) && most(&row.differences()) <= 2.0 * limit(&rounding) * largest;
    let others: Vec<usize> = (0..rows.len()).filter(|&i| !is_exact(rows[i])).collect();
    if others.is_empty() {
        return (Verdict::Float32, others);
    }
    // One program computes in one type, and most rows show it.
    let telling = (0..rows.len()).filter(|&i| rms(&rows[i].rounding()) > 10.0 * FLOAT32_LEAST.max(FLOAT32 * scale));
    let telling: Vec<bool> = telling.map(|i| others.contains(&i)).collect();
    if telling.iter().filter(|&&other| !other).count() * 2 > telling.len() {
        return (Verdict::Differ, others);
    }
    let (near, far): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&i| is_near(rows[i]));
    let near: Vec<&Row> = near.into_iter().map(|i| rows[i]).collect();
    let [found, rounded] = [measures(&near, Row::differences), measures(&near, Row::rounding)];
    let most = limit(&near.iter().flat_map(|row| row.rounding()).collect::<Vec<_>>());
    let is_wide = few >= FEW && found.iter().zip(rounded).any(|(found, unit)| *found > most * unit.max(scale / 5.0));
    let mut sizes: Vec<f64> = rows.iter().map(|row| size(row)).collect();
    let verdict = match quantile(&mut sizes, 0.5) {
        _ if is_wide || !far.is_empty() => Verdict::Differ,
        middle if middle < LEAST || is_systematic(rows) => Verdict::Systematic,
        _ => Verdict::Bf16,
    };
    let of_all = is_wide || verdict == Verdict::Systematic;
    (verdict, if of_all { (0..rows.len()).collect() } else { far })
}

/// Returns the number of tokens that contribute to the size of these roundings.
fn effective(rounding: &[f64]) -> f64 {
    let sum = |power: i32| rounding.iter().map(|value| value.powi(power)).sum::<f64>();
    (sum(2).powi(2) / sum(4).max(f64::MIN_POSITIVE)).max(1.0)
}

/// Returns the largest size of differences by rounding in bf16.
fn limit(rounding: &[f64]) -> f64 {
    MOST * (1.0 + 4.0 / effective(rounding).sqrt())
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
