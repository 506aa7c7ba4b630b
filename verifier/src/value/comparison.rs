//! What a comparison found.

/// Whether two answers are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Whether they are.
    pub equal: bool,
    /// By which rule.
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
