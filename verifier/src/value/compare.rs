//! Compares two parsed values.

use crate::steps::{Rational, Steps};
use crate::value::compare::amounts::scalars;
use crate::value::compare::equations::{as_equation, equations, is_asked, letters, same_name};
use crate::value::compare::lists::{along_axes, listed, matrices, ordered, same_vectors, vector};
use crate::value::comparison::{Comparison, no, outcome};
use crate::value::decide::{decide, proportional};
use crate::value::exact::exact;
use crate::value::expr::{Expr, divide, integer, minus, number};
use crate::value::lex::{is, lex, shown};
use crate::value::parse::enclosed::open_interval;
use crate::value::region::{Region, Span};
use crate::value::{Unit, Value};
use crate::words;

pub(crate) mod amounts;
pub(crate) mod equations;
pub(crate) mod lists;

/// Compares a gold value with the value of an answer.
pub fn equal(gold: &Value, answer: &Value, steps: &Steps) -> Comparison {
    if steps.spend(4).is_none() {
        return no("too much work to compare");
    }
    if let Some(c) = listed(gold, answer, steps) {
        return c;
    }
    match (gold, answer) {
        (Value::Sided(s, _), Value::Sided(t, _)) if s != t => no("different directions"),
        (Value::Sided(_, a), Value::Sided(_, b)) => equal(a, b, steps),
        (Value::Sided(_, a), b) => equal(a, b, steps),
        (a, Value::Sided(_, b)) => equal(a, b, steps),
        (Value::Assignment(a, _), Value::Assignment(b, _)) if !same_name(a, b) => no("different names"),
        // Equal: y = 2x + 1 and 2x - y + 1 = 0.
        (Value::Assignment(name, x), Value::Equation(a, b)) => as_equation(name, x, a, b, steps),
        (Value::Equation(a, b), Value::Assignment(name, x)) => as_equation(name, x, a, b, steps),
        (Value::Assignment(_, x), Value::Assignment(_, y)) => equal(x, y, steps),
        (Value::Assignment(_, x), y) => equal(x, y, steps),
        (x, Value::Assignment(_, y)) => equal(x, y, steps),
        // Equal: 204 and m + n = 204, if the question asked for m + n.
        (Value::Scalar(..), Value::Equation(a, b) | Value::Equation(b, a)) if is_asked(a) && !b.has_variables() => {
            equal(gold, &Value::Scalar(b.clone(), None), steps)
        }
        (Value::Equation(a, b), Value::Equation(c, d)) => {
            equations(&minus(a.clone(), b.clone()), &minus(c.clone(), d.clone()), steps)
        }
        _ => amounts(gold, answer, steps)
            .or_else(|| ranges(gold, answer, steps))
            .or_else(|| counted_values(gold, answer, steps))
            .or_else(|| compare_words(gold, answer, steps))
            .unwrap_or(no("different kinds")),
    }
}

/// Compares numbers, expressions, tuples and matrices.
fn amounts(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    Some(match (gold, answer) {
        (Value::Positive(a, s), Value::Positive(b, t)) => {
            outcome(s == t && proportional(a, b, steps) == Some(true), "equal inequalities", "different inequalities")
        }
        (Value::Scalar(a, None), Value::Scalar(b, None)) => match same_vectors(a, b, steps) {
            Some(same) => outcome(same, "equal components", "different components"),
            None => scalars(a, None, b, None, steps),
        },
        (Value::Scalar(a, u), Value::Scalar(b, v)) => scalars(a, u.as_ref(), b, v.as_ref(), steps),
        (Value::Tuple(a), Value::Tuple(b)) => ordered(a, b, steps),
        (Value::Matrix(a), Value::Matrix(b)) => matrices(a, b, steps),
        (Value::Matrix(m), Value::Tuple(items)) | (Value::Tuple(items), Value::Matrix(m)) => vector(m, items, steps),
        (Value::Matrix(m), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Matrix(m)) => {
            let items: Vec<Value> = m.iter().flatten().map(|x| Value::Scalar(x.clone(), None)).collect();
            along_axes(e, &items, steps)
        }
        (Value::Tuple(t), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Tuple(t)) => {
            along_axes(e, t, steps)
        }
        (Value::Date(y, m, d), Value::Date(z, n, e)) => {
            outcome((y, m, d) == (z, n, e), "the same day", "different days")
        }
        _ => return None,
    })
}

