//! What the parts of the page share: colours, percents, names.

use std::collections::BTreeSet;

use super::read::Run;
use crate::page::escape;

/// Colours of runs, in their order.
const HUES: [&str; 4] = ["rl", "sft", "control", "base"];

/// The colour of the run with this number.
pub(super) fn hue(i: usize) -> &'static str {
    HUES[i % HUES.len()]
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// The runs' names with their colours.
pub(super) fn legend(runs: &[Run]) -> String {
    let key = |(i, run): (usize, &Run)| format!("<span><i class=\"key {}\"></i>{}</span>", hue(i), escape(&run.name));
    format!("<p class=\"legend\">{}</p>", runs.iter().enumerate().map(key).collect::<String>())
}

/// The names that occur, sorted.
pub(super) fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    names.collect::<BTreeSet<String>>().into_iter().collect()
}
