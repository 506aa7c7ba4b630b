//! Intervals of confidence: "95% CI: 2.8 \pm 0.7", "the 95% confidence interval is (2.1, 3.5)", "from 2.1 to 3.5".

use std::sync::LazyLock;

use regex::Regex;

use super::Steps;
use super::compare::equal;
use super::described::{MAX, part, plain};
use super::parse::parse;

/// Whether two plain texts give the same interval, where one of them says that it is one of confidence.
pub(super) fn same_confidence(a: &str, b: &str, steps: &Steps) -> Option<bool> {
    if said_confident(a).is_empty() && said_confident(b).is_empty() {
        return None;
    }
    let ((level, x), (other, y)) = (confidence(a)?, confidence(b)?);
    let levels = level.is_empty() || other.is_empty() || level == other;
    Some(levels && equal(&parse(&x, true, steps), &parse(&y, true, steps), steps).equal)
}

/// True where both name the level of a confidence interval, and not the same.
pub(in crate::reward) fn another_level(gold: &str, answer: &str) -> bool {
    let named = |t: &str| {
        let short = t.len() <= MAX && t.contains('%');
        short.then(|| level(said_confident(&plain(t)))).filter(|l| !l.is_empty())
    };
    matches!((named(gold), named(answer)), (Some(a), Some(b)) if a != b)
}

/// The words before an interval that say that it is one of confidence; empty without them.
fn said_confident(text: &str) -> &str {
    static BEFORE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?i)^(?:the |a |an )?(?:approximate )?(?:(\d+(?:\.\d+)?)\s?\\?%\s)?(?:confidence interval|c\.?i\.?)(?: (?:for|of) [^=:]+?)?\s?(?: is|:|=)\s?(?:approximately |about |given by )?",
        )
        .expect("a fixed pattern")
    });
    BEFORE.find(text).map_or("", |m| m.as_str())
}

/// A confidence interval: its level where that is said, and the interval.
fn confidence(text: &str) -> Option<(String, String)> {
    static ENDS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"(?i)^(?:\(([^,()]+)\s?\\pm\s?([^,()]+)\)|([^\s,()]+)\s?\\pm\s?([^\s,()]+)|[(\[]([^,]+),\s?([^,]+)[)\]]|(?:from |between )?([\d.\\%-]+) (?:to|and) ([\d.\\%-]+)|([\d.-]+)\s?(?:<|\\leq?|\u{2264})\s?[^\d<]+?\s?(?:<|\\leq?|\u{2264})\s?([\d.-]+))$",
        )
        .expect("a fixed pattern")
    });
    let before = said_confident(text);
    let c = ENDS.captures(text[before.len()..].trim())?;
    let level = level(before);
    let joined = |n: [usize; 2]| n.map(|n| part(&c, n)).concat();
    let centre = joined([1, 3]);
    let (low, high) = if centre.is_empty() {
        (joined([5, 7]) + part(&c, 9), joined([6, 8]) + part(&c, 10))
    } else {
        let off = joined([2, 4]);
        (format!("{centre}-({off})"), format!("{centre}+({off})"))
    };
    Some((level, format!("({low}, {high})")))
}

/// The level that stands before a percent sign; empty without one.
fn level(words: &str) -> String {
    let number = words.split_once('%').map_or("", |(number, _)| number);
    number.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect()
}
