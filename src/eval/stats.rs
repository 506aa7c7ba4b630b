//! Confidence intervals of measured shares and differences.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::task::Observation;

/// The 97.5 % quantile of the normal distribution.
pub(super) const Z95: f64 = 1.959_963_984_540_054;

/// A 95 % confidence interval, written as `[lo, hi]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Interval {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

impl From<[f64; 2]> for Interval {
    fn from([lo, hi]: [f64; 2]) -> Interval {
        Interval { lo, hi }
    }
}

impl From<Interval> for [f64; 2] {
    fn from(interval: Interval) -> [f64; 2] {
        [interval.lo, interval.hi]
    }
}

/// A mean with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Mean of the values.
    pub mean: f64,
    /// 95 % interval of the mean.
    pub ci95: Interval,
    /// Number of observations.
    pub n: usize,
}

/// Computes Wilson's interval of the share `successes` of `n`. It stays within 0 and 1, and it is correct at the ends,
/// where the normal interval shrinks to a point. `n` = 0 gives the whole range.
pub fn wilson(successes: f64, n: usize) -> Interval {
    if n == 0 {
        return Interval { lo: 0.0, hi: 1.0 };
    }
    let (n, z2) = (n as f64, Z95 * Z95);
    let p = successes / n;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    // At the ends the two terms are equal except for rounding.
    let lo = if p > 0.0 { (centre - half).max(0.0) } else { 0.0 };
    let hi = if p < 1.0 { (centre + half).min(1.0) } else { 1.0 };
    Interval { lo, hi }
}

/// Estimates the share of correct answers. `scores` has one value from 0 to 1 per question, the mean of its answers, so
/// that several answers to one question count as one observation. The interval is Wilson's if every value is 0 or 1,
/// otherwise the normal one.
pub fn accuracy(scores: &[f64]) -> Estimate {
    let binary = scores.iter().all(|score| *score == 0.0 || *score == 1.0);
    let estimate = mean(scores);
    if binary {
        return Estimate { ci95: wilson(scores.iter().sum(), scores.len()), ..estimate };
    }
    let Interval { lo, hi } = estimate.ci95;
    Estimate { ci95: Interval { lo: lo.max(0.0), hi: hi.min(1.0) }, ..estimate }
}

