//! Equality of values.

use super::expr::{BigRational, Expr};
use super::parse::{Bound, Value};

/// Relative difference of f64 results that counts as equal: far above rounding, far below any wrong answer.
const RELATIVE: f64 = 1e-9;
/// A decimal this many times nearer to a number than the number's size is that number.
const NEAR: i64 = 1_000_000_000;
/// Sample points of expressions with variables.
const POINTS: u64 = 5;
/// Fewest significant digits of a decimal that may stand for a number it only approximates.
const MIN_SIGNIFICANT: u32 = 6;
/// Longest unordered list that is compared.
const MAX_ITEMS: usize = 64;

/// The outcome, with the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Whether they are equal.
    pub equal: bool,
    /// Why.
    pub why: &'static str,
}

fn yes(why: &'static str) -> Comparison {
    Comparison { equal: true, why }
}

fn no(why: &'static str) -> Comparison {
    Comparison { equal: false, why }
}

/// Compares a gold value with an answer's.
pub fn equal(gold: &Value, answer: &Value) -> Comparison {
    match (gold, answer) {
        (Value::Assignment(a, x), Value::Assignment(b, y)) => {
            if a.eq_ignore_ascii_case(b) {
                equal(x, y)
            } else {
                no("different names")
            }
        }
        // y = 2x + 1 and 2x - y + 1 = 0.
        (Value::Assignment(name, x), Value::Equation(a, b)) => as_equation(name, x, a, b),
        (Value::Equation(a, b), Value::Assignment(name, x)) => as_equation(name, x, a, b),
        (Value::Assignment(_, x), y) => equal(x, y),
        (x, Value::Assignment(_, y)) => equal(x, y),
        (Value::Equation(a, b), Value::Equation(c, d)) => equations(a, b, c, d),
        (Value::Scalar(a, u), Value::Scalar(b, v)) => scalars(a, u.as_deref(), b, v.as_deref()),
        (Value::Tuple(a), Value::Tuple(b)) => ordered(a, b),
        (Value::Interval(a, b), Value::Interval(c, d)) => {
            let same = |x: &Bound, y: &Bound| x.closed == y.closed && expressions(&x.at, &y.at).equal;
            if same(a, c) && same(b, d) { yes("equal intervals") } else { no("different intervals") }
        }
        // (a, b) is the pair or the open interval; [a, b] the list or the closed interval.
        (Value::Tuple(t), Value::Interval(a, b)) | (Value::Interval(a, b), Value::Tuple(t)) => match t.as_slice() {
            [Value::Scalar(x, None), Value::Scalar(y, None)] if a.closed == b.closed => {
                let same = expressions(x, &a.at).equal && expressions(y, &b.at).equal;
                if same && !a.closed { yes("equal intervals") } else { no("different intervals") }
            }
            _ => no("different kinds"),
        },
        (Value::Union(a), Value::Union(b)) => unordered(a, b),
        (Value::List(a) | Value::Set(a), Value::List(b) | Value::Set(b)) => unordered(a, b),
        (Value::Set(a), one @ Value::Scalar(..)) | (one @ Value::Scalar(..), Value::Set(a)) if a.len() == 1 => {
            equal(&a[0], one)
        }
        (Value::Text(a), Value::Text(b)) => {
            // Notation that is not understood is compared as it stands.
            let notation = a.contains('\\') || b.contains('\\');
            let compact = |t: &str| t.split_whitespace().collect::<String>();
            let same = if notation { compact(a) == compact(b) } else { words(a) == words(b) };
            if same { yes("equal words") } else { no("different words") }
        }
        _ => no("different kinds"),
    }
}

/// Words without case, articles, quotes and space.
pub fn words(text: &str) -> String {
    let clean: String =
        text.chars().map(|c| if c.is_alphanumeric() || "+-*/=<>.%".contains(c) { c } else { ' ' }).collect();
    let lower = clean.to_lowercase();
    let mut kept: Vec<&str> = lower.split_whitespace().collect();
    if kept.len() > 1 && matches!(kept[0], "the" | "a" | "an") {
        kept.remove(0);
    }
    kept.join(" ").trim_matches('.').trim().to_owned()
}

fn ordered(a: &[Value], b: &[Value]) -> Comparison {
    if a.len() == b.len() && a.iter().zip(b).all(|(x, y)| equal(x, y).equal) {
        yes("equal in order")
    } else {
        no("different members")
    }
}

fn distinct(items: &[Value]) -> Vec<&Value> {
    let mut kept: Vec<&Value> = Vec::new();
    for item in items {
        if !kept.iter().any(|k| equal(k, item).equal) {
            kept.push(item);
        }
    }
    kept
}

fn unordered(a: &[Value], b: &[Value]) -> Comparison {
    if a.len() > MAX_ITEMS || b.len() > MAX_ITEMS {
        return no("too many members");
    }
    let (a, mut b) = (distinct(a), distinct(b));
    for x in &a {
        match b.iter().position(|y| equal(x, y).equal) {
            Some(i) => drop(b.remove(i)),
            None => return no("different members"),
        }
    }
    if b.is_empty() { yes("equal members") } else { no("different members") }
}