/// Compares ranges of numbers, values that may be ranges, ratios and times of day.
fn ranges(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    Some(match (gold, answer) {
        (Value::Region(a), Value::Region(b)) => regions(a, b, steps),
        // (a, b) is a pair or an open interval. [a, b] is a list or a closed interval.
        (Value::Tuple(t), Value::Region(r)) | (Value::Region(r), Value::Tuple(t)) => match open_interval(t) {
            Some(i) => regions(&i, r, steps),
            None => no("different kinds"),
        },
        (Value::Ratio(a), Value::Ratio(b)) => ratios(a, b, steps),
        (interval @ Value::Range(..), other) | (other, interval @ Value::Range(..)) => range(interval, other, steps),
        (Value::Ratio(r), Value::Scalar(x, None)) | (Value::Scalar(x, None), Value::Ratio(r)) => match r.as_slice() {
            [a, b] => decide(&divide(a.clone(), b.clone()), x, steps),
            _ => no("different kinds"),
        },
        (Value::Time(a), Value::Time(b)) => outcome(a == b, "the same time", "different times"),
        (Value::Time(t), Value::Ratio(r)) | (Value::Ratio(r), Value::Time(t)) => match r.as_slice() {
            [h, m] => outcome(at_time(h, m, *t, steps), "the same time", "different times"),
            _ => no("different kinds"),
        },
        _ => return None,
    })
}

/// Compares hours and minutes with a time of day in minutes. Hours from one to twelve may mean either half of the day.
fn at_time(h: &Expr, m: &Expr, t: u32, steps: &Steps) -> bool {
    let Some((h, m)) = exact(h, steps).zip(exact(m, steps)) else { return false };
    let minutes = |n: u32| Rational::from_integer(n.into());
    let time = h * minutes(60) + m;
    let other = if time < minutes(720) { &time + minutes(720) } else { &time - minutes(720) };
    time == minutes(t) || ((minutes(60)..minutes(780)).contains(&time) && other == minutes(t))
}

/// Compares residues, families over the whole numbers.
fn counted_values(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    Some(match (gold, answer) {
        (Value::Residue(a, n), Value::Residue(b, m)) => {
            if !decide(n, m, steps).equal {
                return Some(no("different moduli"));
            }
            match (&**a, &**b) {
                (Value::Scalar(x, None), Value::Scalar(y, None)) => {
                    let rest = Expr::Call("mod", vec![minus(x.clone(), y.clone()), n.clone()]);
                    let zero = exact(&rest, steps).is_some_and(|r| r == Rational::from_integer(0.into()));
                    outcome(zero, "the same residue", "different residues")
                }
                (x, y) => equal(x, y, steps),
            }
        }
        // 69 mod 25 is 19 and not 69.
        (Value::Residue(a, n), y) => equal(&remainder(a, n, steps).unwrap_or((**a).clone()), y, steps),
        (x, Value::Residue(b, n)) => equal(x, &remainder(b, n, steps).unwrap_or((**b).clone()), steps),
        _ => return None,
    })
}

/// Returns the remainder of a number that is at least the modulus. Returns `None` for other residues.
pub(crate) fn remainder(value: &Value, modulus: &Expr, steps: &Steps) -> Option<Value> {
    let Value::Scalar(e, None) = value else { return None };
    let rest = exact(&Expr::Call("mod", vec![e.clone(), modulus.clone()]), steps)?;
    (exact(e, steps)? >= exact(modulus, steps)?).then(|| Value::Scalar(number(rest), None))
}

