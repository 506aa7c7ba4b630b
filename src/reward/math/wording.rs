//! Amounts in words and in several units.

use super::expr::{Expr, integer};
use super::lex::{Tok, Token};
use super::number_words;
use super::parse::{Reader, Value, is_comma, is_word};
use super::scalar::{scalar, scalar_with_unit};
use super::unit::{self, Measure, Reading, Unit};
use super::{Rational, measure};

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
        let (mut from, mut parts) = (0, Vec::new());
        for to in cuts {
            let part = &tokens[from..to];
            let sign = match part {
                [n, Token { tok: Tok::Word(w) | Tok::Text(w), .. }] => {
                    unit::readings(w.trim()).map(|r| (scalar(std::slice::from_ref(n), self.steps), Measure(r)))
                }
                _ => None,
            };
            let (e, mut measure) = match sign {
                Some((Some(e), measure)) => (e, measure),
                _ => {
                    let (e, unit) = scalar_with_unit(part, self.steps)?;
                    (e, unit?.measure()?)
                }
            };
            // 1h 20m: beside hours and seconds an m is minutes.
            if is_word(&part.last()?.tok, &["m"]) {
                measure.0.extend(unit::readings("min")?);
            }
            // 45 degrees 30 minutes: those of arc.
            if is_word(&part.last()?.tok, &["minute", "minutes", "min"]) {
                measure.0.extend(unit::readings("arcmin")?);
            }
            if is_word(&part.last()?.tok, &["second", "seconds", "sec"]) {
                measure.0.extend(unit::readings("arcsec")?);
            }
            parts.push((e, measure));
            from = to;
        }
        sum(parts)
    }

    /// 5 dollars and 25 cents: amounts of one kind, each in a smaller unit than the one before.
    pub(super) fn in_joined_parts(&self, tokens: &[Token]) -> Option<Value> {
        let joint = |t: &Token| is_comma(&t.tok) || is_word(&t.tok, &["and"]);
        let parts: Vec<&[Token]> = tokens.split(joint).filter(|p| !p.is_empty()).collect();
        // Each with its own number and unit.
        parts
            .iter()
            .all(|p| scalar_with_unit(p, self.steps).is_some_and(|(_, u)| matches!(u, Some(Unit::Measure(_)))))
            .then_some(())?;
        self.in_parts(&parts.concat())
    }

    /// A number in words, and what is counted.
    pub(super) fn in_words(&self, tokens: &[Token]) -> Option<Value> {
        let (mut words, mut comma) = (Vec::new(), 0);
        for t in tokens {
            match &t.tok {
                Tok::Word(w) | Tok::Text(w) => {
                    words.extend(w.to_lowercase().replace('-', " ").split_whitespace().map(str::to_owned))
                }
                Tok::Sym(',') => comma = words.len(),
                Tok::Sym('-') => {}
                _ => return None,
            }
        }
        let article = matches!(words.first().map(String::as_str), Some("a" | "an")) && words.len() > 1;
        if article {
            words.remove(0);
        }
        let list: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Some(sum) = spoken_parts(&list) {
            return Some(sum);
        }
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
        // A quarter of a mile.
        let share = list.first().and_then(|w| number_words::part(w)).filter(|_| article && list.get(1) == Some(&"of"));
        // A day, an hour and a half.
        let unit_first = article && list.first().is_some_and(|w| unit::known(w) && number_words::scale(w).is_none());
        let (mut value, used) = match share {
            Some(n) => (Rational::new(1.into(), n.into()), 1),
            None if unit_first => (Rational::from_integer(1.into()), 0),
            None => number_words::read(&list)?,
        };
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
        let rest = match list.get(used..) {
            // A year and a half.
            Some(&[ref unit @ .., "and", "a" | "an" | "one", share])
                if !unit.is_empty() && number_words::part(share).is_some() =>
            {
                value += Rational::new(1.into(), number_words::part(share)?.into());
                unit
            }
            rest => rest.unwrap_or_default(),
        };
        // Behind the number a comma parts another member: "a, b", "two, b".
        if comma > 0 && comma >= used + usize::from(article) && comma < words.len() + usize::from(article) {
            return None;
        }
        let name = rest.join(" ");
        let name = ["of an ", "of a ", "of one ", "of ", "an ", "a "]
            .iter()
            .find_map(|p| name.strip_prefix(p))
            .unwrap_or(&name);
        let unit = if name.is_empty() { None } else { Some(measure::phrase(name)?) };
        Some(Value::Scalar(super::expr::number(value), unit))
    }
}

/// Amounts in words and their units, one behind the other: three hours and twenty minutes.
fn spoken_parts(words: &[&str]) -> Option<Value> {
    let mut parts: Vec<(Rational, Measure)> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if words[at] == "and" && at > 0 {
            at += 1;
        }
        let (value, used) = number_words::read(words.get(at..)?).filter(|(_, used)| *used > 0)?;
        at += used;
        // The unit goes on to the next number.
        let next = (at..words.len()).find(|&n| {
            n > at && number_words::read(&words[n..]).is_some_and(|(_, used)| used > 0) || words[n] == "and"
        });
        let end = next.unwrap_or(words.len());
        parts.push((value, Measure(unit::readings(&words.get(at..end)?.join(" "))?)));
        at = end;
    }
    if parts.len() < 2 {
        return None;
    }
    let terms = parts.into_iter().map(|(n, m)| (super::expr::number(n), m)).collect();
    sum(terms)
}

/// The sum of amounts in one kind of unit, each smaller than the one before.
fn sum(parts: Vec<(Expr, Measure)>) -> Option<Value> {
    let kind = parts.first()?.1.0.iter().find_map(|first| {
        let mut smaller: Option<Rational> = None;
        let sizes: Option<Vec<Rational>> = parts
            .iter()
            .map(|(_, m)| {
                let fits =
                    |r: &&Reading| r.is_like(first) && r.zero.is_none() && smaller.as_ref().is_none_or(|s| *s > r.size);
                let size = m.0.iter().find(fits)?.size.clone();
                smaller = Some(size.clone());
                Some(size)
            })
            .collect();
        Some((first.in_si(), sizes?))
    })?;
    let (reading, sizes) = kind;
    let terms = parts.into_iter().zip(sizes).map(|((e, _), s)| Expr::Mul(vec![e, super::expr::number(s)])).collect();
    Some(Value::Scalar(Expr::Add(terms), Some(Unit::Measure(Measure(vec![reading])))))
}
