//! Endless sets of whole numbers in words and by a form: "all odd integers n >= 3" and `n = 2k+1` where `k >= 1` is an
//! integer. Both are read as their members between two bounds.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::expr::integer;
use super::parse::{Value, parse};
use super::{Rational, Steps, exact};
use crate::reward::words::tables::{all_as, replaced};

/// Longest text.
const MAX: usize = 160;
/// Members are told between this and its negative.
const REACH: i64 = 200;
/// Largest number in a text: sets that differ do so within the reach.
const LARGEST: i64 = 60;

/// Whether two texts, one of them in words, name the same endless set of whole numbers.
pub(in crate::reward) fn same_whole(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    const WORDS: [&str; 7] = ["integer", "multiple", "power", "square", "cube", "odd", "even"];
    let told = |t: &str| t.len() <= MAX && WORDS.iter().any(|w| t.contains(w));
    if gold.len().max(answer.len()) > MAX || !(told(gold) || told(answer)) {
        return None;
    }
    steps.spend(4_000)?;
    let (a, b) = (plain(gold), plain(answer));
    let (x, y) = (in_words(&a), in_words(&b));
    if x.is_none() && y.is_none() {
        return None;
    }
    let a = x.or_else(|| by_form(&a, steps))?;
    let b = y.or_else(|| by_form(&b, steps))?;
    (a.len() > 2 && b.len() > 2).then_some(a == b)
}

/// The text in small letters and plain signs, its numbers and signs apart.
fn plain(text: &str) -> String {
    const FACES: [&str; 14] = [
        "$", "\\text", "\\mathrm", "\\mathbb", "\\left", "\\right", "\\{", "\\}", "\\,", "\\;", "\\ ", "\\quad", "\\(",
        "\\)",
    ];
    const SIGNS: [(&str, &str); 20] = [
        ("\\geqslant", ">="),
        ("\\geq", ">="),
        ("\\ge", ">="),
        ("\u{2265}", ">="),
        ("\\leq", "<="),
        ("\\le", "<="),
        ("\u{2264}", "<="),
        ("\\neq", "!="),
        ("\\ne", "!="),
        ("\u{2260}", "!="),
        ("\\gt", ">"),
        ("\\lt", "<"),
        ("\\in", " in "),
        ("\u{2208}", " in "),
        ("\u{2124}", "Z"),
        ("\\ldots", "..."),
        ("\\dots", "..."),
        ("\\cdots", "..."),
        ("\\mid", " : "),
        ("\u{2026}", "..."),
    ];
    let text = replaced(all_as(replaced(text, &SIGNS), &FACES, " "), &[("non-", "non"), ("{Z}", "Z"), ("{N}", "N")]);
    let text = text.trim();
    let text = if text.ends_with("...") { text } else { text.trim_end_matches('.') };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The members that words name, each of them a bound on the others.
fn in_words(text: &str) -> Option<BTreeSet<i64>> {
    static PARTS: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"-?\d+|[a-zA-Z]+|[<>!]=|[^\s]").expect("a fixed pattern"));
    const IDLE: [&str; 24] = [
        "the",
        "set",
        "of",
        "that",
        "which",
        "are",
        "is",
        "a",
        "an",
        "such",
        "with",
        "where",
        "number",
        "numbers",
        "it",
        "works",
        "for",
        "holds",
        "only",
        "exactly",
        "precisely",
        ",",
        "satisfying",
        "perfect",
    ];
    let lower = text.to_lowercase();
    let parts: Vec<&str> = PARTS.find_iter(&lower).map(|m| m.as_str()).collect();
    let number = |at: usize| parts.get(at)?.parse::<i64>().ok().filter(|n| n.abs() <= LARGEST);
    let (mut members, mut whole, mut every): (BTreeSet<i64>, _, _) = ((-REACH..=REACH).collect(), false, false);
    let mut at = 0;
    let mut letter = "";
    while let Some(&part) = parts.get(at) {
        let next = parts.get(at + 1).copied().unwrap_or_default();
        at += 1;
        match part {
            "all" | "every" | "any" | "each" => every = true,
            "integer" | "integers" | "whole" => whole = true,
            "positive" | "natural" => {
                members.retain(|n| *n > 0);
                whole |= part == "natural";
            }
            "negative" => members.retain(|n| *n < 0),
            "nonnegative" => members.retain(|n| *n >= 0),
            "nonzero" => members.retain(|n| *n != 0),
            "odd" | "even" => {
                members.retain(|n| (n % 2 == 0) == (part == "even"));
                whole = true;
            }
            "multiple" | "multiples" | "divisible" if matches!(next, "of" | "by") => {
                let step = number(at + 1).filter(|n| *n > 0)?;
                members.retain(|n| n % step == 0);
                (at, whole) = (at + 2, true);
            }
            "power" | "powers" if next == "of" => {
                let base = number(at + 1).filter(|n| *n > 1)?;
                let powers: BTreeSet<i64> =
                    std::iter::successors(Some(1), |n| Some(n * base)).take_while(|n| *n <= REACH).collect();
                members.retain(|n| powers.contains(n));
                (at, whole) = (at + 2, true);
            }
            "square" | "squares" | "cube" | "cubes" => {
                let power = if part.starts_with('s') { 2 } else { 3 };
                members.retain(|n| (-REACH..=REACH).any(|k: i64| k.checked_pow(power) == Some(*n)));
                whole = true;
            }
            ">=" | ">" | "<=" | "<" | "!=" => {
                let bound = number(at)?;
                members.retain(|n| match part {
                    ">=" => *n >= bound,
                    ">" => *n > bound,
                    "<=" => *n <= bound,
                    "<" => *n < bound,
                    _ => *n != bound,
                });
                at += 1;
            }
            "except" | "excluding" | "but" | "besides" | "other" | "apart" => {
                at += usize::from(matches!(next, "than" | "from" | "not" | "for"));
                members.remove(&number(at)?);
                at += 1;
                while matches!(parts.get(at), Some(&("and" | ","))) && number(at + 1).is_some() {
                    members.remove(&number(at + 1)?);
                    at += 2;
                }
            }
            w if IDLE.contains(&w) => {}
            w if matches!(w, "n" | "k" | "m" | "x") && (letter.is_empty() || letter == w) => letter = w,
            _ => return None,
        }
    }
    (whole && every).then_some(members)
}

