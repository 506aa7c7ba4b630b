//! Compares the times of the ranks of a run, and finds a rank that slows all others down, such as one whose GPU is too
//! hot.

use serde::{Deserialize, Serialize};

use super::metrics::Metrics;

/// Metric with the number of the rank that is slow. Only steps with such a rank have it.
pub const SLOW: &str = "timing_s/ranks/slow";

/// Number of consecutive steps after which a rank counts as slow.
const STEPS: u64 = 8;

/// Ratio to the median of the ranks above which a time is long.
const LONG: f64 = 1.1;

/// Seconds of one step on one rank.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct RankTimes {
    /// Sampling and scoring.
    pub rollouts: f64,
    /// Mean forward pass of a micro-batch. Unlike a backward pass, it does not wait for other ranks.
    pub forward: f64,
    /// Waits for other ranks.
    pub exchange: f64,
}

type ReadTime = fn(&RankTimes) -> f64;

impl RankTimes {
    /// Returns the names of the times, each with the function that reads it.
    fn all() -> [(&'static str, ReadTime); 3] {
        [("rollouts", |times| times.rollouts), ("forward", |times| times.forward), ("exchange", |times| times.exchange)]
    }
}

/// The rank that needed the longest in the last steps.
#[derive(Default)]
pub struct SlowRank {
    rank: usize,
    /// Number of consecutive steps in which it was slow.
    steps: u64,
}

impl SlowRank {
    /// Adds the median and the largest of `times`, which are those of each rank, to the `metrics` of a step. If the same
    /// rank has needed more than a tenth longer than the median for several steps, adds [`SLOW`]. The first time, it
    /// also returns the rank and a description of its time.
    pub fn step(&mut self, times: &[RankTimes], metrics: &mut Metrics) -> Option<(usize, String)> {
        let mut worst = (LONG, None, String::new());
        for (name, of) in RankTimes::all() {
            // A rank without such work is not a fast one.
            let had = times.iter().map(of).enumerate().filter(|(_, seconds)| *seconds > 0.0);
            let mut sorted: Vec<(usize, f64)> = had.collect();
            sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
            let Some(&(rank, most)) = sorted.last() else { continue };
            // Of two ranks, the faster one is the median.
            let (_, median) = sorted[(sorted.len() - 1) / 2];
            metrics.insert(format!("timing_s/ranks/{name}/median"), median.into());
            metrics.insert(format!("timing_s/ranks/{name}/max"), most.into());
            // The rank that waits for the others is not the slow one.
            if name != "exchange" && most > worst.0 * median {
                worst = (most / median, Some(rank), format!("{name} {most:.3} s, the median {median:.3} s"));
            }
        }
        let (_, rank, what) = worst;
        self.steps = if rank == Some(self.rank) { self.steps + 1 } else { u64::from(rank.is_some()) };
        self.rank = rank.unwrap_or(0);
        if self.steps < STEPS {
            return None;
        }
        metrics.insert(SLOW.to_owned(), self.rank.into());
        (self.steps == STEPS).then_some((self.rank, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forward passes of four ranks of which the last one has a throttled GPU in steps 3 to 12, recorded as ratios.
    #[test]
    fn a_rank_that_is_slow_for_several_steps_is_named_once() {
        let (mut slow, mut told, mut marked) = (SlowRank::default(), Vec::new(), Vec::new());
        for step in 1..=14 {
            let last = if (3..=12).contains(&step) { 0.62 } else { 0.41 };
            let of = |forward: f64| RankTimes { rollouts: 0.0, forward, exchange: 1.0 - forward };
            let mut metrics = Metrics::new();
            let found = slow.step(&[of(0.40), of(0.42), of(0.41), of(last)], &mut metrics);
            told.extend(found.map(|(rank, what)| (step, rank, what)));
            marked.extend(metrics.get(SLOW).map(|rank| (step, rank.as_u64())));
            assert_eq!(metrics["timing_s/ranks/forward/median"], 0.41);
            assert!(!metrics.contains_key("timing_s/ranks/rollouts/max"), "there were no rollouts");
        }
        assert_eq!(told, [(10, 3, "forward 0.620 s, the median 0.410 s".to_owned())]);
        assert_eq!(marked, [10, 11, 12].map(|step| (step, Some(3))));
    }

    #[test]
    fn ranks_that_are_slow_in_turn_are_not_slow() {
        let mut slow = SlowRank::default();
        for step in 0..100 {
            let of =
                |rank: usize| RankTimes { rollouts: if step % 3 == rank { 9.0 } else { 5.0 }, ..RankTimes::default() };
            assert_eq!(slow.step(&[of(0), of(1), of(2)], &mut Metrics::new()), None);
        }
    }
}