/// Computes mean and normal interval of independent values. An empty slice gives 0, and a single value gives an
/// interval of length 0.
pub fn mean(values: &[f64]) -> Estimate {
    let n = values.len();
    if n == 0 {
        return Estimate { mean: 0.0, ci95: Interval { lo: 0.0, hi: 0.0 }, n };
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let error = if n > 1 { (squares / (n - 1) as f64 / n as f64).sqrt() } else { 0.0 };
    Estimate { mean, ci95: Interval { lo: mean - Z95 * error, hi: mean + Z95 * error }, n }
}

/// Estimates the mean of observations, of which those with a common cluster are not independent. An observation may be in
/// several clusters, at most eight: a question about two pictures is in the clusters of both. Without common clusters
/// the result is that of [`accuracy`]. Otherwise the interval is the normal interval from the products of all pairs of
/// errors with a common cluster. It is wider if members of a cluster agree. A single cluster gives the whole range.
/// Source: Cameron, Gelbach, Miller 2011, "Robust inference with multiway clustering".
pub fn clustered(observations: &[Observation]) -> Estimate {
    let values: Vec<f64> = observations.iter().map(|observation| observation.value).collect();
    let estimate = accuracy(&values);
    with_clusters(observations, estimate, Interval { lo: 0.0, hi: 1.0 })
}

/// Estimates the mean of `a - b` over the same questions with a paired interval. Questions with equal results on both
/// sides cancel, so this interval is narrower than the interval of two separate measurements. Both slices must have the
/// same order and length. Common clusters count as in [`clustered`]. Returns `None` if the lengths differ.
pub fn paired(a: &[Observation], b: &[Observation]) -> Option<Estimate> {
    if a.len() != b.len() {
        return None;
    }
    let difference =
        |(a, b): (&Observation, &Observation)| Observation { value: a.value - b.value, clusters: a.clusters.clone() };
    let differences: Vec<Observation> = a.iter().zip(b).map(difference).collect();
    let values: Vec<f64> = differences.iter().map(|observation| observation.value).collect();
    Some(with_clusters(&differences, mean(&values), Interval { lo: -1.0, hi: 1.0 }))
}

/// Returns `estimate` with the interval of observations that share clusters. The interval stays within `range`.
fn with_clusters(observations: &[Observation], estimate: Estimate, range: Interval) -> Estimate {
    // The sum of the errors of the observations that are in all clusters of a set, and their number.
    let mut sums: BTreeMap<Vec<&str>, (f64, usize)> = BTreeMap::new();
    let (mut squares, mut groups) = (0.0, 0);
    for Observation { value, clusters } in observations {
        let error = value - estimate.mean;
        let names: BTreeSet<&str> = clusters.iter().take(8).map(String::as_str).collect();
        if names.is_empty() {
            (squares, groups) = (squares + error * error, groups + 1);
        }
        for set in 1_usize..1 << names.len() {
            let of = names.iter().enumerate().filter(|(i, _)| set >> i & 1 == 1).map(|(_, name)| *name).collect();
            let (sum, n) = sums.entry(of).or_default();
            (*sum, *n) = (*sum + error, *n + 1);
        }
    }
    if sums.values().all(|(_, n)| *n == 1) {
        return estimate;
    }
    // Inclusion and exclusion: a pair with several common clusters counts once.
    for (set, (sum, _)) in &sums {
        squares += if set.len() % 2 == 1 { sum * sum } else { -sum * sum };
        groups += usize::from(set.len() == 1);
    }
    let (n, g, mean) = (observations.len() as f64, groups as f64, estimate.mean);
    let error = if groups > 1 { (squares.max(0.0) * g / (g - 1.0)).sqrt() / n } else { 1.0 };
    let ci95 = Interval { lo: (mean - Z95 * error).max(range.lo), hi: (mean + Z95 * error).min(range.hi) };
    Estimate { mean, ci95, n: observations.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(values: impl IntoIterator<Item = f64>) -> Vec<Observation> {
        values.into_iter().map(|value| Observation { value, clusters: Vec::new() }).collect()
    }

    /// Returns `n` equal observations of each value, in a cluster per value.
    fn repeated(values: &[f64], n: usize) -> Vec<Observation> {
        let of = |(i, &value): (usize, &f64)| vec![Observation { value, clusters: vec![i.to_string()] }; n];
        values.iter().enumerate().flat_map(of).collect()
    }

    fn close(a: f64, b: f64) {
        // The table is published with four digits.
        assert!((a - b).abs() < 5e-5, "{a} is not {b}");
    }

    #[test]
    fn wilson_matches_newcombe_1998_table_1() {
        for (r, n, lo, hi) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let interval = wilson(r as f64, n);
            close(interval.lo, lo);
            close(interval.hi, hi);
        }
        assert_eq!(wilson(0.0, 0), Interval { lo: 0.0, hi: 1.0 });
        assert_eq!((wilson(0.0, 500).lo, wilson(500.0, 500).hi), (0.0, 1.0));
    }

    #[test]
    fn the_paired_interval_is_narrower_than_the_separate_ones() {
        let a: Vec<f64> = (0..400).map(|i| f64::from(i % 10 < 7)).collect();
        let b: Vec<f64> = (0..400).map(|i| f64::from(i % 10 < 5)).collect();
        let paired = paired(&alone(a.iter().copied()), &alone(b)).unwrap();
        assert!((paired.mean - 0.2).abs() < 1e-12);
        let half = (paired.ci95.hi - paired.ci95.lo) / 2.0;
        // The difference is 1 for a fifth of the questions: standard deviation 0.4005, divided by 20, times 1.96.
        close(half, 1.96 * 0.400_501 / 20.0);
        assert!(half < (accuracy(&a).ci95.hi - accuracy(&a).ci95.lo) / 2.0);
    }

    #[test]
    fn questions_asked_again_tell_nothing_new() {
        let right: Vec<f64> = (0..100).map(|i| f64::from(i % 4 > 0)).collect();
        assert_eq!(clustered(&repeated(&right, 1)), accuracy(&right));
        let half = |e: Estimate| (e.ci95.hi - e.ci95.lo) / 2.0;
        // Four equal answers count as one observation. Four answers that differ in the same way for all questions have
        // no spread between clusters.
        let four = clustered(&repeated(&right, 4));
        assert!((four.mean - 0.75).abs() < 1e-12 && four.n == 400);
        close(half(four), half(mean(&right)));
        let whole = clustered(&repeated(&[1.0], 4));
        assert_eq!(whole.ci95, Interval { lo: 0.0, hi: 1.0 });
        let differing =
            (0..400).map(|i| Observation { value: f64::from(i % 4 > 0), clusters: vec![(i / 4).to_string()] });
        assert_eq!(half(clustered(&differing.collect::<Vec<_>>())), 0.0);
    }

    #[test]
    fn a_question_about_two_pictures_is_in_the_clusters_of_both() {
        // The formula over all pairs of observations with a common picture, in which each pair counts once.
        let mut state = 7_u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut random = || Observation {
            value: if next(4) > 0 { 1.0 } else { 0.0 },
            clusters: vec![next(20).to_string(), next(20).to_string()],
        };
        let found: Vec<Observation> = (0..200).map(|_| random()).collect();
        let estimate = clustered(&found);
        let error = |i: usize| found[i].value - estimate.mean;
        let is_common = |i: usize, j: usize| found[i].clusters.iter().any(|name| found[j].clusters.contains(name));
        let pairs = (0..200).flat_map(|i| (0..200).map(move |j| (i, j))).filter(|&(i, j)| is_common(i, j));
        let squares: f64 = pairs.map(|(i, j)| error(i) * error(j)).sum();
        close((estimate.ci95.hi - estimate.ci95.lo) / 2.0, Z95 * (squares.max(0.0) * 20.0 / 19.0).sqrt() / 200.0);
        assert_eq!(estimate.n, 200);
        // Equal answers to all questions about a picture widen the interval of a difference, too.
        let agree = repeated(&(0..50).map(|i| f64::from(i % 2)).collect::<Vec<_>>(), 4);
        let none = alone(vec![0.0; 200]);
        let wide = paired(&agree, &none).unwrap().ci95;
        let narrow = paired(&alone(agree.iter().map(|x| x.value)), &none).unwrap().ci95;
        close((wide.hi - wide.lo) / (narrow.hi - narrow.lo), 2.0 * (50.0_f64 / 49.0 * 199.0 / 200.0).sqrt());
    }

    #[test]
    fn several_answers_to_a_question_are_one_observation() {
        let estimate = accuracy(&[0.5, 1.0, 0.0, 0.5]);
        assert_eq!((estimate.mean, estimate.n), (0.5, 4));
        assert!(estimate.ci95.lo >= 0.0 && estimate.ci95.hi <= 1.0);
        assert!(super::paired(&alone([1.0]), &[]).is_none());
    }
}
