//! Amounts in words and in several units.

use super::expr::{Expr, integer};
use super::lex::{Tok, Token};
use super::number_words;
use super::parse::{Reader, Value, is_comma, is_word};
use super::scalar::{scalar, scalar_with_unit};
use super::unit::{self, Part, Unit};

impl Reader<'_> {
    /// A measure in several units: 2 hours 30 minutes, 5 ft 6 in.
    pub(super) fn in_parts(&self, tokens: &[Token]) -> Option<Value> {
        let begins =
            |n: usize| matches!(tokens[n].tok, Tok::Num(_)) && matches!(tokens[n - 1].tok, Tok::Word(_) | Tok::Text(_));
        let mut cuts: Vec<usize> = (1..tokens.len()).filter(|&n| begins(n)).collect();
        if cuts.is_empty() || cuts.len() > 3 {
            return None;
        }
        cuts.push(tokens.len());
        let (mut from, mut terms, mut measured) = (0, Vec::new(), None);
        for to in cuts {
            let sign = match &tokens[from..to] {
                // 1h 20m: behind hours an m is minutes.
                [n, Token { tok: Tok::Word(w), .. }] => {
                    let after_hours = measured.is_some() && measured == unit::word("h").map(|u| u.0);
                    let name = if w == "m" && after_hours { "min" } else { w };
                    unit::word(name).map(|u| (scalar(std::slice::from_ref(n), self.steps), Unit::Measure(u.0, u.1)))
                }
                _ => None,
            };
            let (e, unit) = match sign {
                Some((Some(e), unit)) => (e, Some(unit)),
                _ => scalar_with_unit(&tokens[from..to], self.steps)?,
            };
            let Some(Unit::Measure(dimension, size)) = unit else { return None };
            if *measured.get_or_insert(dimension) != dimension {
                return None;
            }
            terms.push(Expr::Mul(vec![e, super::expr::number(size)]));
            from = to;
        }
        let one = super::Rational::from_integer(1.into());
        Some(Value::Scalar(Expr::Add(terms), Some(Unit::Measure(measured?, one))))
    }

    /// 5 dollars and 25 cents: amounts of one kind, each in a smaller unit than the one before.
    pub(super) fn in_joined_parts(&self, tokens: &[Token]) -> Option<Value> {
        let joint = |t: &Token| is_comma(&t.tok) || is_word(&t.tok, &["and"]);
        let parts: Vec<&[Token]> = tokens.split(joint).filter(|p| !p.is_empty()).collect();
        let mut smaller: Option<super::Rational> = None;
        for part in &parts {
            let (_, unit) = scalar_with_unit(part, self.steps)?;
            let Some(Unit::Measure(_, size)) = unit else { return None };
            if smaller.is_some_and(|s| s <= size) {
                return None;
            }
            smaller = Some(size);
        }
        self.in_parts(&parts.concat())
    }

    /// A number in words, and what is counted.
    pub(super) fn in_words(&self, tokens: &[Token]) -> Option<Value> {
        let mut words = Vec::new();
        for t in tokens {
            match &t.tok {
                Tok::Word(w) | Tok::Text(w) => {
                    words.extend(w.to_lowercase().replace('-', " ").split_whitespace().map(str::to_owned))
                }
                Tok::Sym('-' | ',') => {}
                _ => return None,
            }
        }
        let article = matches!(words.first().map(String::as_str), Some("a" | "an")) && words.len() > 1;
        if article {
            words.remove(0);
        }
        let list: Vec<&str> = words.iter().map(String::as_str).collect();
        if let [word] = list.as_slice()
            && article
            && let Some(n) = number_words::part(word)
        {
            return Some(Value::Scalar(super::expr::divide(integer(1), integer(n)), None));
        }
        if let [_] | [_, _] = list.as_slice()
            && let Some(n) = number_words::ordinal(&list.join(" "))
        {
            return Some(Value::Scalar(integer(n), Some(Unit::Word("ordinal".to_owned()))));
        }
        let (value, used) = number_words::read(&list)?;
        // One out of four, one in four.
        let between = match list.get(used..) {
            Some(["out", "of", ..]) => 2,
            Some(["in", ..]) => 1,
            _ => 0,
        };
        if let Some(["over", ..] | ["divided", "by", ..]) = list.get(used..)
            && let under = used + if list[used] == "over" { 1 } else { 2 }
            && let Some((by, all)) = number_words::read(&list[under..])
            && under + all == list.len()
        {
            let part = super::expr::number;
            return Some(Value::Scalar(super::expr::divide(part(value), part(by)), None));
        }
        if between > 0
            && let Some((of, all)) = number_words::read(&list[used + between..])
            && used + between + all == list.len()
        {
            let part = super::expr::number;
            return Some(Value::Ratio(vec![part(value), part(of)]));
        }
        let name = list[used..].join(" ");
        let name = name.strip_prefix("of ").or(name.strip_prefix("a ")).unwrap_or(&name);
        let unit = if name.is_empty() { None } else { Some(unit::unit(&[Part { name: name.to_owned(), power: 1 }])?) };
        Some(Value::Scalar(super::expr::number(value), unit))
    }
}
