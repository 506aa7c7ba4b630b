//! Statistics of several answers to a question, under verl's names. verl draws 1,000 random subsets of `n` answers with
//! replacement and averages over them. These functions compute the exact mean and standard deviation over all such
//! subsets.

use std::collections::BTreeMap;

/// A mean, and a mean of squares.
type Moments = [f64; 2];

/// Computes verl's statistics of one question's answers. `values` are the scores of the answers, `votes` are the
/// extracted answers that vote. A single answer gives only the mean. With N answers the result also contains `std@N`
/// and, for 2, 4, ... and N of them, `best`, `worst` and `maj`, each with `mean` and `std`.
pub fn of_question(values: &[f64], votes: &[&str]) -> Vec<(String, f64)> {
    let all = values.len();
    let mean = moments(values);
    let mut out = vec![(format!("mean@{all}"), mean[0])];
    if all < 2 {
        return out;
    }
    out.push((format!("std@{all}"), deviation(mean)));
    let sizes = (1..).map(|i| 1 << i).take_while(|n| *n < all).chain([all]);
    let groups = groups(values, votes);
    for n in sizes {
        let negated: Vec<f64> = values.iter().map(|value| -value).collect();
        let [low, square] = largest(&negated, n);
        let found = [("best", largest(values, n)), ("worst", [-low, square]), ("maj", most_voted(&groups, n))];
        for (name, moments) in found {
            out.push((format!("{name}@{n}/mean"), moments[0]));
            out.push((format!("{name}@{n}/std"), deviation(moments)));
        }
    }
    out
}

/// True if verl reports this statistic of a question's `n` answers under `val-core`, for its core variable.
pub fn is_core(name: &str, n: usize) -> bool {
    ["mean", "maj", "best"].iter().any(|kind| name.starts_with(kind)) && name.contains(&format!("@{n}"))
}

fn moments(values: &[f64]) -> Moments {
    let n = values.len() as f64;
    [values.iter().sum::<f64>() / n, values.iter().map(|x| x * x).sum::<f64>() / n]
}

fn deviation([mean, square]: Moments) -> f64 {
    // Rounding can leave a tiny positive variance for equal values.
    let variance = square - mean * mean;
    if variance < 1e-12 * square { 0.0 } else { variance.sqrt() }
}

/// Computes the moments of the largest of `n` drawn values. The largest drawn value is among the `i` smallest values
/// with probability `(i / len)^n`.
fn largest(values: &[f64], n: usize) -> Moments {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let within = |i: usize| (i as f64 / sorted.len() as f64).powi(n as i32);
    sorted.iter().enumerate().fold([0.0; 2], |sum, (i, value)| {
        let share = within(i + 1) - within(i);
        [sum[0] + share * value, sum[1] + share * value * value]
    })
}

/// Returns for each vote the share of answers with it and the moments of their values.
fn groups(values: &[f64], votes: &[&str]) -> Vec<(f64, Moments)> {
    let mut by_vote: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    votes.iter().zip(values).for_each(|(vote, value)| by_vote.entry(vote).or_default().push(*value));
    by_vote.values().map(|of_vote| (of_vote.len() as f64 / values.len() as f64, moments(of_vote))).collect()
}

