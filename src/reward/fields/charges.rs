//! Oxidation states and charges: `+6`, `+VI`, `6+`, "iron is +3 and oxygen is -2".

use super::super::chemistry::element;
use super::super::math;
use super::super::words::tables::all_as;

fn plain(text: &str) -> String {
    const FACES: [&str; 8] = ["\\text", "\\mathrm", "\\(", "\\)", "$", "{", "}", "^"];
    let text = all_as(math::ascii(text), &FACES, "");
    text.trim().trim_end_matches('.').to_owned()
}

/// A charge, and whether it is written as none of arithmetic's numbers: in Roman numerals, or with its sign behind it.
fn charge(text: &str) -> Option<(i64, bool)> {
    const FRAMES: [&str; 9] = [
        "the oxidation state is ",
        "the oxidation number is ",
        "an oxidation state of ",
        "an oxidation number of ",
        "oxidation state of ",
        "oxidation number of ",
        "oxidation state ",
        "oxidation number ",
        "the ",
    ];
    let mut text = text.trim();
    while let Some(rest) = FRAMES.iter().find_map(|f| text.strip_prefix(f)) {
        text = rest;
    }
    let text =
        [" oxidation state", " oxidation number", " state"].iter().find_map(|f| text.strip_suffix(f)).unwrap_or(text);
    let sign = |c: Option<char>| match c {
        Some('+') => Some(1),
        Some('-') => Some(-1),
        _ => None,
    };
    let roman = |t: &str| match t {
        "I" => Some(1),
        "V" => Some(5),
        t => math::roman(t).map(i64::from).filter(|n| *n < 9),
    };
    let digit = |t: &str| (t.len() == 1).then(|| t.parse::<i64>().ok())?;
    let (first, last) = (sign(text.chars().next()), sign(text.chars().next_back()));
    match (first, last) {
        (Some(s), None) => roman(&text[1..]).map(|n| (s * n, true)).or_else(|| Some((s * digit(&text[1..])?, false))),
        (None, Some(s)) => Some((s * digit(&text[..text.len() - 1])?, true)),
        (None, None) if text == "0" => Some((0, false)),
        (None, None) => math::roman(text).map(|n| (i64::from(n), true)),
        _ => None,
    }
}

/// The sign of an element by its sign or its name.
fn sign(text: &str) -> Option<String> {
    let text = text.trim();
    let text = ["the oxidation state of ", "the ", "each ", "The ", "Each "]
        .iter()
        .find_map(|f| text.strip_prefix(f))
        .unwrap_or(text);
    let letters = (1..=2).contains(&text.len()) && text.starts_with(|c: char| c.is_ascii_uppercase());
    element(&text.to_lowercase()).map(str::to_owned).or_else(|| letters.then(|| text.to_owned()))
}

/// Several elements with their charges, in the order of their signs.
fn charges(text: &str) -> Option<Vec<(String, i64)>> {
    let parted = all_as(text, &[", and ", " and ", " while ", ";"], ",");
    let one = |part: &str| {
        let cuts = [":", "=", " is ", " has ", " are "];
        let (name, value) = cuts.iter().find_map(|cut| part.split_once(cut))?;
        Some((sign(name)?, charge(value)?.0))
    };
    let mut all: Vec<(String, i64)> =
        parted.split(',').map(str::trim).filter(|p| !p.is_empty()).map(one).collect::<Option<_>>()?;
    all.sort();
    (all.len() > 1 && all.windows(2).all(|w| w[0].0 != w[1].0)).then_some(all)
}

pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let (gold, answer) = (plain(gold), plain(answer));
    if let Some(a) = charges(&gold)
        && let Some(b) = charges(&answer)
    {
        return Some(a == b);
    }
    let ((a, marked), (b, written)) = (charge(&gold)?, charge(&answer)?);
    // "3-" is no way to write a number.
    if a < 0 && answer.ends_with('-') {
        return None;
    }
    // Two Roman numerals, or two plain numbers, are compared elsewhere.
    (marked != written).then_some(a == b)
}
