//! What an answer of equal values says against itself, or against the gold answer.

use super::compare::compare;
use super::math::{self, Steps};
use super::verify::MAX_SENTENCE;

/// What an answer of equal values says against itself, or against the gold answer: `found` is what was found in
/// `answer`, `whole` the answer without its wrappers.
pub(super) fn contradiction(gold: &str, found: &str, answer: &str, whole: &str, steps: &Steps) -> Option<&'static str> {
    let short = answer.len() < MAX_SENTENCE;
    if short && whole.contains(" outside ") && !gold.contains("outside") {
        return Some("what lies outside");
    }
    let quantified = |t: &str, signs: [&str; 2]| signs.iter().any(|s| t.contains(s));
    let other = |signs: [&str; 2]| quantified(gold, signs) != quantified(found, signs);
    let negated = |t: &str| quantified(t, ["neg", "\u{ac}"]) || quantified(t, ["\\lnot", "not"]);
    if !negated(gold) && !negated(found) && other(["\\exists", "\u{2203}"]) && other(["\\forall", "\u{2200}"]) {
        return Some("another quantifier");
    }
    if short && reordered(gold, found, whole) {
        return Some("another order");
    }
    if math::parts_differ(gold, found, steps) {
        return Some("another part");
    }
    if short && !answer.contains("boxed") && math::turned(gold, whole) {
        return Some("different directions");
    }
    if short && math::another_level(gold, whole) {
        return Some("another level of confidence");
    }
    if short && math::another_divisor(gold, whole) {
        return Some("another divisor");
    }
    if short && math::defined_otherwise(gold, whole, steps) {
        return Some("other meanings of the letters");
    }
    if math::concluded_otherwise(gold, found) {
        return Some("another conclusion");
    }
    if math::another_extremum(gold, found, steps) && math::another_extremum(gold, whole, steps) {
        return Some("another extremum");
    }
    if math::counted_otherwise(gold, found) {
        return Some("other counts of a solid's parts");
    }
    // "x is 5" is no y = 5.
    let letter = |t: &str| {
        let name = t.rsplit(' ').next().unwrap_or_default().trim_matches('$');
        (name.len() == 1 && name != "a" && name.chars().all(char::is_alphabetic)).then(|| name.to_owned())
    };
    let value = |t: &str| t.len() < 24 && t.starts_with(|c: char| c.is_ascii_digit() || "$-+".contains(c));
    if let (Some(asked), Some(said)) = (
        gold.split_once('=').and_then(|(n, _)| letter(n.trim())),
        answer.rsplit_once(" is ").filter(|(_, v)| value(v)).and_then(|(s, _)| letter(s)),
    ) && asked != said
    {
        return Some("different names");
    }
    // "7 is wrong" is no 7.
    const WRONG: [&str; 8] = [
        " is incorrect",
        " is wrong",
        " is not correct",
        " is not right",
        " is false",
        " is ruled out",
        " is impossible",
        " is not the answer",
    ];
    let denied = WRONG.iter().find_map(|w| found.strip_suffix(w))?;
    compare(gold, denied, steps).0.then_some("said to be wrong")
}

/// True for the same names in another order, where the answer says that it is an order.
fn reordered(gold: &str, found: &str, whole: &str) -> bool {
    let ordered = ["order", "ranking", "ranked", "sequence"];
    if !whole.split(' ').any(|w| ordered.contains(&w.trim_end_matches([':', ',']))) {
        return false;
    }
    let names = |text: &str| {
        let text = text.replace(", and ", ", ").replace(" and ", ", ");
        let names: Vec<String> = text.split(", ").map(|n| n.trim().to_lowercase()).collect();
        let plain = names.len() > 2 && names.iter().all(|n| n.starts_with(char::is_alphabetic) && !n.contains('='));
        plain.then_some(names)
    };
    let (Some(a), Some(b)) = (names(gold), names(found)) else { return false };
    a != b && a.len() == b.len() && a.iter().all(|n| b.contains(n))
}
