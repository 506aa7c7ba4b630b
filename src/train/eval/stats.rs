//! Confidence intervals of measured shares and differences.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use omr_data::task::Observation;

/// The 97.5 % quantile of the normal distribution.
pub(super) const Z95: f64 = 1.959_963_984_540_054;

/// A 95 % confidence interval: its lower and its upper end.
pub type Interval = [f64; 2];

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

/// Computes Wilson's interval of the share `mean` of `n` observations. It stays within 0 and 1, and it is correct at the
/// ends, where the normal interval shrinks to a point. `n` = 0 gives the whole range. `n` need not be an integer.
pub fn wilson(mean: f64, n: f64) -> Interval {
    if n == 0.0 {
        return [0.0, 1.0];
    }
    let z2 = Z95 * Z95;
    let centre = (mean + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z95 / (1.0 + z2 / n) * (mean * (1.0 - mean) / n + z2 / (4.0 * n * n)).sqrt();
    // At the ends the two terms are equal except for rounding.
    let lo = if mean > 0.0 { (centre - half).max(0.0) } else { 0.0 };
    let hi = if mean < 1.0 { (centre + half).min(1.0) } else { 1.0 };
    [lo, hi]
}

/// Computes mean and normal interval of independent values. An empty slice gives 0, and a single value gives an
/// interval of length 0.
pub fn mean(values: &[f64]) -> Estimate {
    let n = values.len();
    if n == 0 {
        return Estimate { mean: 0.0, ci95: [0.0, 0.0], n };
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    let error = if n > 1 { (squares / (n - 1) as f64 / n as f64).sqrt() } else { 0.0 };
    Estimate { mean, ci95: [mean - Z95 * error, mean + Z95 * error], n }
}

/// Estimates a share from observations, of which those with a common cluster are not independent. An observation is the
/// mean of the answers to one question, from 0 to 1, so several answers to a question count once. It may be in several
/// clusters, at most eight: a question about two images is in the clusters of both. A single cluster gives the whole
/// range.
///
/// The interval is Wilson's for `n` divided by the design effect: the variance of the mean relative to that of `n`
/// independent answers that are right or wrong (Kish 1965; Korn and Graubard 1998). If all values are 0 or 1, the effect
/// is at least 1, because common clusters do not add information.
pub fn clustered(observations: &[Observation]) -> Estimate {
    let values: Vec<f64> = observations.iter().map(|observation| observation.value).collect();
    let estimate = mean(&values);
    let Some(error) = standard_error(observations, &estimate) else {
        return Estimate { ci95: [0.0, 1.0], ..estimate };
    };
    let n = estimate.n as f64;
    let independent = estimate.mean * (1.0 - estimate.mean) / (n - 1.0);
    // 0 / 0 if all values are equal to 0 or to 1. Then `max` returns 1.
    let effect = error * error / independent;
    let is_binary = values.iter().all(|value| *value == 0.0 || *value == 1.0);
    let effective = n / if is_binary { effect.max(1.0) } else { effect };
    Estimate { ci95: wilson(estimate.mean, effective), ..estimate }
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
    let estimate = mean(&values);
    let half = standard_error(&differences, &estimate).map_or(f64::INFINITY, |error| Z95 * error);
    let ci95 = [(estimate.mean - half).max(-1.0), (estimate.mean + half).min(1.0)];
    Some(Estimate { ci95, ..estimate })
}

/// Returns the standard error of the mean of observations that may share clusters, from the products of all pairs of
/// errors with a common cluster. It is larger if members of a cluster agree. Returns `None` if all observations are in
/// one cluster, which has no spread to measure. Source: Cameron, Gelbach, Miller 2011, "Robust inference with multiway
/// clustering".
fn standard_error(observations: &[Observation], estimate: &Estimate) -> Option<f64> {
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
        return Some((estimate.ci95[1] - estimate.ci95[0]) / (2.0 * Z95));
    }
    // Inclusion and exclusion: a pair with several common clusters counts once.
    for (set, (sum, _)) in &sums {
        squares += if set.len() % 2 == 1 { sum * sum } else { -sum * sum };
        groups += usize::from(set.len() == 1);
    }
    let (n, g) = (observations.len() as f64, groups as f64);
    (groups > 1).then(|| (squares.max(0.0) * g / (g - 1.0)).sqrt() / n)
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
            let interval = wilson(r as f64 / n as f64, n as f64);
            close(interval[0], lo);
            close(interval[1], hi);
        }
        assert_eq!(wilson(0.0, 0.0), [0.0, 1.0]);
        assert_eq!((wilson(0.0, 500.0)[0], wilson(1.0, 500.0)[1]), (0.0, 1.0));
    }

    #[test]
    fn the_paired_interval_is_narrower_than_the_separate_ones() {
        let a: Vec<f64> = (0..400).map(|i| f64::from(i % 10 < 7)).collect();
        let b: Vec<f64> = (0..400).map(|i| f64::from(i % 10 < 5)).collect();
        let paired = paired(&alone(a.iter().copied()), &alone(b)).unwrap();
        assert!((paired.mean - 0.2).abs() < 1e-12);
        let half = (paired.ci95[1] - paired.ci95[0]) / 2.0;
        // The difference is 1 for a fifth of the questions: standard deviation 0.4005, divided by 20, times 1.96.
        close(half, 1.96 * 0.400_501 / 20.0);
        let [lo, hi] = clustered(&alone(a.iter().copied())).ci95;
        assert!(half < (hi - lo) / 2.0);
    }

    #[test]
    fn questions_asked_again_tell_nothing_new() {
        let right: Vec<f64> = (0..100).map(|i| f64::from(i % 4 > 0)).collect();
        let once = clustered(&repeated(&right, 1));
        let [lo, hi] = wilson(0.75, 100.0);
        close(once.ci95[0], lo);
        close(once.ci95[1], hi);
        // Four equal answers count as about one observation: the estimated variances of 100 clusters and of 400
        // observations differ by the factor (100 / 99) / (400 / 399).
        let four = clustered(&repeated(&right, 4));
        assert!((four.mean - 0.75).abs() < 1e-12 && four.n == 400);
        let [lo, hi] = wilson(0.75, 400.0 / 4.0 * (99.0 / 100.0) * (400.0 / 399.0));
        close(four.ci95[0], lo);
        close(four.ci95[1], hi);
        assert_eq!(clustered(&repeated(&[1.0], 4)).ci95, [0.0, 1.0]);
        // Four answers that differ in the same way for all questions have no spread between clusters.
        let differing =
            (0..400).map(|i| Observation { value: f64::from(i % 4 > 0), clusters: vec![(i / 4).to_string()] });
        assert_eq!(clustered(&differing.collect::<Vec<_>>()).ci95, wilson(0.75, 400.0));
    }

    #[test]
    fn no_right_answer_among_500_that_share_images_is_not_certainly_none() {
        let wrong = |i: usize| Observation { value: 0.0, clusters: vec![(i / 2).to_string()] };
        assert_eq!(clustered(&(0..500).map(wrong).collect::<Vec<_>>()).ci95, wilson(0.0, 500.0));
    }

    #[test]
    fn intervals_of_questions_that_share_images_cover_the_accuracy() {
        // 500 questions about two of 366 images each, as the digits recipe asks. An image is easy or hard: both of a
        // question's images change its probability by up to `effect`.
        let mut state = 20_261_125_u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        for accuracy in [0.0, 0.5, 0.86, 0.974, 0.997] {
            let effect = 0.5 * f64::min(accuracy, 1.0 - accuracy);
            let covered = (0..400).filter(|_| {
                let easier: Vec<f64> = (0..366).map(|_| if next(2) == 0 { effect } else { -effect }).collect();
                let mut question = || {
                    let [a, b] = [next(366), next(366)];
                    let probability = accuracy + easier[a as usize] + easier[b as usize];
                    let value = f64::from((next(1_000_000) as f64) < probability * 1e6);
                    Observation { value, clusters: vec![a.to_string(), b.to_string()] }
                };
                let [lo, hi] = clustered(&(0..500).map(|_| question()).collect::<Vec<_>>()).ci95;
                lo <= accuracy && accuracy <= hi
            });
            let covered = covered.count() as f64 / 400.0;
            println!("accuracy {accuracy}: the interval covers it in {covered} of the runs");
            assert!(covered >= 0.93, "accuracy {accuracy}: covered {covered}");
        }
    }

    #[test]
    fn a_question_about_two_images_is_in_the_clusters_of_both() {
        // The formula over all pairs of observations with a common image, in which each pair counts once.
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
        close(standard_error(&found, &estimate).unwrap(), (squares.max(0.0) * 20.0 / 19.0).sqrt() / 200.0);
        assert_eq!(estimate.n, 200);
        // Equal answers to all questions about an image widen the interval of a difference, too.
        let agree = repeated(&(0..50).map(|i| f64::from(i % 2)).collect::<Vec<_>>(), 4);
        let none = alone(vec![0.0; 200]);
        let wide = paired(&agree, &none).unwrap().ci95;
        let narrow = paired(&alone(agree.iter().map(|x| x.value)), &none).unwrap().ci95;
        close((wide[1] - wide[0]) / (narrow[1] - narrow[0]), 2.0 * (50.0_f64 / 49.0 * 199.0 / 200.0).sqrt());
    }

    #[test]
    fn several_answers_to_a_question_are_one_observation() {
        let estimate = clustered(&alone([0.5, 1.0, 0.0, 0.5]));
        assert_eq!((estimate.mean, estimate.n), (0.5, 4));
        assert!(estimate.ci95[0] > 0.0 && estimate.ci95[1] < 1.0);
        let certain = clustered(&alone([0.5; 4])).ci95;
        assert_eq!(certain, [0.5, 0.5]);
        assert!(super::paired(&alone([1.0]), &[]).is_none());
    }
}