fn scalars(a: &Expr, unit_a: Option<&str>, b: &Expr, unit_b: Option<&str>) -> Comparison {
    let percent = |u: Option<&str>| u == Some("%");
    if percent(unit_a) != percent(unit_b) {
        // 50% is 0.5, and 50 where the question asked for percent.
        let hundredth = |e: &Expr| {
            Expr::Mul(vec![e.clone(), Expr::Num { value: BigRational::new(1.into(), 100.into()), decimals: None }])
        };
        let scaled = if percent(unit_a) { expressions(&hundredth(a), b) } else { expressions(a, &hundredth(b)) };
        return if scaled.equal { scaled } else { expressions(a, b) };
    }
    match (unit_a, unit_b) {
        (Some(u), Some(v)) if u != v => no("different units"),
        _ => expressions(a, b),
    }
}

/// Two scalar expressions.
fn expressions(a: &Expr, b: &Expr) -> Comparison {
    if let (Some(x), Some(y)) = (a.exact(), b.exact()) {
        if x == y {
            return yes("equal numbers");
        }
        return if approximates(a, &x, &y) || approximates(b, &x, &y) {
            yes("equal to the digits given")
        } else {
            no("different numbers")
        };
    }
    let decimals = [a, b].iter().filter_map(|e| e.decimal()).filter(|d| d.1 >= MIN_SIGNIFICANT).map(|d| d.0).max();
    let free = a.has_variables() || b.has_variables();
    let mut compared = 0;
    for point in 0..if free { POINTS } else { 1 } {
        let (x, y) = (a.at(point), b.at(point));
        // Beyond what f64 holds, two values that look equal (both infinite, both 0) are not known to be.
        let held = |v: (f64, f64)| v.0.is_finite() && v.1.is_finite();
        if x == y && held(x) {
            compared += 1;
            continue;
        }
        let size = x.0.hypot(x.1).max(y.0.hypot(y.1));
        if x.0.is_nan() || x.1.is_nan() || y.0.is_nan() || y.1.is_nan() {
            // A sample point outside the domain of one of them says nothing; a number without a value is no answer.
            if free {
                continue;
            }
            return no("no value to compare");
        }
        if !size.is_finite() {
            return no("different values");
        }
        let difference = (x.0 - y.0).hypot(x.1 - y.1);
        let rounded = decimals.is_some_and(|d| difference <= 0.51 * 10f64.powi(-(d as i32)));
        if difference > RELATIVE * size && !rounded {
            return no("different values");
        }
        compared += 1;
    }
    if compared > 0 { yes("equal values") } else { no("no value to compare") }
}

/// Whether `e`, a decimal of six digits and more, is the other number rounded or cut to its digits; `x` and `y`
/// are the two values.
fn approximates(e: &Expr, x: &BigRational, y: &BigRational) -> bool {
    let Some((decimals, significant)) = e.decimal() else { return false };
    let zero = BigRational::from_integer(0.into());
    let size = |v: BigRational| if v < zero { -v } else { v };
    let difference = size(x - y);
    // Digits of a binary fraction printed in full: 0.30000000000000004.
    if &difference * BigRational::from_integer(NEAR.into()) <= size(x.clone()) {
        return true;
    }
    if significant < MIN_SIGNIFICANT {
        return false;
    }
    let digit = BigRational::new(1.into(), num_bigint::BigInt::from(10).pow(decimals));
    // A number written with more digits than the other has is another number, not a rounding of it.
    let other = if e.exact().as_ref() == Some(x) { y } else { x };
    let cut = difference < digit;
    cut && !is_decimal_within(other, decimals)
}

/// True when `x` has no more than `decimals` digits after the point.
fn is_decimal_within(x: &BigRational, decimals: u32) -> bool {
    (x * BigRational::from_integer(num_bigint::BigInt::from(10).pow(decimals))).is_integer()
}

/// `name = value` beside `a = b`.
fn as_equation(name: &str, value: &Value, a: &Expr, b: &Expr) -> Comparison {
    match value {
        Value::Scalar(e, None) => equations(&Expr::Var(name.to_owned()), e, a, b),
        _ => no("different kinds"),
    }
}

/// Equations are equal when one is a constant multiple of the other.
fn equations(a: &Expr, b: &Expr, c: &Expr, d: &Expr) -> Comparison {
    let side = |l: &Expr, r: &Expr, point| {
        let (l, r) = (l.at(point), r.at(point));
        (l.0 - r.0, l.1 - r.1)
    };
    let mut factor: Option<f64> = None;
    for point in 0..POINTS {
        let (f, g) = (side(a, b, point), side(c, d, point));
        if f.1 != 0.0 || g.1 != 0.0 || !f.0.is_finite() || !g.0.is_finite() || g.0.abs() < 1e-9 {
            continue;
        }
        let q = f.0 / g.0;
        match factor {
            Some(first) if (q - first).abs() > 1e-7 * first.abs() => return no("different equations"),
            _ => factor = factor.or(Some(q)),
        }
    }
    match factor {
        Some(q) if q.abs() > 1e-9 => yes("equal equations"),
        _ => no("different equations"),
    }
}
