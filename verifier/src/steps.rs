//! Types of both modes: rational numbers, the work budget and the verdict.

use std::cell::Cell;

/// An exact rational number.
pub type Rational = num_rational::Ratio<num_bigint::BigInt>;

/// Returns the root of a perfect power.
pub(crate) fn perfect_root(x: &Rational, root: u32) -> Option<Rational> {
    let (n, d) = (x.numer().nth_root(root), x.denom().nth_root(root));
    (n.pow(root) == *x.numer() && d.pow(root) == *x.denom()).then(|| Rational::new(n, d))
}

/// A work budget in steps. One step is 10 to 15 nanoseconds of work.
pub struct Steps {
    left: Cell<u64>,
    budget: u64,
}

/// Number of steps that one verdict may take, about 35 ms.
pub const BUDGET: u64 = 2_500_000;

impl Steps {
    /// Creates a budget of `budget` steps.
    pub fn new(budget: u64) -> Self {
        Steps { left: Cell::new(budget), budget }
    }

    /// Uses `n` steps. Returns `None` if fewer than `n` steps are left; then the budget becomes empty.
    pub fn spend(&self, n: u64) -> Option<()> {
        let left = self.left.get().checked_sub(n);
        self.left.set(left.unwrap_or(0));
        left.map(drop)
    }

    /// Returns the number of steps used so far.
    pub fn taken(&self) -> u64 {
        self.budget - self.left.get()
    }

    /// Returns true if no steps are left.
    pub fn exhausted(&self) -> bool {
        self.left.get() == 0
    }
}

/// Result of comparing an answer with the gold answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// True if the two answers are equal.
    pub equal: bool,
    /// The gold answer as the verifier understood it.
    pub gold_parsed: String,
    /// The answer as the verifier understood it.
    pub answer_parsed: String,
    /// Name of the rule that decided.
    pub why: &'static str,
    /// Number of steps that the comparison took. It is the same on every machine.
    pub steps: u64,
}