/// Computes the moments of the value of the majority answer among `n` drawn answers. Of equally frequent votes, the one
/// drawn first wins, so each wins with the same probability. The value of the majority answer is the value of a random
/// answer with this vote.
fn most_voted(groups: &[(f64, Moments)], n: usize) -> Moments {
    let mut total = [0.0; 2];
    for most in 1..=n {
        // Indices: number of drawn answers, and number of votes that occur exactly `most` times. Each state contains
        // its probability, and the expected sums of both moments over these votes.
        let mut drawn = vec![vec![[0.0; 3]; n / most + 1]; n + 1];
        drawn[0][0][0] = 1.0;
        for (share, worth) in groups {
            let mut next = vec![vec![[0.0; 3]; n / most + 1]; n + 1];
            for (before, of_count) in drawn.iter().enumerate() {
                for (tied, state) in of_count.iter().enumerate().filter(|(_, state)| state[0] > 0.0) {
                    let mut ways = 1.0;
                    for more in 0..=most.min(n - before) {
                        if more > 0 {
                            ways *= share * (before + more) as f64 / more as f64;
                        }
                        let wins = usize::from(more == most);
                        let to = &mut next[before + more][tied + wins];
                        to[0] += ways * state[0];
                        for k in 0..2 {
                            to[k + 1] += ways * (state[k + 1] + wins as f64 * state[0] * worth[k]);
                        }
                    }
                }
            }
            drawn = next;
        }
        for (tied, state) in drawn[n].iter().enumerate().skip(1) {
            total = [total[0] + state[1] / tied as f64, total[1] + state[2] / tied as f64];
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Enumerates every sequence of `n` draws and evaluates it as verl does.
    fn enumerated(values: &[f64], votes: &[&str], n: usize) -> [(&'static str, Moments); 3] {
        let mut sums = [[0.0; 2]; 3];
        let count = values.len().pow(n as u32);
        for code in 0..count {
            let drawn: Vec<usize> = (0..n).map(|k| code / values.len().pow(k as u32) % values.len()).collect();
            let worth = || drawn.iter().map(|i| values[*i]);
            let frequency = |i: usize| drawn.iter().filter(|j| votes[**j] == votes[i]).count();
            let most = drawn.iter().map(|i| frequency(*i)).max().unwrap();
            let winner = *drawn.iter().find(|i| frequency(**i) == most).unwrap();
            let found = [worth().fold(f64::MIN, f64::max), worth().fold(f64::MAX, f64::min), values[winner]];
            for (sum, value) in sums.iter_mut().zip(found) {
                *sum = [sum[0] + value / count as f64, sum[1] + value * value / count as f64];
            }
        }
        [("best", sums[0]), ("worst", sums[1]), ("maj", sums[2])]
    }

    #[test]
    fn they_are_the_means_over_all_subsets() {
        let cases: [(&[f64], &[&str]); 4] = [
            (&[1.0, 0.0, 0.0, 1.0], &["a", "b", "c", "a"]),
            (&[0.9, 0.1, 0.0, 1.0, 0.5], &["a", "a", "b", "b", "c"]),
            (&[0.3, 0.3, 0.3], &["", "", ""]),
            (&[-1.0, 2.0, 0.25, 0.25, -3.0, 0.0], &["a", "b", "c", "d", "e", "b"]),
        ];
        for (values, votes) in cases {
            let found: BTreeMap<String, f64> = of_question(values, votes).into_iter().collect();
            for n in [2, 4, values.len()].into_iter().filter(|n| *n <= values.len()) {
                for (name, want) in enumerated(values, votes, n) {
                    for (part, want) in [("mean", want[0]), ("std", (want[1] - want[0] * want[0]).max(0.0).sqrt())] {
                        let got = found[&format!("{name}@{n}/{part}")];
                        // The values are sums of some thousand terms, and square roots of their differences.
                        assert!((got - want).abs() < 1e-7, "{name}@{n}/{part} of {values:?}: {got} is not {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_names_are_verls() {
        let names = |n: usize| -> Vec<String> {
            of_question(&vec![0.5; n], &vec!["x"; n]).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(1), ["mean@1"]);
        let both =
            |n: usize| ["best", "worst", "maj"].map(|what| [format!("{what}@{n}/mean"), format!("{what}@{n}/std")]);
        let of_six: Vec<String> = [2, 4, 6].into_iter().flat_map(both).flatten().collect();
        assert_eq!(names(6)[2..], of_six);
        assert_eq!(names(6)[..2], ["mean@6", "std@6"]);
        let core: Vec<String> = names(6).into_iter().filter(|name| is_core(name, 6)).collect();
        assert_eq!(core, ["mean@6", "best@6/mean", "best@6/std", "maj@6/mean", "maj@6/std"]);
    }
}
