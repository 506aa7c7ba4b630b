//! Lower bounds of time: the duration of work if every op runs at the GPU's peak rate.

use serde_json::{Value, json};

use super::gpus::Ceilings;
use omr_runtime::device::Work;

/// Counts and minimum time of a part of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Floor {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Seconds: the sum over ops of the longer of the times for arithmetic and for memory traffic.
    pub seconds: f64,
    /// Seconds of the ops that are limited by arithmetic.
    pub by_arithmetic: f64,
}

impl Floor {
    /// Computes the floor of one op.
    pub fn of(flops: f64, bytes: f64, ceilings: &Ceilings) -> Floor {
        let (arithmetic, traffic) = (flops / ceilings.flops, bytes / ceilings.bytes);
        let by_arithmetic = if arithmetic >= traffic { arithmetic } else { 0.0 };
        Floor { flops, bytes, seconds: arithmetic.max(traffic), by_arithmetic }
    }

    /// Computes the floor of ops that run one after another.
    pub fn sum(work: &[Work], ceilings: &Ceilings) -> Floor {
        work.iter().map(|w| Floor::of(w.flops, w.bytes, ceilings)).fold(Floor::default(), Floor::and)
    }

    /// Adds two floors.
    pub fn and(self, other: Floor) -> Floor {
        Floor {
            flops: self.flops + other.flops,
            bytes: self.bytes + other.bytes,
            seconds: self.seconds + other.seconds,
            by_arithmetic: self.by_arithmetic + other.by_arithmetic,
        }
    }

    /// Multiplies a floor by a number of repetitions.
    pub fn times(self, n: f64) -> Floor {
        Floor {
            flops: self.flops * n,
            bytes: self.bytes * n,
            seconds: self.seconds * n,
            by_arithmetic: self.by_arithmetic * n,
        }
    }

    /// Describes the limiting resource and its share of the time.
    pub fn bound(&self) -> String {
        let share = 100.0 * self.by_arithmetic / self.seconds.max(f64::MIN_POSITIVE);
        if share >= 50.0 {
            format!("arithmetic, {share:.0} % of the time")
        } else {
            format!("memory traffic, {:.0} % of the time", 100.0 - share)
        }
    }

    /// Formats the floor like `1.23 s   4.56 PFLOP   7.89 TB`.
    pub fn text(&self) -> String {
        format!("{:>10}  {:>9.3} PFLOP  {:>8.3} TB", seconds(self.seconds), self.flops / 1e15, self.bytes / 1e12)
    }

    /// Formats the floor as JSON.
    pub fn json(&self) -> Value {
        json!({ "seconds": self.seconds, "flops": self.flops, "bytes": self.bytes, "bound": self.bound() })
    }
}

/// Formats seconds with about three digits.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 1000.0 => format!("{s:.2} s"),
        s => format!("{:.2} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_op_takes_the_longer_of_the_two() {
        let ceilings = Ceilings { name: "a GPU", memory: 0, flops: 100.0, bytes: 10.0 };
        let work = |flops, bytes| Work { op: "op", flops, bytes, product: None, sequences: None };
        let floor = Floor::sum(&[work(200.0, 10.0), work(50.0, 10.0)], &ceilings);
        assert_eq!((floor.seconds, floor.by_arithmetic), (3.0, 2.0));
        assert_eq!((floor.flops, floor.bytes), (250.0, 20.0));
        assert_eq!(floor.bound(), "arithmetic, 67 % of the time");
        assert_eq!(floor.times(2.0).seconds, 6.0);
    }
}
