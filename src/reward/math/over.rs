//! Values whose letters run through a domain: families of numbers, and what else repeats with its letters.

use super::Steps;
use super::domain::{Domain, Domains, stated};
use super::expr::{Expr, integer};
use super::family::{family, halves};
use super::lex::Token;
use super::parse::{Reader, Value, one_or_list};
use super::region::Region;
use super::said_sets::left_out;

/// Most values of a letter that are written out.
const MAX_RANGE: i64 = 60;

impl Reader<'_> {
    /// An answer and what its letters stand for, where that is said.
    pub(super) fn over_domains(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let (rest, domains) = stated(tokens)?;
        let letters = domains.iter().map(|d| d.0.clone()).collect();
        let value = Reader { steps: self.steps, letters }.value(rest, depth + 1)?;
        let used = super::over::letters(&value);
        // "y = 3, x = 1, 2" gives x values, and no domain.
        let told = |(n, d): &(String, Domain)| matches!(d, Domain::Whole | Domain::Real) || used.contains(n);
        domains.iter().all(told).then(|| self.over(value, domains))
    }

    /// A value and the range of its variable, where these tokens say one.
    pub(super) fn within(&self, value: Value, condition: &[Token], depth: usize) -> Value {
        match self.value(condition, depth + 1) {
            Some(Value::Region(r)) => held(value, r, self.steps),
            _ => value,
        }
    }

    /// A value for everything its letters stand for.
    pub(super) fn over(&self, value: Value, mut domains: Domains) -> Value {
        // -2 <= n <= 2 for whole n.
        if let Value::Region(r) = &value
            && let Some(name) = &r.variable
            && domains.iter().any(|(n, d)| n == name && *d == Domain::Whole)
        {
            return match r.whole_numbers(self.steps) {
                Some(points) => Value::Set(points.into_iter().map(|n| Value::Scalar(integer(n), None)).collect()),
                None => value,
            };
        }
        let used = letters(&value);
        domains.retain(|(n, _)| used.contains(n));
        let several = match &value {
            Value::List(items) => {
                let name = |v: &Value| if let Value::Assignment(n, _) = v { Some(n.clone()) } else { None };
                let names: Vec<_> = items.iter().map(name).collect();
                names.iter().all(Option::is_some) && (1..names.len()).all(|n| !names[..n].contains(&names[n]))
            }
            _ => false,
        };
        let placed = match &value {
            Value::Tuple(_) | Value::Matrix(_) | Value::Region(_) => true,
            Value::Assignment(_, v) => matches!(**v, Value::Tuple(_) | Value::Matrix(_)),
            _ => several,
        };
        match domains.as_slice() {
            [] => value,
            [(k, Domain::Range(first, last))] if last - first < MAX_RANGE && !matches!(value, Value::Region(_)) => {
                let each = (*first..=*last).map(|n| substituted(&value, k, &integer(n))).collect();
                one_or_list(each).unwrap_or(value)
            }
            [(k, Domain::Whole)] => {
                if let Value::Region(r) = &value
                    && let Some(point) = left_out(r)
                {
                    return match self.repeated(Value::Scalar(point, None), k) {
                        Value::Family(a, n) => Value::Except(vec![(a, n)]),
                        _ => Value::Over(Box::new(value), domains),
                    };
                }
                let k = k.clone();
                let repeated = if several { value } else { self.repeated(value, &k) };
                if letters(&repeated).contains(&k) { Value::Over(Box::new(repeated), domains) } else { repeated }
            }
            all if all.iter().all(|(_, d)| *d == Domain::Real) && !placed => value,
            _ => Value::Over(Box::new(value), domains),
        }
    }

    /// A value with a letter that stands for every whole number, as a family, or one for even and one for odd
    /// numbers: (-1)^k.
    pub(super) fn repeated(&self, value: Value, name: &str) -> Value {
        match value {
            Value::Scalar(e, None) => {
                if let Some((first, step)) = family(&e, name, self.steps) {
                    return Value::Family(first, step);
                }
                match halves(&e, name, self.steps) {
                    Some(both) => Value::List(both.into_iter().map(|(a, n)| Value::Family(a, n)).collect()),
                    None => Value::Scalar(e, None),
                }
            }
            Value::Assignment(x, inner) if x != name => match self.repeated(*inner, name) {
                Value::List(items) => {
                    Value::List(items.into_iter().map(|v| Value::Assignment(x.clone(), Box::new(v))).collect())
                }
                v => Value::Assignment(x, Box::new(v)),
            },
            Value::List(items) => {
                let mut all = Vec::new();
                for v in items {
                    match self.repeated(v, name) {
                        Value::List(inner) => all.extend(inner),
                        v => all.push(v),
                    }
                }
                one_or_list(all).unwrap_or(Value::List(Vec::new()))
            }
            Value::Set(items) => match self.repeated(Value::List(items), name) {
                Value::List(items) => Value::Set(items),
                v => Value::Set(vec![v]),
            },
            v => v,
        }
    }
}

/// A value within a region of its variable; elsewhere a region says nothing about it.
pub(super) fn held(value: Value, r: Region, steps: &Steps) -> Value {
    match value {
        Value::Within(v, old) if old.variable == r.variable => match old.intersection(&r, steps) {
            Some(both) => Value::Within(v, both),
            None => Value::Within(v, old),
        },
        v @ (Value::Scalar(_, None) | Value::Assignment(..))
            if r.variable
                .as_ref()
                .is_some_and(|n| letters(&v).contains(n) && !matches!(&v, Value::Assignment(x, _) if x == n)) =>
        {
            Value::Within(Box::new(v), r)
        }
        v => v,
    }
}

/// A value with a letter replaced.
pub(super) fn substituted(v: &Value, name: &str, by: &Expr) -> Value {
    let each = |items: &[Value]| items.iter().map(|v| substituted(v, name, by)).collect();
    match v {
        Value::Scalar(e, unit) => Value::Scalar(e.replace(name, by), unit.clone()),
        Value::Assignment(x, v) => Value::Assignment(x.clone(), Box::new(substituted(v, name, by))),
        Value::Tuple(items) => Value::Tuple(each(items)),
        Value::List(items) => Value::List(each(items)),
        Value::Set(items) => Value::Set(each(items)),
        Value::Equation(a, b) => Value::Equation(a.replace(name, by), b.replace(name, by)),
        v => v.clone(),
    }
}

/// The free letters of a value, where it can have some.
pub(super) fn letters(v: &Value) -> Vec<String> {
    match v {
        Value::Scalar(e, _) => e.variables(),
        Value::Assignment(_, v) | Value::Sided(_, v) => letters(v),
        Value::List(items) | Value::Set(items) | Value::Tuple(items) => items.iter().flat_map(letters).collect(),
        Value::Region(r) => r.spans.iter().flat_map(|s| [&s.low, &s.high]).flat_map(Expr::variables).collect(),
        Value::Matrix(rows) => rows.iter().flatten().flat_map(Expr::variables).collect(),
        Value::Equation(a, b) => [a, b].into_iter().flat_map(Expr::variables).collect(),
        _ => Vec::new(),
    }
}
