//! Constant functions in words and by their values: "the zero function", `f \equiv 0`, "f(x) = 0 for all real x".

use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::reward::words::tables::{all_as, replaced};

/// Longest text.
const MAX: usize = 160;

/// The letter of a constant function, where it has one, and its value.
fn read(text: &str) -> Option<(Option<String>, String)> {
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| {
        let named = r"(?:the )?(?:constant )?(?:(zero) function|function ([0-9]+))";
        let valued = r"([a-zA-Z])(?:\(([xtzn])\) ?= ?|(?:\([xtzn]\))? ?\\equiv ?|(?:\([xtzn]\))? is identically (?:equal to )?)(-?[0-9]+|zero)(?: for (?:all|every|each|any) (?:real )?(?:numbers? )?[xtzn](?: ?\\in ?R)?)?";
        let one = format!("(?:{named}|{valued})");
        let lead = r"(?:(?:[a-zA-Z]+ )+(?:is|are) )?";
        Regex::new(&format!(r"^{lead}{one}(?:,? (?:i\.e\.,? |that is,? |namely,? )?{one})?$")).expect("a fixed pattern")
    });
    let plain = replaced(
        all_as(text, &["$", "\\left", "\\right", "\\,"], ""),
        &[("\\mathbb{R}", "R"), ("\u{211d}", "R"), ("\u{2208}", "\\in "), ("\u{2261}", "\\equiv "), ("\\quad", " ")],
    );
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    if plain.split(' ').any(|w| matches!(w, "not" | "no" | "never" | "besides" | "except")) {
        return None;
    }
    let found = WHOLE.captures(plain.trim_end_matches('.'))?;
    let part = |c: &Captures, n: usize| c.get(n).map(|m| m.as_str().replace("zero", "0"));
    // Each half has a value in one of three places, and a letter.
    let half = |from: usize| {
        let value = part(&found, from).or(part(&found, from + 1)).or(part(&found, from + 4))?;
        Some((part(&found, from + 2), value))
    };
    let (letter, value) = half(1)?;
    match half(6) {
        Some((other, again)) => (again == value).then(|| (letter.or(other), value)),
        None => Some((letter, value)),
    }
}

/// Whether two texts, one of them in words, tell the same constant function.
pub(in crate::reward) fn same_constant(gold: &str, answer: &str) -> Option<bool> {
    let told =
        |t: &str| t.contains("function") || t.contains(" for ") || t.contains("identically") || t.contains("equiv");
    if gold.len() > MAX || answer.len() > MAX || !(told(gold) || told(answer)) {
        return None;
    }
    let (a, b) = (read(gold)?, read(answer)?);
    let letters = a.0.is_none() || b.0.is_none() || a.0 == b.0;
    (letters && a.1 == b.1).then_some(true)
}
