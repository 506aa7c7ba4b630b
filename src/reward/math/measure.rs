//! The unit that words and signs behind a number say.

use super::Rational;
use super::expr::{Expr, number};
use super::lex::{Tok, Token};
use super::parse::{Reader, Value};
use super::scalar::{GREEK, is, is_cmd, scalar};
use super::unit::{self, Part, Unit};

/// Words behind a unit that do not change it.
pub(super) const IDLE: [&str; 19] = [
    "long",
    "wide",
    "tall",
    "high",
    "deep",
    "thick",
    "away",
    "apart",
    "each",
    "total",
    "altogether",
    "old",
    "ago",
    "in",
    "length",
    "width",
    "height",
    "distance",
    "back",
];

/// The unit that `rest`, all that follows, says; `None` when it says something else. Without a number before it
/// only words in `\text` are a unit.
pub(super) fn trailing(rest: &[Token], after_number: bool) -> Option<Unit> {
    let flat = flattened(rest);
    let rest = flat.as_deref().unwrap_or(rest);
    let idle = |t: &Token| matches!(&t.tok, Tok::Word(w) | Tok::Text(w) if IDLE.contains(&w.trim()));
    let mut rest = rest;
    // 7 meters long, but 5 in.
    while let [inner @ .., last] = rest
        && !inner.is_empty()
        && idle(last)
        && matches!(&last.tok, Tok::Word(w) | Tok::Text(w) if w.trim() != "in" || inner.iter().any(idle))
    {
        rest = inner;
    }
    // 8 hours to finish, 5 kg of rice: what follows a known unit says what it is for.
    let known = matches!(&rest.first()?.tok, Tok::Word(w) | Tok::Text(w) if unit::word(w.trim()).is_some());
    let purpose = |t: &Token| matches!(&t.tok, Tok::Word(w) if ["to", "for", "before", "after", "until", "of", "from"].contains(&w.as_str()));
    if known && let Some(at) = rest.iter().position(purpose) {
        rest = &rest[..at];
    }
    let first = rest.first()?;
    let begins = match &first.tok {
        Tok::Text(t) => !super::function::is_function(t.trim()) || t.trim() == "min",
        Tok::Word(w) if matches!(w.as_str(), "k" | "M" | "m") && is_cmd(rest.get(1), "Omega") => after_number,
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
            Tok::Word(w) if w == "squared" => words.last_mut()?.1 *= 2,
            Tok::Word(w) if w == "cubed" => words.last_mut()?.1 *= 3,
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
            Tok::Cmd(c) if c == "Omega" && words.last().is_some_and(|w| matches!(w.0.as_str(), "k" | "M" | "m")) => {
                words.last_mut()?.0.push_str("Omega");
            }
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

/// A fraction of units in `\text` as one over the other: `\frac{\text{m}}{\text{s}^2}`.
fn flattened(rest: &[Token]) -> Option<Vec<Token>> {
    let [frac, open, Token { tok: Tok::Text(_) | Tok::Word(_), .. }, ..] = rest else { return None };
    if !is_cmd(Some(frac), "frac") || !is(Some(open), '{') {
        return None;
    }
    let middle = rest.iter().position(|t| is(Some(t), '}'))?;
    let units = |part: &[Token]| {
        let named = |t: &Token| matches!(&t.tok, Tok::Word(w) | Tok::Text(w) if unit::word(w.trim()).is_some());
        let plain = |t: &Token| named(t) || matches!(t.tok, Tok::Num(_) | Tok::Sym('^' | '*' | '{' | '}' | '-'));
        part.iter().all(plain) && part.iter().any(named)
    };
    let (over, under) = (&rest[2..middle], rest[middle + 1..].strip_prefix(&[open.clone()][..])?);
    let under = under.strip_suffix(&[Token { tok: Tok::Sym('}'), spaced: under.last()?.spaced }][..])?;
    let faced = rest.iter().any(|t| matches!(t.tok, Tok::Text(_))) || over.len() == 1;
    if !faced || !units(over) || !units(under) {
        return None;
    }
    let slash = Token { tok: Tok::Sym('/'), spaced: false };
    let text = |t: &Token| match &t.tok {
        Tok::Word(w) => Token { tok: Tok::Text(w.clone()), ..t.clone() },
        _ => t.clone(),
    };
    Some(over.iter().map(text).chain([slash]).chain(under.iter().map(text)).collect())
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
            && words <= 16
            && matches!(
                word,
                "m" | "g" | "s" | "h" | "L" | "l" | "N" | "J" | "W" | "V" | "K" | "A" | "C" | "F" | "T" | "M"
            )
            && words != 2;
    }
    unit::is_sign(word)
        || letters >= 4
        || (letters == 3 && (spaced || unit::word(word).is_some()))
        || (spaced && (unit::word(word).is_some() || words > 1 || matches!(word, "th" | "st" | "nd" | "rd")))
        || matches!(word, "th" | "st" | "nd" | "rd" | "am" | "pm" | "AM" | "PM")
}

impl Reader<'_> {
    /// Feet and inches by their marks: `5'6"`, `5' 6 1/2''`, `66''`.
    pub(super) fn feet(&self, tokens: &[Token]) -> Option<Value> {
        let mark = |t: &Token| is(Some(t), '\'');
        let [Token { tok: Tok::Num(_), .. }, .., last] = tokens else { return None };
        if !mark(last) || tokens.iter().any(|t| is_cmd(Some(t), "circ")) {
            return None;
        }
        let first = tokens.iter().position(mark)?;
        let double = tokens.get(first + 1).is_some_and(mark);
        let foot = |n: i64| Rational::new((n * 254).into(), 10_000.into());
        let mut terms = Vec::new();
        let mut rest = tokens;
        if !double {
            terms.push(Expr::Mul(vec![scalar(&tokens[..first], self.steps)?, number(foot(12))]));
            rest = &tokens[first + 1..];
            if let [dash, inner @ ..] = rest
                && is(Some(dash), '-')
            {
                rest = inner;
            }
        }
        if let [inches @ .., a, b] = rest {
            if !mark(a) || !mark(b) || inches.iter().any(mark) {
                return None;
            }
            terms.push(Expr::Mul(vec![scalar(inches, self.steps)?, number(foot(1))]));
        } else if !rest.is_empty() {
            return None;
        }
        let (dimension, one) = unit::word("m")?;
        Some(Value::Scalar(Expr::Add(terms), Some(Unit::Measure(dimension, one))))
    }
}
