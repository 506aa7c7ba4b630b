//! Distribution of numbers: quantiles and histogram bars.

use serde_json::{Value, json};

/// Maximum number of bars of a histogram.
const BARS: usize = 24;

/// Distribution of some numbers. If there are no numbers, every field is 0 or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Minimum, median, 90th percentile, 99th percentile and maximum.
    pub quantiles: [usize; 5],
    /// Sum of the numbers.
    pub sum: usize,
    /// Count of the numbers.
    pub count: usize,
    /// Histogram with equal steps from the minimum to the 99th percentile. The last bar also counts all larger numbers.
    pub bars: Vec<Bar>,
}

/// One bar of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Range of values, both ends included.
    pub range: [usize; 2],
    /// Count of the numbers in the range.
    pub count: usize,
}

impl Spread {
    /// Computes the distribution of some numbers, in any order.
    pub fn of(mut values: Vec<u32>) -> Spread {
        values.sort_unstable();
        let Some(last) = values.len().checked_sub(1) else { return Spread::default() };
        let at = |share: f64| values[(last as f64 * share).round() as usize] as usize;
        let quantiles = [0.0, 0.5, 0.9, 0.99, 1.0].map(at);
        let [min, _, _, p99, max] = quantiles;
        let sum = values.iter().map(|&value| value as usize).sum();
        Spread { quantiles, sum, count: values.len(), bars: bars(&values, min, p99, max) }
    }

    /// Formats the quantiles: `min 1, median 5, p90 9, p99 10, max 10`.
    pub fn line(&self) -> String {
        let [min, median, p90, p99, max] = self.quantiles;
        format!("min {min}, median {median}, p90 {p90}, p99 {p99}, max {max}")
    }

    /// Returns the quantiles and the sum as JSON for programs.
    pub fn json(&self) -> Value {
        let [min, median, p90, p99, max] = self.quantiles;
        json!({"min": min, "median": median, "p90": p90, "p99": p99, "max": max, "sum": self.sum})
    }
}

fn bars(sorted: &[u32], min: usize, p99: usize, max: usize) -> Vec<Bar> {
    let width = (p99 - min + 1).div_ceil(BARS);
    let count = (p99 - min + 1).div_ceil(width);
    let mut bars: Vec<Bar> =
        (0..count).map(|i| Bar { range: [min + i * width, min + (i + 1) * width - 1], count: 0 }).collect();
    for &value in sorted {
        bars[((value as usize - min) / width).min(count - 1)].count += 1;
    }
    if let Some(last) = bars.last_mut() {
        last.range[1] = max;
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_quantiles_and_bars_that_count_every_number() {
        let spread = Spread::of((0..=100).rev().collect());
        assert_eq!(spread.quantiles, [0, 50, 90, 99, 100]);
        assert_eq!(spread.bars.iter().map(|bar| bar.count).sum::<usize>(), 101);
        assert_eq!((spread.bars[0].range, spread.bars.last().unwrap().range[1]), ([0, 4], 100));
        let one = Spread::of(vec![7]);
        assert_eq!((one.quantiles, one.bars), ([7; 5], vec![Bar { range: [7, 7], count: 1 }]));
        assert_eq!(Spread::of(vec![]), Spread::default());
        // One very large number must not squeeze all others into one bar.
        let tailed: Vec<u32> = (0..1000).chain([4_000_000_000]).collect();
        assert!(Spread::of(tailed).bars.len() > 20);
    }
}
