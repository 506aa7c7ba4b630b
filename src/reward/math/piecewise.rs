//! Functions that are given piece by piece.

use super::Steps;
use super::decide::{decide, order};
use super::expr::{Expr, divide, integer, minus, power, var};
use super::lex::{Tok, Token};
use super::parse::{Reader, Value, is_comma, is_word, split};
use super::region::{Region, Span};
use super::relation::{name_of, relation_sign};
use super::scalar::{is, scalar};

/// Most pieces of a function.
const MAX_PIECES: usize = 12;

/// Values and where they hold; all of one variable.
#[derive(Clone, PartialEq, Debug)]
pub struct Cases {
    variable: String,
    pieces: Vec<(Expr, Region)>,
}

impl Reader<'_> {
    /// The rows of `cases`: a value, then where it holds, or "otherwise".
    pub(super) fn cases(&self, rows: &[&[Token]], depth: usize) -> Option<Value> {
        if rows.len() < 2 || rows.len() > MAX_PIECES {
            return None;
        }
        let (mut pieces, mut rest, mut variable) = (Vec::new(), None, None);
        let mut halves = [None, None];
        for row in rows {
            let parts = split(row, |t| *t == Tok::Sym('&'))?;
            let (value, condition) = match parts.as_slice() {
                [value, condition] => (*value, *condition),
                // Without a mark between them a comma or "if" parts them.
                [all] => all.split_at(split_at(all)?),
                _ => return None,
            };
            let value = scalar(without(value), self.steps)?;
            let condition = without(condition);
            let last = condition
                .iter()
                .all(|t| is_word(&t.tok, &["otherwise", "else", "elsewhere", "in", "all", "other", "cases"]));
            if last {
                if rest.replace(value).is_some() {
                    return None;
                }
                continue;
            }
            if let Some((name, odd)) = parity(condition) {
                if *variable.get_or_insert_with(|| name.clone()) != name || halves[odd].replace(value).is_some() {
                    return None;
                }
                continue;
            }
            let region = match self.value(condition, depth + 1)? {
                Value::Region(region) => region,
                // At one place: x = 0.
                Value::Assignment(name, at) => match *at {
                    Value::Scalar(at, None) => Region { variable: Some(name), ..Region::new(vec![Span::point(at)]) },
                    _ => return None,
                },
                _ => return None,
            };
            let name = region.variable.clone()?;
            if *variable.get_or_insert_with(|| name.clone()) != name {
                return None;
            }
            pieces.push((value, region));
        }
        if let [Some(_), _] | [_, Some(_)] = halves {
            let [even, odd] = halves.map(|h| h.or_else(|| rest.take()));
            return pieces.is_empty().then_some(Value::Scalar(alternating(even?, odd?, &variable?), None));
        }
        if let Some(value) = rest {
            let covered = pieces.iter().fold(Region::new(Vec::new()), |all, (_, r)| all.union(r.clone()));
            pieces.push((value, covered.complement(self.steps)?));
        }
        Some(Value::Cases(Cases { variable: variable?, pieces }))
    }
}

impl Reader<'_> {
    /// `x^2 if x \ge 0, and 2x if x < 0`; `x^2, x \ge 0; 2x, x < 0`.
    pub(super) fn said_cases(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let condition =
            |t: &Token| is_word(&t.tok, &["if", "for", "when", "whenever", "otherwise", "else", "elsewhere"]);
        let related = |p: &[Token]| p.iter().any(|t| relation_sign(&t.tok).is_some_and(|s| s != '='));
        let even = |t: &Token| is_word(&t.tok, &["even", "odd"]);
        if !tokens.iter().any(|t| even(t) || relation_sign(&t.tok).is_some_and(|s| s != '=')) {
            return None;
        }
        // f(x) = ... before the pieces, or before each.
        let named = |p: &[Token]| {
            let at = p.iter().position(|t| relation_sign(&t.tok) == Some('='))?;
            Some((name_of(&p[..at])?, at + 1))
        };
        let joint = |t: &Tok| is_comma(t) || is_word(t, &["and", "but", "while"]);
        let ruled = split(tokens, |t| *t == Tok::Sym(';'))?;
        let mut rows: Vec<(Vec<Token>, Vec<Token>)> = Vec::new();
        let mut name = None;
        let mut push = |value: &[Token], condition: &[Token]| {
            let cut = named(value).map(|(n, at)| {
                name.get_or_insert(n);
                at
            });
            rows.push((value[cut.unwrap_or(0)..].to_vec(), condition.to_vec()));
        };
        if ruled.len() > 1 && !tokens.iter().any(condition) {
            for row in ruled {
                let at = row.iter().position(|t| is_comma(&t.tok))?;
                if related(&row[..at]) || !related(&row[at..]) {
                    return None;
                }
                push(&row[..at], &row[at + 1..]);
            }
        } else {
            let mut pending: Option<&[Token]> = None;
            for part in split(tokens, joint)?.into_iter().filter(|p| !p.is_empty()) {
                match (part.iter().position(condition), pending.take()) {
                    (Some(0), Some(value)) => push(value, part),
                    (Some(at), None) if at > 0 => push(&part[..at], &part[at..]),
                    (None, None) if !related(part) => pending = Some(part),
                    _ => return None,
                }
            }
            if pending.is_some() {
                return None;
            }
        }
        let mark = Token { tok: Tok::Sym('&'), spaced: false };
        let rows: Vec<Vec<Token>> = rows.into_iter().map(|(v, c)| [v, vec![mark.clone()], c].concat()).collect();
        let value = self.cases(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), depth)?;
        Some(match name {
            Some(name) => Value::Assignment(name, Box::new(value)),
            None => value,
        })
    }
}

