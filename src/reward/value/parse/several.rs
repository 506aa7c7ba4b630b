//! Lists: several values, systems, conditions behind them.

use crate::reward::lexicon::{self, Kind};
use crate::reward::value::lex::{Tok, Token, is, is_cmd, shown};
use crate::reward::value::parse::{MAX_ITEMS, Reader, is_comma, is_word, names, one_or_list, split, trimmed};
use crate::reward::value::region::{Region, Span};
use crate::reward::value::{Value, family};
use crate::reward::words;

impl Reader<'_> {
    pub(crate) fn list(&self, tokens: &[Token], parts: Vec<&[Token]>, depth: usize) -> Option<Value> {
        // Semicolons part more than commas.
        let coarse = split(tokens, |t| *t == Tok::Sym(';'))?;
        let parts = if coarse.len() > 1 && coarse.len() < parts.len() { coarse } else { parts };
        if let Some(points) = self.systems_or(tokens, depth) {
            return Some(points);
        }
        // "a, b, and c" has an empty part before its "and".
        let filled: Vec<&[Token]> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        if filled.len() > MAX_ITEMS {
            return None;
        }
        let mut items: Vec<Value> = Vec::new();
        let parts_are_points = filled.len() > 1 && filled[1..].iter().all(|p| is(p.first(), '('));
        let (parts, filled) = (filled.clone(), filled.len());
        for part in parts {
            // "k \in \mathbb{Z}" behind a family of solutions only says what k is.
            let member = split(part, names("in"))?;
            let condition =
                is_word(&part[0].tok, &["where", "for", "with", "if", "when", "for all", "for any", "for some"]);
            let whole = member.len() == 2
                && member[1].len() == 1
                && matches!(&member[1][0].tok, Tok::Cmd(c) if c.starts_with("mathbb"));
            // That x is real says nothing beside a condition.
            let real = whole && matches!(&member[1][0].tok, Tok::Cmd(c) if c == "mathbbR") && filled > 1;
            if real && items.is_empty() {
                continue;
            }
            if !items.is_empty() && (condition || whole) {
                let counts = matches!(&member.last()?.first()?.tok, Tok::Cmd(c) if c == "mathbbZ");
                let name = member[0].last().map(|t| shown(&t.tok)).unwrap_or_default();
                if counts && member.len() == 2 {
                    items = items.into_iter().map(|v| self.repeated(v, &name)).collect();
                }
                continue;
            }
            match self.value(part, depth + 1)? {
                // (x, y) = (1, 1), (2, 4): points, of which the first is named.
                Value::List(inner) if is(part.first(), '(') && parts_are_points => {
                    items.push(Value::Tuple(inner.into_iter().map(unnamed).collect()));
                }
                // Plus-minus gives two at once.
                Value::List(inner) => items.extend(inner),
                item => items.push(item),
            }
        }
        // x = 2 or x > 5.
        let either = tokens.iter().any(|t| is_word(&t.tok, &["or"]) || is_cmd(Some(t), "lor"));
        if either && items.iter().any(|v| matches!(v, Value::Region(_))) {
            for item in &mut items {
                if let Value::Assignment(name, value) = item
                    && let Value::Scalar(at, None) = &**value
                {
                    let point = Region::new(vec![Span::point(at.clone())]);
                    *item = Value::Region(Region { variable: Some(name.clone()), ..point });
                }
            }
        }
        if items.len() > 1 && items.iter().all(|v| matches!(v, Value::Region(_))) {
            let words = |w: &str| {
                let sign = |t: &Tok| matches!(t, Tok::Cmd(c) if c.strip_prefix('l') == Some(w));
                tokens.iter().any(|t| is_word(&t.tok, &[w]) || sign(&t.tok))
            };
            let regions: Vec<Region> =
                items.iter().filter_map(|v| if let Value::Region(r) = v { Some(r.clone()) } else { None }).collect();
            // Bounds on different variables are a system, not one set.
            let first = regions[0].variable.clone();
            if regions.iter().all(|r| r.variable == first) {
                let both = || regions[1..].iter().try_fold(regions[0].clone(), |a, b| a.intersection(b, self.steps));
                let either = || regions[1..].iter().cloned().fold(regions[0].clone(), Region::union);
                let joined = if words("or") || first.is_none() {
                    either()
                } else {
                    both().filter(|r| words("and") || !r.is_empty(self.steps)).unwrap_or_else(either)
                };
                return Some(Value::Region(joined));
            }
        }
        one_or_list(items)
    }

    /// `x = 3, y = 4 or x = 4, y = 3`: each side a point, its parts by name.
    pub(crate) fn systems_or(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let or = |t: &Tok| is_word(t, &["or"]) || matches!(t, Tok::Cmd(c) if c == "lor");
        let sides: Vec<&[Token]> = split(tokens, or)?.into_iter().map(trimmed).collect();
        if sides.len() < 2 || !sides.iter().all(|s| s.iter().any(|t| is_comma(&t.tok) || is_word(&t.tok, &["and"]))) {
            return None;
        }
        let point = |side: &&[Token]| {
            let Value::List(items) = self.value(side, depth + 1)? else { return None };
            let mut named = items
                .into_iter()
                .map(|v| if let Value::Assignment(n, x) = v { Some((n, *x)) } else { None })
                .collect::<Option<Vec<_>>>()?;
            named.sort_by(|a, b| a.0.cmp(&b.0));
            Some(Value::Tuple(named.into_iter().map(|(_, x)| x).collect()))
        };
        sides.iter().map(point).collect::<Option<Vec<_>>>().map(Value::List)
    }

    /// A value with a letter that stands for every whole number, as a family.
    pub(crate) fn repeated(&self, value: Value, name: &str) -> Value {
        match &value {
            Value::Scalar(e, None) => match family::family(e, name, self.steps) {
                Some((first, step)) => Value::Family(first, step),
                None => value,
            },
            Value::Assignment(x, inner) if x != name => {
                Value::Assignment(x.clone(), Box::new(self.repeated((**inner).clone(), name)))
            }
            _ => value,
        }
    }
}

