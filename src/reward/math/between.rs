//! What a function gains between two bounds, and its value at a place: `\left. x^3/3 \right|_0^1`, `x^2|_{x=3}`.

use std::sync::LazyLock;

use regex::Regex;

use super::Steps;
use super::expr::{Expr, minus};
use super::parse::{Value, parse};

/// Longest text that is read so.
const MAX_BYTES: usize = 400;

/// Reads a text that is as a whole a function with bounds behind a bar or square brackets.
pub(super) fn read(text: &str, steps: &Steps) -> Option<Value> {
    static BAR: LazyLock<Regex> = LazyLock::new(|| {
        let bound = r"(\{(?:[^{}]|\{[^{}]*\})*\}|\\?\w+)";
        let bar = r"(?:\\right|\\[bB]igg?r?|\\middle)?\s*(\||\]|\\r?vert)";
        Regex::new(&format!(r"^(.+?)\s*{bar}\s*_\s*{bound}\s*(?:\^\s*{bound})?$")).expect("a fixed pattern")
    });
    if text.len() > MAX_BYTES || !text.contains('_') || !text.contains(['|', ']', 't']) {
        return None;
    }
    let found = BAR.captures(text)?;
    let part = |n: usize| found.get(n).map(|m| m.as_str());
    let (mut function, square) = (part(1)?.trim(), part(2)? == "]");
    for opening in ["\\left", "\\bigl", "\\Bigl", "\\biggl", "\\Biggl", "\\big", "\\Big", "\\bigg", "\\Bigg"] {
        if let Some(rest) = function.strip_prefix(opening).filter(|r| r.starts_with(['.', '[', '('])) {
            function = rest.strip_prefix('.').unwrap_or(rest);
            break;
        }
    }
    if square {
        function = function.strip_prefix('[')?;
    }
    // |x|_1 is a norm.
    if function.contains('|') || function.contains("vert") {
        return None;
    }
    let Value::Scalar(f, None) = parse(function, true, steps) else { return None };
    let bound = |text: &str| {
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        let (name, at) = inner.split_once('=').map_or((None, inner), |(n, a)| (Some(n.trim().to_owned()), a));
        match parse(at, true, steps) {
            Value::Scalar(e, None) => Some((name, e)),
            _ => None,
        }
    };
    let (name, low) = bound(part(3)?)?;
    let variables = f.variables();
    let name = match (name, variables.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only.clone(),
        _ => return None,
    };
    let at = |e: &Expr| f.replace(&name, e);
    let value = match part(4) {
        Some(high) => minus(at(&bound(high)?.1), at(&low)),
        // An index alone says no place.
        None if part(3)?.contains('=') => at(&low),
        None => return None,
    };
    Some(Value::Scalar(value, None))
}