/// The letter that a condition says is even, with 0, or odd, with 1.
fn parity(condition: &[Token]) -> Option<(String, usize)> {
    const SIDES: [&str; 2] = ["even", "odd"];
    let mut words = Vec::new();
    for token in condition {
        let text = match &token.tok {
            Tok::Word(text) | Tok::Text(text) => text,
            Tok::Sym('&' | ',' | ';') => continue,
            _ => return None,
        };
        words.extend(text.split_whitespace().map(|w| w.trim_matches(['$', ',', '.'])));
    }
    words.retain(|w| !matches!(*w, "" | "if" | "for" | "when" | "is" | "an" | "all" | "integer" | "integers"));
    let side = |w: &str| SIDES.iter().position(|s| *s == w);
    let (name, odd) = match words[..] {
        [a, b] => side(b).map(|n| (a, n)).or_else(|| side(a).map(|n| (b, n)))?,
        _ => return None,
    };
    (name.len() == 1 && name.chars().all(char::is_alphabetic)).then(|| (name.to_owned(), odd))
}

/// One expression with a value for even numbers and another for odd ones, by the sign of a power of -1.
fn alternating(even: Expr, odd: Expr, name: &str) -> Expr {
    let sign = || power(integer(-1), var(name));
    let half = |e: Expr, share: Expr| divide(Expr::Mul(vec![e, share]), integer(2));
    Expr::Add(vec![half(even, Expr::Add(vec![integer(1), sign()])), half(odd, minus(integer(1), sign()))])
}

/// Where the condition of a row begins.
fn split_at(row: &[Token]) -> Option<usize> {
    let begins = |t: &Token| is_comma(&t.tok) || is_word(&t.tok, &["if", "for", "when", "otherwise", "else"]);
    row.iter().position(begins).filter(|&n| n > 0)
}

/// Without commas and the words that begin a condition.
fn without(mut tokens: &[Token]) -> &[Token] {
    let idle = |t: &Token| is_comma(&t.tok) || is_word(&t.tok, &["if", "for", "when", "where", "and", "is"]);
    while let [first, rest @ ..] = tokens
        && idle(first)
    {
        tokens = rest;
    }
    while let [rest @ .., last] = tokens
        && (idle(last) || is(Some(last), '.'))
    {
        tokens = rest;
    }
    tokens
}

impl Cases {
    /// One expression that holds everywhere.
    fn everywhere(value: &Expr, variable: &str) -> Cases {
        Cases { variable: variable.to_owned(), pieces: vec![(value.clone(), Region::new(vec![Span::all()]))] }
    }

    fn domain(&self) -> Region {
        self.pieces.iter().fold(Region::new(Vec::new()), |all, (_, r)| all.union(r.clone()))
    }

    /// True when both hold in the same places and have the same value in each.
    pub(super) fn same(&self, other: &Cases, steps: &Steps) -> bool {
        self.domain().same(&other.domain(), steps) && self.agrees(other, steps)
    }

    /// True when it is the expression wherever it is given, which is everywhere but in single points.
    pub(super) fn is(&self, value: &Expr, steps: &Steps) -> bool {
        let gaps = self.domain().complement(steps);
        let points = gaps
            .is_some_and(|r| r.spans.iter().all(|s| order(&s.low, &s.high, steps) == Some(std::cmp::Ordering::Equal)));
        points && self.agrees(&Cases::everywhere(value, &self.variable), steps)
    }

    fn agrees(&self, other: &Cases, steps: &Steps) -> bool {
        let mut met = false;
        for (a, here) in &self.pieces {
            for (b, there) in &other.pieces {
                let b = b.replace(&other.variable, &var(&self.variable));
                let Some(both) = here.intersection(there, steps) else { return false };
                for span in &both.spans {
                    met = true;
                    let within = |e: &Expr| e.replace(&self.variable, &inside(span, &self.variable, steps));
                    if !decide(&within(a), &within(&b), steps).is_equal() {
                        return false;
                    }
                }
            }
        }
        met
    }
}

/// An expression that takes only values inside the interval, whatever the variable's.
fn inside(span: &Span, name: &str, steps: &Steps) -> Expr {
    let square = power(var(name), integer(2));
    match (span.low.is_infinite(), span.high.is_infinite()) {
        (None, None) if order(&span.low, &span.high, steps) == Some(std::cmp::Ordering::Equal) => span.low.clone(),
        (None, None) => {
            let share = divide(square.clone(), Expr::Add(vec![integer(1), square]));
            Expr::Add(vec![span.low.clone(), Expr::Mul(vec![minus(span.high.clone(), span.low.clone()), share])])
        }
        (None, Some(_)) => Expr::Add(vec![span.low.clone(), square]),
        (Some(_), None) => minus(span.high.clone(), square),
        _ => var(name),
    }
}

/// True when a row of an environment states a relation or a word for "else" behind its value.
pub(super) fn has_conditions(rows: &[&[Token]]) -> bool {
    rows.iter().all(|row| {
        let Some(at) = row.iter().position(|t| is(Some(t), '&')).or_else(|| split_at(row)) else { return false };
        let condition = &row[at..];
        let value = &row[..at];
        !value.is_empty()
            && value.iter().all(|t| relation_sign(&t.tok).is_none())
            && (parity(condition).is_some()
                || condition.iter().any(|t| {
                    relation_sign(&t.tok).is_some()
                        || is_word(&t.tok, &["otherwise", "else", "elsewhere"])
                        || matches!(&t.tok, Tok::Cmd(c) if c == "in")
                }))
    })
}
