//! Units: the words after a number.

use super::lex::{Tok, Token};
use super::scalar::{FUNCTIONS, GREEK, is};

/// Short words that are units after a number.
const UNITS: [&str; 32] = [
    "mm", "cm", "dm", "km", "mg", "kg", "ml", "cl", "dl", "kl", "ft", "yd", "mi", "lb", "oz", "hr", "ms", "kN", "kW",
    "mA", "mV", "kV", "Hz", "Pa", "am", "pm", "AM", "PM", "th", "st", "nd", "rd",
];

/// Letters that are units when they stand alone at the end: `5 m`.
const LETTERS: [&str; 12] = ["m", "g", "s", "h", "L", "l", "N", "J", "W", "V", "K", "in"];

/// The unit that `rest`, all that follows a number, says; `None` when it says something else.
pub(super) fn read(rest: &[Token]) -> Option<String> {
    let first = rest.first()?;
    let degree = match rest {
        [a, b] => is(Some(a), '^') && is(Some(b), 'o'),
        [a, b, c, d] => is(Some(a), '^') && is(Some(b), '{') && is(Some(c), 'o') && is(Some(d), '}'),
        [a] => is(Some(a), 'o'),
        _ => false,
    };
    if degree {
        return Some("degree".to_owned());
    }
    let begins = match &first.tok {
        Tok::Text(_) => true,
        Tok::Word(w) => begins_unit(w, first.spaced, rest.len()),
        _ => is(Some(first), '%'),
    };
    let goes_on = |i: usize| match &rest[i].tok {
        Tok::Word(_) | Tok::Text(_) | Tok::Sym('^' | '{' | '}' | '/' | '%' | '(' | ')' | '-' | '*' | 'o') => true,
        // The exponent of cm^2 or m2, but no second number.
        Tok::Num(_) => i > 0 && !rest[i].spaced,
        _ => false,
    };
    if !begins || !(0..rest.len()).all(goes_on) {
        return None;
    }
    let text: Vec<String> = rest
        .iter()
        .filter_map(|t| match &t.tok {
            Tok::Word(w) | Tok::Text(w) | Tok::Num(w) => Some(w.trim().to_lowercase()),
            Tok::Sym(c @ ('/' | '%')) => Some(c.to_string()),
            _ => None,
        })
        .collect();
    Some(name(&text.concat()))
}

/// Whether a word after a number begins its unit, and is no variable or function.
fn begins_unit(word: &str, spaced: bool, words: usize) -> bool {
    if FUNCTIONS.contains(&word) || GREEK.contains(&word) || matches!(word, "sqrt" | "pi" | "infinity") {
        return false;
    }
    let letters = word.chars().count();
    let alone = spaced && words == 1 && LETTERS.contains(&word);
    UNITS.contains(&word) || letters >= 3 || (spaced && words > 1 && letters > 1) || alone
}

/// A unit under one name: no plural, no spaces, common names as signs.
fn name(text: &str) -> String {
    let known = text.trim().trim_end_matches('.');
    match known {
        "percent" | "percentage" | "pct" | "%" => return "%".to_owned(),
        "degrees" | "deg" => return "degree".to_owned(),
        "feet" | "foot" => return "ft".to_owned(),
        "inches" | "inch" => return "in".to_owned(),
        _ => {}
    }
    let single = if known.chars().count() > 3 { known.strip_suffix('s').unwrap_or(known) } else { known };
    single.replace(' ', "")
}
