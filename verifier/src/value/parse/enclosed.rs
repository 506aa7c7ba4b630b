//! Parses sets, tuples and intervals in brackets, and environments of rows.

use crate::lexicon::Kind;
use crate::steps::Steps;
use crate::value::Value;
use crate::value::exact::exact;
use crate::value::expr::Expr;
use crate::value::lex::{Tok, Token, shown};
use crate::value::parse::relation::{name_of, relation_sign, variable_of};
use crate::value::parse::{MAX_ITEMS, Reader, is_comma, is_kind, names, nesting, one_or_list, outside, split};
use crate::value::region::{Region, Span};

impl Reader<'_> {
    /// Parses the rows of a system of equations or of an aligned calculation.
    pub(crate) fn environment(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let (Tok::Cmd(open), Tok::Cmd(close)) = (&tokens.first()?.tok, &tokens.last()?.tok) else { return None };
        let kind = open.strip_prefix("begin ")?;
        if close.strip_prefix("end ") != Some(kind) || kind.ends_with("matrix") || kind == "array" {
            return None;
        }
        let row = |t: &Tok| matches!(t, Tok::Cmd(c) if c == "\\" || c == "cr");
        let rows = split(&tokens[1..tokens.len() - 1], row)?.into_iter().filter(|r| !r.is_empty());
        let items: Option<Vec<Value>> = rows.map(|r| self.row(r, depth + 1)).collect();
        Some(items.and_then(one_or_list))
    }

    /// Parses an equation, or a value with its condition: `x^2 & \text{if } x > 0`.
    fn row(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let parts = split(tokens, |t| *t == Tok::Sym('&'))?;
        if let [value, condition] = parts.as_slice()
            && !value.is_empty()
            && value.iter().all(|t| relation_sign(&t.tok).is_none())
            && relation_sign(&condition.first()?.tok).is_none()
        {
            let said = condition.iter().take_while(|t| is_kind(&t.tok, Kind::Condition)).count();
            return Some(Value::Tuple(vec![self.value(value, depth)?, self.value(&condition[said..], depth)?]));
        }
        self.value(&parts.concat(), depth)
    }

    /// Parses a set, tuple or interval that takes up all of `tokens`.
    pub(crate) fn bracketed(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let (open, close) = (&tokens.first()?.tok, &tokens.last()?.tok);
        let cmd = |t: &Tok, name: &str| matches!(t, Tok::Cmd(c) if c == name);
        let set = cmd(open, "{") && cmd(close, "}");
        let angle =
            (cmd(open, "langle") && cmd(close, "rangle")) || (*open == Tok::Sym('<') && *close == Tok::Sym('>'));
        let round = matches!(open, Tok::Sym('(' | '[')) && matches!(close, Tok::Sym(')' | ']'));
        let grouped = *open == Tok::Sym('{') && *close == Tok::Sym('}');
        if tokens.len() < 2 || !(set || round || grouped || angle) {
            return None;
        }
        let mut level = 0;
        for (i, t) in tokens.iter().enumerate() {
            level += nesting(&t.tok);
            if level == 0 && i + 1 < tokens.len() {
                return None;
            }
        }
        let inside = &tokens[1..tokens.len() - 1];
        if inside.is_empty() {
            return Some((set || grouped).then(|| Value::Set(Vec::new())));
        }
        if set && let Some(v) = self.builder(inside, depth) {
            return Some(v);
        }
        let Some(parts) = split(inside, is_comma) else { return Some(None) };
        if grouped && parts.len() == 1 {
            return Some(self.value(inside, depth + 1).or_else(|| self.quantity(tokens)));
        }
        if round && parts.len() == 1 {
            // Brackets around the complete answer.
            let plain = *open == Tok::Sym('(') && *close == Tok::Sym(')');
            return if plain && self.quantity(tokens).is_none() { Some(self.value(inside, depth + 1)) } else { None };
        }
        if parts.len() > MAX_ITEMS {
            return Some(None);
        }
        let mut items = Vec::new();
        for p in parts {
            match self.value(p, depth + 1) {
                Some(Value::List(inner)) if set || grouped => items.extend(inner),
                Some(v) => items.push(v),
                None => return Some(None),
            }
        }
        if set || grouped {
            return Some(Some(Value::Set(items)));
        }
        if let ([Value::Scalar(a, None), Value::Scalar(b, None)], Tok::Sym(o), Tok::Sym(c)) =
            (items.as_slice(), open, close)
            && !angle
            && !is_falling(a, b, self.steps)
            && (*o == '[' || *c == ']' || a.is_infinite().is_some() || b.is_infinite().is_some())
        {
            let span = Span { low: a.clone(), low_closed: *o == '[', high: b.clone(), high_closed: *c == ']' };
            return Some(Some(Value::Region(Region::new(vec![span]))));
        }
        Some(Some(Value::Tuple(items)))
    }

    /// Parses set-builder notation: `\{x \mid x > 3\}`, `\{x \in \mathbb{R} : x \ne 0\}`.
    pub(crate) fn builder(&self, inside: &[Token], depth: usize) -> Option<Option<Value>> {
        let bar = |t: &Tok| matches!(t, Tok::Sym('|' | ':'));
        let parts = split(inside, bar)?;
        let [name, condition] = parts.as_slice() else { return None };
        let domain = split(name, names("in"))?;
        variable_of(domain[0])?;
        let value = self.value(condition, depth + 1);
        Some(value.and_then(|v| match (v, domain.get(1).map(|d| self.value(d, depth + 1))) {
            (Value::Region(r), Some(Some(Value::Region(d)))) => r.intersection(&d, self.steps).map(Value::Region),
            (v, None) => Some(v),
            (Value::Equation(a, b), Some(Some(Value::Region(_)))) => Some(Value::Equation(a, b)),
            (v, _) => Some(Value::Tuple(vec![v])),
        }))
    }
}

