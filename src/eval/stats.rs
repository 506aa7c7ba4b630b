//! Confidence intervals of measured shares and differences.

use serde::{Deserialize, Serialize};

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
    /// Number of independent observations.
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

/// Estimates the mean over all members of independent clusters. Each cluster is given by the sum and the number of its
/// members. If every cluster has one member, the result equals that of [`accuracy`]. Otherwise the interval is the
/// normal interval from the spread between clusters, which is wider if members of a cluster agree. A single cluster
/// gives the whole range.
pub fn clustered(clusters: &[(f64, usize)]) -> Estimate {
    if clusters.iter().all(|(_, n)| *n == 1) {
        return accuracy(&clusters.iter().map(|(sum, _)| *sum).collect::<Vec<_>>());
    }
    let (groups, n) = (clusters.len() as f64, clusters.iter().map(|(_, n)| *n).sum::<usize>());
    let mean = clusters.iter().map(|(sum, _)| sum).sum::<f64>() / n as f64;
    let squares: f64 = clusters.iter().map(|(sum, n)| (sum - mean * *n as f64).powi(2)).sum();
    let error = if groups > 1.0 { (squares * groups / (groups - 1.0)).sqrt() / n as f64 } else { 1.0 };
    let ci95 = Interval { lo: (mean - Z95 * error).max(0.0), hi: (mean + Z95 * error).min(1.0) };
    Estimate { mean, ci95, n: clusters.len() }
}

/// Estimates the mean of `a - b` over the same questions with a paired interval. Questions with equal results on both
/// sides cancel, so this interval is narrower than the interval of two separate measurements. Both slices must have the
/// same order and length. Returns `None` if the lengths differ.
pub fn paired(a: &[f64], b: &[f64]) -> Option<Estimate> {
    if a.len() != b.len() {
        return None;
    }
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    Some(mean(&differences))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let paired = paired(&a, &b).unwrap();
        assert!((paired.mean - 0.2).abs() < 1e-12);
        let half = (paired.ci95.hi - paired.ci95.lo) / 2.0;
        // The difference is 1 for a fifth of the questions: standard deviation 0.4005, divided by 20, times 1.96.
        close(half, 1.96 * 0.400_501 / 20.0);
        assert!(half < (accuracy(&a).ci95.hi - accuracy(&a).ci95.lo) / 2.0);
    }

    #[test]
    fn questions_asked_again_tell_nothing_new() {
        let right: Vec<f64> = (0..100).map(|i| f64::from(i % 4 > 0)).collect();
        let once: Vec<(f64, usize)> = right.iter().map(|x| (*x, 1)).collect();
        assert_eq!(clustered(&once), accuracy(&right));
        let half = |e: Estimate| (e.ci95.hi - e.ci95.lo) / 2.0;
        // Four equal answers count as one observation. Four answers that differ in the same way for all questions have
        // no spread between clusters.
        let again: Vec<(f64, usize)> = right.iter().map(|x| (4.0 * x, 4)).collect();
        let four = clustered(&again);
        assert!((four.mean - 0.75).abs() < 1e-12 && four.n == 100);
        close(half(four), half(mean(&right)));
        assert_eq!(clustered(&[(3.0, 4)]).ci95, Interval { lo: 0.0, hi: 1.0 });
        let mixed: Vec<(f64, usize)> = (0..100).map(|_| (3.0, 4)).collect();
        assert_eq!(half(clustered(&mixed)), 0.0);
    }

    #[test]
    fn several_answers_to_a_question_are_one_observation() {
        let estimate = accuracy(&[0.5, 1.0, 0.0, 0.5]);
        assert_eq!((estimate.mean, estimate.n), (0.5, 4));
        assert!(estimate.ci95.lo >= 0.0 && estimate.ci95.hi <= 1.0);
        assert!(super::paired(&[1.0], &[]).is_none());
    }
}