/// The members that a form with a counting letter has: `2k+1` for `k = 0, 1, 2, ...`.
fn by_form(text: &str, steps: &Steps) -> Option<BTreeSet<i64>> {
    static FORM: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:[nmxNM] ?= ?)?([^,:=<>]*?)(?: ?, ?| : | )(?:(?:where|with|for|and) )?((?:[a-z]+ )*[a-z](?: .*|[=<>].*)?)$").expect("a fixed pattern")
    });
    let found = FORM.captures(text)?;
    let Value::Scalar(form, None) = parse(found.get(1)?.as_str(), true, steps) else { return None };
    let [name] = &form.variables()[..] else { return None };
    let (from, to) = counter(found.get(2)?.as_str(), name)?;
    let limit = Rational::from_integer((4 * REACH).into());
    let mut members = BTreeSet::new();
    let ways: [Vec<i64>; 2] = [(from.max(0)..=to).collect(), (from..0).rev().collect()];
    for way in ways {
        for k in way {
            let value = exact::exact(&form.replace(name, &integer(k)), steps)?;
            if value > limit || value < -limit.clone() {
                break;
            }
            if !value.is_integer() {
                return None;
            }
            members.extend(i64::try_from(value.numer()).ok().filter(|n| n.abs() <= REACH));
        }
    }
    Some(members)
}

/// From where to where a counting letter runs: "k >= 1 is an integer", `k = 0, 1, 2, ...`, `k in Z`.
fn counter(said: &str, name: &str) -> Option<(i64, i64)> {
    const MOST: i64 = 2 * REACH;
    const IDLE: [&str; 14] =
        ["is", "an", "a", "any", "some", "for", "all", "every", "where", "with", "and", "arbitrary", "an", "each"];
    let spaced = replaced(said, &[(">=", " >= "), ("!=", " != "), (",", " , "), ("...", " ... ")]);
    let spaced = if spaced.contains(">=") { spaced } else { replaced(spaced, &[("=", " = "), (">", " > ")]) };
    let parts: Vec<&str> = spaced.split_whitespace().collect();
    let (mut from, mut whole, mut named, mut at) = (-MOST, false, false, 0);
    while let Some(&part) = parts.get(at) {
        at += 1;
        let number = |at: usize| parts.get(at)?.parse::<i64>().ok().filter(|n| n.abs() <= LARGEST);
        match part {
            _ if part == name => named = true,
            ">=" => (from, at) = (from.max(number(at)?), at + 1),
            ">" => (from, at) = (from.max(number(at)? + 1), at + 1),
            "integer" | "integers" => whole = true,
            "positive" | "natural" => (from, whole) = (from.max(1), whole || part == "natural"),
            "number" if parts.contains(&"natural") => {}
            "nonnegative" => from = from.max(0),
            "in" => {
                whole = true;
                from = match *parts.get(at)? {
                    "Z" => from,
                    "N" | "Z^+" | "Z^{+}" | "Z_+" | "Z_{+}" => from.max(1),
                    _ => return None,
                };
                at += 1;
            }
            // Several in a row, and so on.
            "=" => {
                let row = parts.get(at..)?.strip_suffix(&["..."])?;
                let row = row.strip_suffix(&[","]).unwrap_or(row);
                let numbers: Vec<i64> =
                    row.iter().filter(|p| **p != ",").map(|p| p.parse().ok()).collect::<Option<_>>()?;
                let steady = numbers.len() > 1 && numbers.windows(2).all(|w| w[1] == w[0] + 1);
                return (named && steady && numbers[0].abs() <= LARGEST).then_some((numbers[0], MOST));
            }
            "," => {}
            w if IDLE.contains(&w) => {}
            _ => return None,
        }
    }
    (named || whole).then_some(())?;
    whole.then_some((from, MOST))
}
