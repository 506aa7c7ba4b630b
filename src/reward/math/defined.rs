//! Letters of an answer that are defined behind it: `A\cos(\omega t)`, where `\omega = \sqrt{k/m}`.

use std::sync::LazyLock;

use regex::Regex;

use super::Steps;
use super::compare::equal;
use super::over::{letters, substituted};
use super::parse::{Value, parse};
use crate::reward::words::tables::replaced;

/// Longest text that is taken apart.
const MAX: usize = 300;

/// Whether two answers are equal with what their letters stand for in the place of those letters.
pub(in crate::reward) fn same_defined(gold: &str, answer: &str, steps: &Steps) -> bool {
    let (a, b) = (spelled_out(gold, steps), spelled_out(answer, steps));
    if a.is_none() && b.is_none() {
        return false;
    }
    let value = |v: Option<Value>, text: &str| v.unwrap_or_else(|| parse(text, true, steps));
    equal(&value(a, gold), &value(b, answer), steps).equal
}

/// True where both define letters behind them, and come to other values with these.
pub(in crate::reward) fn defined_otherwise(gold: &str, answer: &str, steps: &Steps) -> bool {
    spelled_out(gold, steps).is_some_and(|a| spelled_out(answer, steps).is_some_and(|b| !equal(&a, &b, steps).equal))
}

/// The value before "where" with the letters that are defined behind it written out.
fn spelled_out(text: &str, steps: &Steps) -> Option<Value> {
    static WHERE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^(.+?)[,;]? (?:where|with|in which) (.+)$").expect("a fixed pattern"));
    if text.len() > MAX || !text.contains('=') {
        return None;
    }
    const SPACES: [(&str, &str); 5] = [
        ("$", ""),
        ("\\text{where}", " where "),
        ("\\text{with}", " with "),
        ("\\text{ where }", " where "),
        ("\\quad", " "),
    ];
    let plain = replaced(text, &SPACES);
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if ![" where ", " with ", " in which "].iter().any(|w| plain.contains(w)) {
        return None;
    }
    let parts = WHERE.captures(&plain)?;
    let value = parse(parts.get(1)?.as_str(), true, steps);
    let definitions = match parse(parts.get(2)?.as_str(), true, steps) {
        Value::List(items) => items,
        one => vec![one],
    };
    let used = letters(&value);
    definitions.iter().try_fold(value, |value, d| match d {
        Value::Assignment(name, meaning) if used.contains(name) => match &**meaning {
            Value::Scalar(e, None) if !e.variables().contains(name) => Some(substituted(&value, name, e)),
            _ => None,
        },
        _ => None,
    })
}
