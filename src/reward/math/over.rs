//! Values whose letters run through a domain: families of numbers, and what else repeats with its letters.

use super::domain::{Domain, Domains, stated};
use super::expr::{Expr, integer, var};
use super::family::family;
use super::lex::Token;
use super::parse::{Reader, Value, one_or_list};
use super::said_sets::left_out;

impl Reader<'_> {
    /// An answer and what its letters stand for, where that is said.
    pub(super) fn over_domains(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let (rest, domains) = stated(tokens)?;
        let letters = domains.iter().map(|d| d.0.clone()).collect();
        let value = Reader { steps: self.steps, letters }.value(rest, depth + 1)?;
        Some(self.over(value, domains))
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
                let turning = e.any(|p| matches!(p, Expr::Pow(_, n) if n.variables().iter().any(|v| v == name)));
                let half = |odd: i64| {
                    let counter = Expr::Add(vec![Expr::Mul(vec![integer(2), var(name)]), integer(odd)]);
                    family(&e.replace(name, &counter), name, self.steps).map(|(a, n)| Value::Family(a, n))
                };
                match (turning, turning.then(|| half(0)).flatten(), turning.then(|| half(1)).flatten()) {
                    (true, Some(even), Some(odd)) => Value::List(vec![even, odd]),
                    _ => Value::Scalar(e, None),
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
