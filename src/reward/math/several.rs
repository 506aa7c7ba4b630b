//! Lists: several values, systems, conditions behind them.

use super::lex::{Tok, Token};
use super::lists::each;
use super::over::held;
use super::parse::{MAX_ITEMS, Reader, Value, is_comma, is_word, names, one_or_list, split, trimmed};
use super::region::{Region, Span};
use super::relation::SAME;
use super::scalar::{is, is_cmd, shown};
use super::terms::progression;

impl Reader<'_> {
    pub(super) fn list(&self, tokens: &[Token], parts: Vec<&[Token]>, depth: usize) -> Option<Value> {
        // Semicolons part more than commas.
        let coarse = split(tokens, |t| *t == Tok::Sym(';'))?;
        let parts = if coarse.len() > 1 && coarse.len() < parts.len() { coarse } else { parts };
        let parts = without_labels(&parts).unwrap_or(parts);
        if let Some(v) = progression(&parts, self.steps) {
            return Some(v);
        }
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
                Value::Assignment(names, v) if names.contains(SAME) => items.extend(each(&names, &v)),
                // Plus-minus gives two at once.
                Value::List(inner) => items.extend(inner),
                item => items.push(item),
            }
        }
        // x = 2 or 5 (mod 7): the modulus is that of both.
        if let [rest @ .., Value::Residue(_, n)] = items.as_slice()
            && !rest.is_empty()
        {
            let plain = |v: &Value| match v {
                Value::Scalar(e, None) => Some(Value::Scalar(e.clone(), None)),
                Value::Assignment(_, v) | Value::Residue(v, _) if matches!(**v, Value::Scalar(_, None)) => {
                    Some((**v).clone())
                }
                _ => None,
            };
            let same = |v: &Value| !matches!(v, Value::Residue(_, m) if m != n);
            if let Some(all) = items.iter().map(plain).collect::<Option<Vec<_>>>()
                && items.iter().all(same)
            {
                return Some(Value::Residue(Box::new(Value::List(all)), n.clone()));
            }
        }
        // f(x) = x^2, x \ge 0
        let alternative = tokens.iter().any(|t| is_word(&t.tok, &["or"]) || is_cmd(Some(t), "lor"));
        if let [Value::Scalar(_, None) | Value::Assignment(..) | Value::Within(..), Value::Region(_), ..] =
            items.as_slice()
            && !alternative
            && items[1..].iter().all(|v| matches!(v, Value::Region(_)))
        {
            let bounds: Vec<Region> = items[1..]
                .iter()
                .filter_map(|v| if let Value::Region(r) = v { Some(r.clone()) } else { None })
                .collect();
            let first = items.remove(0);
            let whole = bounds.iter().fold(first.clone(), |v, r| held(v, r.clone(), self.steps));
            if matches!(whole, Value::Within(..)) {
                return Some(whole);
            }
            items = std::iter::once(first).chain(bounds.into_iter().map(Value::Region)).collect();
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
    pub(super) fn systems_or(&self, tokens: &[Token], depth: usize) -> Option<Value> {
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
}

/// The parts of a list without their labels, where every part has one: `(i) 2, (ii) 5`.
fn without_labels<'a>(parts: &[&'a [Token]]) -> Option<Vec<&'a [Token]>> {
    const SMALL: [&str; 6] = ["i", "ii", "iii", "iv", "v", "vi"];
    const LETTERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let label = |n: usize, part: &'a [Token]| match part {
        [open, Token { tok: Tok::Word(w), .. }, close, rest @ ..]
            if is(Some(open), '(') && is(Some(close), ')') && !rest.is_empty() =>
        {
            let known = [SMALL, LETTERS].iter().any(|l| l.get(n).is_some_and(|l| l == w));
            known.then_some(rest)
        }
        _ => None,
    };
    parts.iter().enumerate().map(|(n, p)| label(n, p)).collect()
}

/// What a name was given.
fn unnamed(value: Value) -> Value {
    match value {
        Value::Assignment(_, x) => *x,
        v => v,
    }
}
