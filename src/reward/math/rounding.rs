//! Answers that give a value exactly and rounded: "\ln 2 \approx 0.693", "100/7, or about 14.29".

use std::cmp::Ordering;
use std::sync::LazyLock;

use num_bigint::BigInt;
use regex::Regex;

use super::compare::equal;
use super::decide::order;
use super::expr::{Expr, integer, minus, number};
use super::parse::{Value, parse};
use super::unit::Unit;
use super::{Rational, Steps};

/// Longest text that is taken apart.
const MAX: usize = 200;

/// True where one text gives an exact value with its rounding, and the other is that rounding.
pub fn same_rounding(gold: &str, answer: &str, steps: &Steps) -> bool {
    let says = |both: &str, one: &str| {
        let Some(nearly) = rounding(both, steps) else { return false };
        // A whole number may be the exact count.
        let decimal = one.contains('.') && rounding(one, steps).is_none();
        decimal && equal(&parse(one, true, steps), &nearly, steps).equal
    };
    says(answer, gold) || says(gold, answer)
}

/// The rounded value of a text that gives it behind the exact one, where the one rounds to the other.
fn rounding(text: &str, steps: &Steps) -> Option<Value> {
    static ABOUT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"^(.+?)[\s,;(]*(?:\b(?:which is|or|that is|i\.e\.),?)?\s*(?:\\approx|\\simeq|\\doteq|[≈≃≐]|\b(?:about|approximately|approx\.?|roughly|around|nearly)\b)\s*([^≈]+?)\)?$",
        )
        .expect("a fixed pattern")
    });
    if text.len() > MAX {
        return None;
    }
    let parts = ABOUT.captures(text)?;
    let exact = parse(parts.get(1)?.as_str(), true, steps);
    let nearly = parse(parts.get(2)?.as_str(), true, steps);
    rounds(&exact, &nearly, steps).then(|| match exact {
        Value::Assignment(name, _) => Value::Assignment(name, Box::new(nearly)),
        _ => nearly,
    })
}

/// Whether a value differs from a decimal by less than a unit of its last digit.
fn rounds(exact: &Value, nearly: &Value, steps: &Steps) -> bool {
    let (exact, own, (nearly, unit)) = match (exact, nearly) {
        (Value::Assignment(_, v), _) => return rounds(v, nearly, steps),
        (Value::Scalar(e, own), Value::Scalar(n, unit)) => (e.clone(), own, (n, unit)),
        _ => return false,
    };
    let exact = match (own, unit) {
        (None, Some(Unit::Percent)) => Expr::Mul(vec![exact, integer(100)]),
        (a, b) if a.is_none() || b.is_none() || a == b => exact,
        _ => return false,
    };
    let (Some((decimals, _)), Some(value)) = (nearly.decimal(), nearly.exact(steps)) else { return false };
    let last = Rational::new(1.into(), BigInt::from(10).pow(decimals));
    let off = |sign: i64| minus(exact.clone(), number(&value + &last * Rational::from_integer(sign.into())));
    order(&off(-1), &integer(0), steps) == Some(Ordering::Greater)
        && order(&off(1), &integer(0), steps) == Some(Ordering::Less)
}