impl Reader<'_> {
    pub(crate) fn member(&self, name: &[Token], set: &[Token], inside: bool, depth: usize) -> Option<Value> {
        let variable = variable_of(name);
        if variable.is_none() && name_of(name).is_none() {
            return None;
        }
        match self.value(set, depth + 1)? {
            Value::Tuple(items) if items.len() == 2 => Some(Value::Region(open_interval(&items)?)),
            Value::Region(r) if inside => Some(Value::Region(r)),
            Value::Region(r) => r.complement(self.steps).map(Value::Region),
            Value::Set(items) if !inside => points(&items)?.complement(self.steps).map(Value::Region),
            v => inside.then_some(v),
        }
    }

    /// Parses unions, intersections and differences.
    pub(crate) fn set_arithmetic(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let sign = |t: &Tok| match t {
            Tok::Cmd(c) => matches!(c.as_str(), "cup" | "cap" | "setminus"),
            Tok::Word(w) => w == "U",
            _ => false,
        };
        let ops: Vec<String> = outside(tokens).filter(|t| sign(t)).map(shown).collect();
        if ops.is_empty() {
            return None;
        }
        let parts = split(tokens, sign)?;
        Some(self.joined(&parts, &ops, depth).map(Value::Region))
    }

    fn joined(&self, parts: &[&[Token]], ops: &[String], depth: usize) -> Option<Region> {
        let braced = |p: &[Token]| matches!(p.first().map(|t| &t.tok), Some(Tok::Sym('{')));
        let removes = ops.iter().any(|op| op == "setminus");
        let values: Vec<Value> = parts.iter().map(|p| self.value(p, depth + 1)).collect::<Option<_>>()?;
        let region = |(p, v): (&&[Token], &Value)| match v {
            Value::Scalar(..) if removes || braced(p) => points(std::slice::from_ref(v)),
            v => as_region(v),
        };
        let mut regions = parts.iter().zip(&values).map(region).collect::<Option<Vec<_>>>()?.into_iter();
        let first = regions.next()?;
        ops.iter().zip(regions).try_fold(first, |total, (op, r)| match op.as_str() {
            "cap" => total.intersection(&r, self.steps),
            "setminus" => total.intersection(&r.complement(self.steps)?, self.steps),
            _ => Some(total.union(r)),
        })
    }
}

/// Returns the open interval that a pair of numbers may mean.
pub(crate) fn open_interval(items: &[Value]) -> Option<Region> {
    let [Value::Scalar(a, None), Value::Scalar(b, None)] = items else { return None };
    Some(Region::new(vec![Span::between(a.clone(), b.clone(), false)]))
}

/// Returns single numbers as a region.
pub(crate) fn points(items: &[Value]) -> Option<Region> {
    let each = items.iter().map(|v| match v {
        Value::Scalar(e, None) => Some(Span::point(e.clone())),
        _ => None,
    });
    each.collect::<Option<Vec<_>>>().map(Region::new)
}

fn as_region(v: &Value) -> Option<Region> {
    match v {
        Value::Region(r) => Some(r.clone()),
        Value::Tuple(items) => open_interval(items),
        Value::Set(items) => points(items),
        _ => None,
    }
}

/// Returns true if the first number is not smaller than the second. Such numbers are not the ends of an interval.
fn is_falling(a: &Expr, b: &Expr, steps: &Steps) -> bool {
    matches!((exact(a, steps), exact(b, steps)), (Some(x), Some(y)) if x >= y)
}