/// The parts of an answer behind their labels: `(i) 2, (ii) 5`, `(a) 1 (b) 3`.
pub(crate) fn labelled_parts(tokens: &[Token]) -> Option<Vec<&[Token]>> {
    const SMALL: [&str; 6] = ["i", "ii", "iii", "iv", "v", "vi"];
    const LETTERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let label = |at: usize, n: usize, names: &[&str; 6]| match tokens.get(at..at + 3) {
        Some([open, Token { tok: Tok::Word(w), .. }, close]) => {
            is(Some(open), '(') && is(Some(close), ')') && names.get(n).is_some_and(|l| l == w)
        }
        _ => false,
    };
    let names = [&SMALL, &LETTERS].into_iter().find(|names| label(0, 0, names))?;
    let mut starts = vec![0];
    for at in 3..tokens.len() {
        if label(at, starts.len(), names) {
            starts.push(at);
        }
    }
    let ends = starts.iter().skip(1).copied().chain([tokens.len()]);
    let parts: Vec<&[Token]> = starts.iter().zip(ends).map(|(from, to)| trimmed(&tokens[from + 3..to])).collect();
    (parts.len() > 1 && parts.iter().all(|p| !p.is_empty())).then_some(parts)
}

/// What a name was given.
fn unnamed(value: Value) -> Value {
    match value {
        Value::Assignment(_, x) => *x,
        v => v,
    }
}

impl Reader<'_> {
    /// `A(1, 2)`: a point and its name.
    pub(crate) fn labelled(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let [Token { tok: Tok::Word(name), .. }, rest @ ..] = tokens else { return None };
        let primes = rest.iter().take_while(|t| is(Some(t), '\'')).count();
        let [open, inner @ .., close] = &rest[primes..] else { return None };
        // C(5, 2) and P(5, 2) choose.
        let point = primes > 0 || matches!(name.as_str(), "A" | "B" | "D" | "E" | "M" | "O" | "Q" | "S" | "V");
        if !point || !is(Some(open), '(') || !is(Some(close), ')') || split(inner, is_comma)?.len() < 2 {
            return None;
        }
        match self.value(&rest[primes..], depth + 1)? {
            point @ Value::Tuple(_) => Some(Value::Assignment(name.clone() + &"'".repeat(primes), Box::new(point))),
            _ => None,
        }
    }
}

/// Which way a word says.
fn side(token: &Token) -> Option<&'static str> {
    let (Tok::Word(w) | Tok::Text(w)) = &token.tok else { return None };
    lexicon::look(Kind::Way, w.trim())
}

