//! Values with errors: "200 ± 2%" is "200 ± 4", and errors that differ upwards and downwards.

use super::{Steps, equal};
use crate::reward::words::tables::replaced;

fn plain(text: &str) -> String {
    replaced(text, &[("\\%", "%"), ("\\pm", "\u{b1}"), ("+/-", "\u{b1}"), ("\u{2212}", "-")]).into_owned()
}

fn number(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.matches('.').count() <= 1
}

/// An error in percent of a value that is none itself as one in the value's unit: "50 V ± 2%" as "50 V ± 50*2/100 V".
pub(in crate::reward) fn absolute(text: &str) -> Option<String> {
    let text = plain(text);
    let (value, error) = text.split_once('\u{b1}')?;
    let error = error.trim().strip_suffix('%')?.trim();
    let value = value.trim();
    let (digits, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.len()));
    let share =
        || Some(digits.parse::<f64>().ok()? * error.parse::<f64>().ok()? / 100.0).filter(|x: &f64| x.is_finite());
    if !number(digits) || !number(error) || unit.contains(['%', '\u{b1}', '(', ')', ',']) {
        return None;
    }
    // Shortest digits; products of short decimals come out a little off.
    let share = format!("{:.9}", share()?);
    let share = share.trim_end_matches('0').trim_end_matches('.');
    Some(format!("{digits}{unit} \\pm {share}{unit}"))
}

/// The value, the error upwards, the error downwards, and the unit.
fn lopsided(text: &str) -> Option<[String; 4]> {
    let text: String = plain(text).chars().filter(|c| !matches!(c, '{' | '}' | '$' | '^' | '_' | ' ' | '/')).collect();
    let at = text.find(['+', '-', '(']).filter(|&n| n > 0)?;
    let (value, rest) = text.split_at(at);
    let open = rest.starts_with('(');
    let rest = rest.trim_start_matches('(');
    let sign = rest.chars().next().filter(|c| matches!(c, '+' | '-'))?;
    let other = if sign == '+' { '-' } else { '+' };
    let (first, rest) = rest[1..].split_once(other)?;
    let first = first.trim_end_matches(',');
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (second, tail) = rest.split_at(end);
    let unit = if open { tail.strip_prefix(')')? } else { tail };
    let (up, down) = if sign == '+' { (first, second) } else { (second, first) };
    let known = [value, up, down].iter().all(|t| number(t)) && !unit.contains(['+', '-', '(', ')']);
    known.then(|| [value, up, down, unit].map(str::to_owned))
}

/// Both with errors in two directions; marked by signs above and below the line or by a stroke between them.
pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    let marked = |t: &str| t.contains("^{+") || t.contains("_{-") || (t.contains('/') && t.contains('+'));
    if !marked(gold) || !marked(answer) {
        return None;
    }
    let (a, b) = (lopsided(gold)?, lopsided(answer)?);
    Some((0..3).all(|n| equal(&format!("{} {}", a[n], a[3]), &format!("{} {}", b[n], b[3]), steps)))
}
