//! An amount that goes from one named point to another: "3 A from P to Q" is "-3 A from Q to P".

use super::{Steps, equal};

struct Flow<'a> {
    amount: &'a str,
    from: &'a str,
    to: &'a str,
}

fn read(text: &str) -> Option<Flow<'_>> {
    let (head, ends) = text.trim().trim_end_matches('.').rsplit_once(" from ")?;
    let (from, to) = ends.split_once(" to ")?;
    let bare = |t: &str| t.trim_matches(['$', ' ']).len();
    let point = |t: &str| {
        let t = t.trim_matches(['$', ' ']);
        bare(t) <= 2 && t.starts_with(|c: char| c.is_ascii_uppercase()) && t.chars().all(|c| c.is_ascii_alphanumeric())
    };
    // What stands before the amount: "a current of", "the current is".
    let at = head.find(|c: char| c.is_ascii_digit() || matches!(c, '-' | '\u{2212}' | '+' | '$' | '\\'))?;
    let words = head[..at].chars().all(|c| c.is_alphabetic() || c == ' ');
    let amount =
        head[at..].strip_suffix(" flowing").or_else(|| head[at..].strip_suffix(" flows")).unwrap_or(&head[at..]);
    (words && point(from) && point(to) && from != to).then_some(Flow { amount, from, to })
}

/// A way without an amount: "from A to B", `A \\to B`.
fn way(text: &str) -> Option<(String, String)> {
    const LONGEST: usize = 40;
    if text.len() > LONGEST || !(text.contains("to") || text.contains("arrow") || text.contains(['\u{2192}', '>'])) {
        return None;
    }
    let text = ["\\rightarrow", "\\to", "->", "\u{2192}"].iter().fold(text.to_owned(), |t, a| t.replace(a, " to "));
    let text = text.trim().trim_end_matches('.');
    let (from, to) = text.strip_prefix("from ").or(text.strip_prefix("From ")).unwrap_or(text).split_once(" to ")?;
    let point = |t: &str| {
        let t = t.trim_matches(['$', ' ']).trim_start_matches("point ").to_owned();
        let named = t.starts_with(|c: char| c.is_ascii_uppercase()) && t.chars().skip(1).all(|c| c.is_ascii_digit());
        (named && t.len() < 4).then_some(t)
    };
    Some((point(from)?, point(to)?))
}

pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    if let (Some(a), Some(b)) = (way(gold), way(answer)) {
        return Some(a == b);
    }
    let (a, b) = (read(gold)?, read(answer)?);
    if a.from == b.from && a.to == b.to {
        return Some(equal(a.amount, b.amount, steps));
    }
    let turned = match b.amount.strip_prefix(['-', '\u{2212}']) {
        Some(amount) => amount.to_owned(),
        None => format!("-{}", b.amount.trim_start_matches('+')),
    };
    Some(a.from == b.to && a.to == b.from && equal(a.amount, &turned, steps))
}