impl Reader<'_> {
    /// `20% decrease`, `a decrease of 20%`, `3 units to the left`.
    pub(crate) fn sided(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let numbered = |part: &[Token]| part.iter().any(|t| matches!(t.tok, Tok::Num(_)));
        let (part, name) = match tokens {
            [inner @ .., to, the, last] if is_word(&to.tok, &["to"]) && is_word(&the.tok, &["the"]) => {
                (inner, side(last)?)
            }
            [article, name, of, inner @ ..] if is_word(&article.tok, &["a", "an"]) && is_word(&of.tok, &["of"]) => {
                (inner, side(name)?)
            }
            [name, of, inner @ ..] if is_word(&of.tok, &["of"]) => (inner, side(name)?),
            [article, inner @ .., last] if is_word(&article.tok, &["a", "an"]) => (inner, side(last)?),
            [inner @ .., last] => (inner, side(last)?),
            _ => return None,
        };
        if !numbered(part) || part.last().is_some_and(|t| side(t).is_some()) {
            return None;
        }
        let value = self.value(part, depth + 1)?;
        matches!(value, Value::Scalar(..)).then(|| Value::Sided(name, Box::new(value)))
    }
}

/// Longest text that is searched for notation in words.
const MAX_BYTES: usize = 300;

/// The text with such words as signs; `None` when there are none.
pub(crate) fn signs(text: &str) -> Option<String> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (mut out, mut at) = (String::new(), 0);
    for (from, to) in lexicon::find(Kind::Spoken, text) {
        if from < at {
            continue;
        }
        let sign = lexicon::look(Kind::Spoken, &text[from..to])?;
        out.extend([&text[at..from], " ", sign, " "]);
        at = to;
        // log base 2 of 8
        if sign.ends_with('_')
            && let Some((base, rest)) = text[at..].split_once(" of ")
        {
            out = format!("{}{{{base}}}", out.trim_end());
            at = text.len() - rest.len();
        }
    }
    (at > 0).then(|| out + &text[at..])
}

/// What a phrase of its own stands for.
pub(crate) fn named(text: &str) -> Option<&'static str> {
    match words::key(text).as_str() {
        "right angle" => Some("90^\\circ"),
        "straight angle" => Some("180^\\circ"),
        "full turn" | "full rotation" | "full circle" => Some("360^\\circ"),
        _ => None,
    }
}

/// Most numbers in the cycles of a permutation.
const MAX_CYCLED: usize = 64;

/// A permutation written as cycles of numbers with spaces between: `(1 2 3)(4 5)`.
pub(crate) fn cycles(tokens: &[Token]) -> Option<Value> {
    let (mut cycles, mut seen): (Vec<Vec<u32>>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut rest = tokens;
    while !rest.is_empty() {
        let close = rest.iter().position(|t| is(Some(t), ')'))?;
        let [open, inner @ ..] = &rest[..close] else { return None };
        if !is(Some(open), '(') || inner.len() < 2 {
            return None;
        }
        let mut cycle = Vec::new();
        for t in inner {
            let Tok::Num(n) = &t.tok else { return None };
            let n: u32 = n.parse().ok()?;
            if seen.contains(&n) || seen.len() >= MAX_CYCLED {
                return None;
            }
            seen.push(n);
            cycle.push(n);
        }
        let least = cycle.iter().enumerate().min_by_key(|(_, n)| **n)?.0;
        cycle.rotate_left(least);
        cycles.push(cycle);
        rest = &rest[close + 1..];
    }
    cycles.sort();
    (!cycles.is_empty()).then_some(Value::Cycles(cycles))
}

/// Tokens before the sign of a transpose at the end.
pub(crate) fn transposed(tokens: &[Token]) -> Option<&[Token]> {
    let sign = |t: &Token| {
        matches!(&t.tok, Tok::Word(w) if w == "T" || w == "t")
            || matches!(&t.tok, Tok::Cmd(c) if c == "top" || c == "intercal")
    };
    match tokens {
        [rest @ .., hat, t] if is(Some(hat), '^') && sign(t) => Some(rest),
        [rest @ .., hat, open, t, close]
            if is(Some(hat), '^') && is(Some(open), '{') && sign(t) && is(Some(close), '}') =>
        {
            Some(rest)
        }
        _ => None,
    }
}

/// The sides of a set builder: `2k + 1` and the tokens that say what `k` is.
pub(crate) fn generator<'a>(name: &'a [Token], condition: &'a [Token]) -> Option<(&'a [Token], &'a str)> {
    let member = split(condition, |t| matches!(t, Tok::Cmd(c) if c == "in"))?;
    match member.as_slice() {
        [[Token { tok: Tok::Word(k), .. }], [Token { tok: Tok::Cmd(c), .. }]] if c == "mathbbZ" => Some((name, k)),
        _ => None,
    }
}
