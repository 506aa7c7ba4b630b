//! What both modes of the verifier are made of: rational numbers, a budget of work, a verdict.

use std::cell::Cell;

/// An exact rational number.
pub type Rational = num_rational::Ratio<num_bigint::BigInt>;

/// A budget of steps; a step is some ten nanoseconds of work.
pub struct Steps {
    left: Cell<u64>,
    budget: u64,
}

/// Steps one verdict may take: some 35 ms.
pub const BUDGET: u64 = 2_500_000;

impl Steps {
    /// A full budget.
    pub fn new(budget: u64) -> Self {
        Steps { left: Cell::new(budget), budget }
    }

    /// Takes `n` steps; `None` when the budget is used up.
    pub fn spend(&self, n: u64) -> Option<()> {
        match self.left.get().checked_sub(n) {
            Some(left) => {
                self.left.set(left);
                Some(())
            }
            None => {
                self.left.set(0);
                None
            }
        }
    }

    /// Steps taken so far.
    pub fn taken(&self) -> u64 {
        self.budget - self.left.get()
    }

    /// True when nothing is left.
    pub fn exhausted(&self) -> bool {
        self.left.get() == 0
    }
}

/// The verifier's word.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Whether they are equal.
    pub equal: bool,
    /// The gold answer as it was understood.
    pub gold_parsed: String,
    /// The answer as it was understood.
    pub answer_parsed: String,
    /// Which rule decided.
    pub why: &'static str,
    /// Steps of work that the comparison took; the same on every machine.
    pub steps: u64,
}
