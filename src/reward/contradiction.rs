//! What an answer of equal values says against itself, or against the gold answer.

use super::answer::bare;
use super::compare::compare;
use super::math::{self, Steps};
use super::verify::MAX_SENTENCE;

/// What an answer of equal values says against itself, or against the gold answer.
pub(super) fn contradiction(gold: &str, found: &str, answer: &str, steps: &Steps) -> Option<&'static str> {
    if math::parts_differ(gold, found, steps) {
        return Some("another part");
    }
    if answer.len() < MAX_SENTENCE && !answer.contains("boxed") && math::turned(gold, &bare(answer)) {
        return Some("different directions");
    }
    if answer.len() < MAX_SENTENCE && math::another_level(gold, &bare(answer)) {
        return Some("another level of confidence");
    }
    if answer.len() < MAX_SENTENCE && math::another_divisor(gold, &bare(answer)) {
        return Some("another divisor");
    }
    if answer.len() < MAX_SENTENCE && math::defined_otherwise(gold, &bare(answer), steps) {
        return Some("other meanings of the letters");
    }
    if math::concluded_otherwise(gold, found) {
        return Some("another conclusion");
    }
    if math::another_extremum(gold, found, steps) && math::another_extremum(gold, &bare(answer), steps) {
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
