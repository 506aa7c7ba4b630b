//! The unit that words and signs behind a number say.

use super::lex::{Tok, Token};
use super::scalar::{GREEK, is, is_cmd};
use super::unit::{self, Part, Unit};

/// The unit that `rest`, all that follows, says; `None` when it says something else. Without a number before it
/// only words in `\text` are a unit.
pub(super) fn trailing(rest: &[Token], after_number: bool) -> Option<Unit> {
    let first = rest.first()?;
    let begins = match &first.tok {
        Tok::Text(t) => !super::function::is_function(t.trim()) || t.trim() == "min",
        Tok::Word(w) => after_number && begins_unit(w, first.spaced, rest.len()),
        Tok::Cmd(c) => c == "circ" || (matches!(c.as_str(), "mu" | "Omega") && after_number),
        Tok::Sym(c) => {
            matches!(c, '%' | '^' | '\u{20ac}' | '\u{a3}' | '\u{a5}' | '$')
                || (*c == '*' && matches!(rest.get(1).map(|t| &t.tok), Some(Tok::Text(_))))
        }
        Tok::Num(_) => false,
    };
    if !begins {
        return None;
    }
    let mut words: Vec<(String, i32)> = Vec::new();
    let (mut at, mut over) = (0, 1);
    let name = |words: &mut Vec<(String, i32)>, text: &str, over: i32| {
        // "square" and "cubic" belong to the next word; unknown words to each other.
        let joined = words.last_mut().filter(|(w, _)| {
            let last = w.to_lowercase();
            matches!(last.as_str(), "square" | "sq" | "sq." | "cubic" | "cu" | "cu." | "u")
                || (unit::word(w).is_none() && unit::word(text).is_none())
        });
        match joined {
            Some((w, _)) if w == "u" => w.push_str(text),
            Some((w, _)) => {
                w.push(' ');
                w.push_str(text);
            }
            None => words.push((text.to_owned(), over)),
        }
    };
    while let Some(t) = rest.get(at) {
        at += 1;
        match &t.tok {
            Tok::Word(w) if w == "per" => over = -1,
            Tok::Word(w) => name(&mut words, w, over),
            Tok::Text(text) => {
                for word in text.replace('/', " / ").replace(['^', '*', '\u{b7}', '{', '}'], " ^ ").split_whitespace() {
                    match word {
                        "per" | "/" | "an" | "a" if word.len() > 2 || word == "/" => over = -1,
                        "^" => {}
                        "(" | ")" => {}
                        w if w.parse::<i32>().is_ok() => words.last_mut()?.1 *= w.parse::<i32>().ok()?,
                        w => {
                            // m2, m^2, s-1.
                            let letters = w.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
                            let power: i32 = w[letters.len()..].parse().unwrap_or(1);
                            if letters.is_empty() {
                                return None;
                            }
                            name(&mut words, letters.trim_matches(['(', ')', ',']), over);
                            words.last_mut()?.1 *= power;
                        }
                    }
                }
            }
            Tok::Cmd(c) if c == "circ" => {
                // Degrees Celsius, in Unicode or after the sign.
                match rest.get(at).map(|t| &t.tok) {
                    Some(Tok::Word(w) | Tok::Text(w)) if matches!(w.trim(), "C" | "F" | "Celsius" | "Fahrenheit") => {
                        at += 1;
                        words.push((if w.trim().starts_with('C') { "celsius" } else { "fahrenheit" }.to_owned(), 1));
                    }
                    _ => words.push(("degree".to_owned(), 1)),
                }
            }
            Tok::Cmd(c) if c == "mu" => words.push(("u".to_owned(), over)),
            Tok::Cmd(c) if c == "Omega" => name(&mut words, "Omega", over),
            Tok::Sym('/') => over = -1,
            Tok::Sym('*' | '{' | '}' | '(' | ')') => {}
            Tok::Sym('%') => words.push(("%".to_owned(), 1)),
            Tok::Sym('$') => words.push(("$".to_owned(), 1)),
            Tok::Sym('\u{20ac}') => words.push(("euro".to_owned(), 1)),
            Tok::Sym('^') if is_cmd(rest.get(at), "circ") || is_cmd(rest.get(at + 1), "circ") => {}
            Tok::Sym('^') => {
                while is(rest.get(at), '{') || is(rest.get(at), '(') {
                    at += 1;
                }
                let negative = is(rest.get(at), '-');
                at += usize::from(negative);
                let Some(Tok::Num(n)) = rest.get(at).map(|t| &t.tok) else { return None };
                at += 1;
                let n: i32 = n.parse().ok().filter(|n| *n < 10)?;
                words.last_mut()?.1 *= if negative { -n } else { n };
            }
            Tok::Num(n) if !t.spaced && !words.is_empty() => {
                words.last_mut()?.1 *= n.parse::<i32>().ok().filter(|n| *n < 10)?
            }
            Tok::Sym('-') => {}
            _ => return None,
        }
    }
    let parts: Vec<Part> = words.into_iter().map(|(name, power)| Part { name, power }).collect();
    if parts.is_empty() { None } else { unit::unit(&parts) }
}

/// Whether a word after a number begins its unit, and is no variable or function.
fn begins_unit(word: &str, spaced: bool, words: usize) -> bool {
    if (super::function::is_function(word) && word != "min")
        || GREEK.contains(&word)
        || matches!(word, "sqrt" | "pi" | "infinity" | "and" | "or")
    {
        return false;
    }
    let letters = word.chars().count();
    if letters == 1 {
        // 5 m, but not 5 x, and not 5m.
        return spaced
            && (words == 1 || words <= 6)
            && matches!(word, "m" | "g" | "s" | "h" | "L" | "l" | "N" | "J" | "W" | "V" | "K" | "A" | "C" | "F" | "T")
            && words != 2;
    }
    unit::is_sign(word)
        || letters >= 4
        || (letters == 3 && (spaced || unit::word(word).is_some()))
        || (spaced && (unit::word(word).is_some() || words > 1 || matches!(word, "th" | "st" | "nd" | "rd")))
        || matches!(word, "th" | "st" | "nd" | "rd" | "am" | "pm" | "AM" | "PM")
}
