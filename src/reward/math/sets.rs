//! Members, unions, intersections and differences of sets.

use super::lex::{Tok, Token};
use super::parse::{Reader, Value, nesting, split};
use super::region::{Region, Span};
use super::relation::{name_of, variable_of};
use super::said_sets::without;
use super::scalar::shown;

impl Reader<'_> {
    pub(super) fn member(&self, name: &[Token], set: &[Token], inside: bool, depth: usize) -> Option<Value> {
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

    /// Unions, intersections and differences.
    pub(super) fn set_arithmetic(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let sign = |t: &Tok| match t {
            Tok::Cmd(c) => matches!(c.as_str(), "cup" | "cap" | "setminus"),
            Tok::Word(w) => w == "U",
            _ => false,
        };
        let signs = |t: &&Token| sign(&t.tok);
        if !tokens.iter().any(|t| signs(&t)) {
            return None;
        }
        let mut level = 0;
        let mut ops = Vec::new();
        for t in tokens {
            level += nesting(&t.tok);
            if level == 0 && sign(&t.tok) {
                ops.push(shown(&t.tok));
            }
        }
        if ops.is_empty() {
            return None;
        }
        let parts = split(tokens, sign)?;
        // Plain braces hold a set here.
        let set = |v: Value| match v {
            Value::List(items) => Value::Set(items),
            v => v,
        };
        let braced = |p: &[Token]| matches!(p.first().map(|t| &t.tok), Some(Tok::Sym('{')));
        let values: Option<Vec<Value>> = parts
            .into_iter()
            .map(|p| {
                let value = self.value(p, depth + 1)?;
                Some(match value {
                    one @ Value::Scalar(..) if braced(p) => Value::Set(vec![one]),
                    one @ Value::Scalar(..) if ops.iter().any(|o| o == "setminus") => Value::Set(vec![one]),
                    v if braced(p) => set(v),
                    v => v,
                })
            })
            .collect();
        let Some(values) = values else { return Some(None) };
        if let [Value::Region(all), left_out] = values.as_slice()
            && ops == ["setminus"]
            && all.same(&Region::new(vec![Span::all()]), self.steps)
            && let Some(v @ Value::Except(_)) = without(left_out.clone(), self.steps)
        {
            return Some(Some(v));
        }
        let mut regions = Vec::new();
        for v in &values {
            match as_region(v) {
                Some(r) => regions.push(r),
                None => return Some(set_of_points(values.clone(), &ops)),
            }
        }
        let mut total = regions.remove(0);
        for (op, r) in ops.iter().zip(regions) {
            let next = match op.as_str() {
                "cap" => total.intersection(&r, self.steps),
                "setminus" => r.complement(self.steps).and_then(|c| total.intersection(&c, self.steps)),
                _ => Some(total.clone().union(r)),
            };
            match next {
                Some(next) => total = next,
                None => return Some(None),
            }
        }
        Some(Some(Value::Region(total)))
    }
}

/// The open interval that a pair may be.
pub(super) fn open_interval(items: &[Value]) -> Option<Region> {
    let [Value::Scalar(a, None), Value::Scalar(b, None)] = items else { return None };
    Some(Region::new(vec![Span { low: a.clone(), low_closed: false, high: b.clone(), high_closed: false }]))
}

/// Single numbers as a region.
pub(super) fn points(items: &[Value]) -> Option<Region> {
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

/// Sets of other things than numbers: their union as a set.
fn set_of_points(values: Vec<Value>, ops: &[String]) -> Option<Value> {
    if ops.iter().any(|o| o != "cup" && o != "U") {
        return None;
    }
    let mut all = Vec::new();
    for v in values {
        match v {
            Value::Set(items) => all.extend(items),
            _ => return None,
        }
    }
    Some(Value::Set(all))
}
