//! Result of a comparison.

/// Result of comparing two answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// True if the answers are equal.
    pub equal: bool,
    /// Name of the rule that decided.
    pub why: &'static str,
}

pub(crate) fn yes(why: &'static str) -> Comparison {
    Comparison { equal: true, why }
}

pub(crate) fn no(why: &'static str) -> Comparison {
    Comparison { equal: false, why }
}

pub(crate) fn outcome(same: bool, equal: &'static str, different: &'static str) -> Comparison {
    if same { yes(equal) } else { no(different) }
}
