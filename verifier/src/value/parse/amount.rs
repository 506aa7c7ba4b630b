//! Parses amounts in words or in several units, and dates.

use crate::lexicon::{self, Kind};
use crate::number_words;
use crate::steps::Rational;
use crate::value::Value;
use crate::value::exact::literal;
use crate::value::expr::{Expr, integer, number};
use crate::value::lex::{Tok, Token};
use crate::value::parse::Reader;
use crate::value::scalar::scalar_with_unit;
use crate::value::unit::{Unit, thing};

impl Reader<'_> {
    /// Parses a measure in several units: 2 hours 30 minutes, 5 ft 6 in.
    pub(crate) fn in_parts(&self, tokens: &[Token]) -> Option<Value> {
        let begins =
            |n: usize| matches!(tokens[n].tok, Tok::Num(_)) && matches!(tokens[n - 1].tok, Tok::Word(_) | Tok::Text(_));
        let mut cuts: Vec<usize> = (1..tokens.len()).filter(|&n| begins(n)).collect();
        if cuts.is_empty() || cuts.len() > 3 {
            return None;
        }
        cuts.push(tokens.len());
        let (mut from, mut terms, mut measured) = (0, Vec::new(), None);
        for to in cuts {
            let (e, unit) = scalar_with_unit(&tokens[from..to], self.steps)?;
            let Some(Unit::Measure(dimension, size)) = unit else { return None };
            if *measured.get_or_insert(dimension) != dimension {
                return None;
            }
            terms.push(Expr::Mul(vec![e, number(size)]));
            from = to;
        }
        let one = Rational::from_integer(1.into());
        Some(Value::Scalar(literal(Expr::Add(terms), self.steps), Some(Unit::Measure(measured?, one))))
    }

    /// Parses a number in words and the counted thing.
    pub(crate) fn in_words(&self, tokens: &[Token]) -> Option<Value> {
        let mut words = Vec::new();
        for t in tokens {
            match &t.tok {
                Tok::Word(w) | Tok::Text(w) => {
                    words.extend(w.to_lowercase().replace('-', " ").split_whitespace().map(str::to_owned))
                }
                Tok::Sym('-') => {}
                _ => return None,
            }
        }
        let article = matches!(words.first().map(String::as_str), Some("a" | "an")) && words.len() > 1;
        if article {
            words.remove(0);
        }
        let list: Vec<&str> = words.iter().map(String::as_str).collect();
        if let [_] | [_, _] = list.as_slice()
            && let Some(n) = number_words::ordinal(&list.join(" "))
        {
            return Some(Value::Scalar(integer(n), Some(Unit::Ordinal)));
        }
        let (value, used) = number_words::read(&list)?;
        let name = list[used..].join(" ");
        let name = name.strip_prefix("of ").or(name.strip_prefix("a ")).unwrap_or(&name);
        let unit = if name.is_empty() {
            None
        } else {
            Some(Unit::named(name).or_else(|| Unit::money(name)).or_else(|| thing(name).map(Unit::Thing))?)
        };
        Some(Value::Scalar(number(value), unit))
    }
}

/// Parses a date. Returns `None` for anything else.
pub(crate) fn day(text: &str) -> Option<Value> {
    if text.len() > 60 || text.contains('\\') {
        return None;
    }
    let lower = text.trim().to_lowercase();
    iso(&lower).or_else(|| date(&lower))
}

/// Parses `2021-03-05`.
fn iso(text: &str) -> Option<Value> {
    let parts: Vec<&str> = text.split(['-', '/']).collect();
    let [y, m, d] = parts.as_slice() else { return None };
    if (y.len(), m.len(), d.len()) != (4, 2, 2) {
        return None;
    }
    let (y, m, d) = (y.parse().ok()?, m.parse().ok()?, d.parse().ok()?);
    ((1..=12).contains(&m) && (1..=31).contains(&d)).then_some(Value::Date(Some(y), m, Some(d)))
}

/// Parses `March 5, 2021`, `5th of March`, `Mar 2021`.
fn date(text: &str) -> Option<Value> {
    let (mut year, mut found, mut day) = (None, None, None);
    let words = text.split([' ', ',', '.', '-']).filter(|w| !w.is_empty());
    for word in words {
        let ordinal = ["st", "nd", "rd", "th"].iter().find_map(|end| word.strip_suffix(end));
        let digits = ordinal.unwrap_or(word);
        if matches!(word, "the" | "of" | "on" | "in") {
            continue;
        } else if let (Some(m), None) = (lexicon::look(Kind::Month, word).and_then(|m| m.parse().ok()), found) {
            found = Some(m);
        } else if let Ok(n) = digits.parse::<i32>() {
            if n > 31 && ordinal.is_none() && digits.len() == 4 && year.is_none() {
                year = Some(n);
            } else if (1..=31).contains(&n) && day.is_none() {
                day = Some(n as u8);
            } else {
                return None;
            }
        } else {
            return None;
        }
    }
    let month = found?;
    // A month alone is a word.
    (day.is_some() || year.is_some()).then_some(Value::Date(year, month, day))
}