/// Compares words with words, or with a value that they may describe.
fn compare_words(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    Some(match (gold, answer) {
        (Value::Text(a), Value::Text(b)) => {
            // Notation that the parser does not understand is compared sign by sign.
            if is_notation(a) || is_notation(b) {
                let same = notation(a, steps) == notation(b, steps);
                return Some(outcome(same, "the same notation", "different notation"));
            }
            let same = words::same(a, b);
            outcome(same, "equal words", "different words")
        }
        // Letters side by side are a product if the other side is algebra: ab and a * b.
        (Value::Text(t), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Text(t)) => match letters(t) {
            Some(product) => decide(&product, e, steps),
            None => no("different kinds"),
        },
        // Sets that can also be described in words.
        (Value::Text(t), Value::Set(s)) | (Value::Set(s), Value::Text(t)) if s.is_empty() => {
            outcome(words::key(t) == "no solution", "the empty set", "different kinds")
        }
        (Value::Text(t), Value::Region(r)) | (Value::Region(r), Value::Text(t)) => {
            let all = Region::new(vec![Span::all()]);
            let same = words::key(t) == "all real numbers" && r.same(&all, steps);
            outcome(same, "all real numbers", "different kinds")
        }
        _ => return None,
    })
}

/// Compares the range `low to high` with a value that may be the same range: 10 to 15, 10-15, 10:15, [10, 15].
fn range(interval: &Value, other: &Value, steps: &Steps) -> Comparison {
    let Value::Range(low, high, unit) = interval else { return no("different kinds") };
    let unit = unit.as_ref();
    let ends = |a: &Expr, b: &Expr, u: Option<&Unit>| {
        scalars(low, unit, a, u, steps).equal && scalars(high, unit, b, u, steps).equal
    };
    let same = match other {
        Value::Range(a, b, u) => ends(a, b, u.as_ref()),
        Value::Ratio(parts) => matches!(parts.as_slice(), [a, b] if ends(a, b, None)),
        Value::Region(r) => {
            matches!(r.spans.as_slice(), [s] if s.low_closed && s.high_closed && ends(&s.low, &s.high, None))
        }
        Value::Scalar(x, u) => *x == minus(low.clone(), high.clone()) && ends(low, high, u.as_ref()),
        _ => false,
    };
    outcome(same, "the same range of numbers", "different ranges of numbers")
}

fn regions(a: &Region, b: &Region, steps: &Steps) -> Comparison {
    if let (Some(x), Some(y)) = (&a.variable, &b.variable)
        && !same_name(x, y)
    {
        return no("different names");
    }
    outcome(a.same(b, steps), "the same range of numbers", "different ranges of numbers")
}

fn ratios(a: &[Expr], b: &[Expr], steps: &Steps) -> Comparison {
    if a.len() != b.len() {
        return no("different numbers of parts");
    }
    // Ratios are equal if all parts are equal, or if the parts are in proportion. A part may be zero, as in 12:00.
    let same = a.iter().zip(b).all(|(x, y)| decide(x, y, steps).equal)
        || (1..a.len()).all(|i| {
            let cross = |x: &Expr, y: &Expr| Expr::Mul(vec![x.clone(), y.clone()]);
            let zero = |e: &Expr| decide(e, &integer(0), steps).equal;
            !zero(&a[0])
                && !zero(&b[0])
                && !zero(&a[i])
                && decide(&cross(&a[0], &b[i]), &cross(&b[0], &a[i]), steps).equal
        });
    outcome(same, "the same ratio", "different ratios")
}

/// Returns true for a text with signs that do not occur in words.
pub(crate) fn is_notation(text: &str) -> bool {
    text.contains(['\\', '^', '_', '|', '!', '<', '>', '='])
        || text.chars().any(|c| !c.is_ascii() && !c.is_alphabetic())
}

/// Returns the signs of a text in one canonical way of writing.
pub(crate) fn notation(text: &str, steps: &Steps) -> String {
    match lex(text, true, steps) {
        Some(tokens) => {
            // Braces around a single sign have no meaning.
            let brace = |n: usize, c: char| is(tokens.get(n), c);
            let idle = |n: usize| (brace(n, '{') && brace(n + 2, '}')) || (n > 1 && brace(n, '}') && brace(n - 2, '{'));
            let kept = tokens.iter().enumerate().filter(|(n, _)| !idle(*n));
            kept.map(|(_, t)| shown(&t.tok) + " ").collect()
        }
        None => text.split_whitespace().collect(),
    }
}
