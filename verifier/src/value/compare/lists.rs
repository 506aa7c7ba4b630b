//! Compares matrices and vectors with their names and components, and compares the members of lists, sets and systems
//! of equations.

use std::collections::BTreeMap;

use crate::steps::Steps;
use crate::value::Value;
use crate::value::compare::equal;
use crate::value::comparison::{Comparison, no, outcome, yes};
use crate::value::decide::decide;
use crate::value::expr::{Expr, integer};
use crate::value::family::{components, counted, same_families};
use crate::words;

pub(crate) fn matrices(a: &[Vec<Expr>], b: &[Vec<Expr>], steps: &Steps) -> Comparison {
    let shape = a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.len() == y.len());
    let same = shape && a.iter().flatten().zip(b.iter().flatten()).all(|(x, y)| decide(x, y, steps).equal);
    outcome(same, "equal entry by entry", if shape { "different entries" } else { "different shapes" })
}

/// Compares a matrix of one row or column with a tuple.
pub(crate) fn vector(rows: &[Vec<Expr>], items: &[Value], steps: &Steps) -> Comparison {
    let line = rows.len() == 1 || rows.iter().all(|r| r.len() == 1);
    let entries: Vec<&Expr> = rows.iter().flatten().collect();
    let same = line
        && entries.len() == items.len()
        && entries.iter().zip(items).all(|(e, v)| matches!(v, Value::Scalar(x, None) if decide(e, x, steps).equal));
    outcome(same, "equal entry by entry", "different entries")
}

/// Compares `2i - 3j` with `(2, -3)`.
pub(crate) fn along_axes(e: &Expr, items: &[Value], steps: &Steps) -> Comparison {
    let Some(parts) = components(e, false, steps).filter(|_| items.len() == 2 || items.len() == 3) else {
        return no("different kinds");
    };
    let part = |n: usize| Value::Scalar(parts[n].clone(), None);
    let flat = items.len() == 3 || decide(&parts[2], &integer(0), steps).equal;
    let list: Vec<Value> = (0..items.len()).map(part).collect();
    if flat { ordered(items, &list, steps) } else { no("different members") }
}

/// Compares vectors that are written with unit vectors, whatever their accents: `2\vec{i} - \vec{j}` and `2\hat{i} - \hat{j}`.
/// Returns `None` if neither expression is one.
pub(crate) fn same_vectors(a: &Expr, b: &Expr, steps: &Steps) -> Option<bool> {
    let (x, y) = (components(a, false, steps), components(b, false, steps));
    if x.is_none() && y.is_none() {
        return None;
    }
    // Beside a vector, `i` is a unit vector, too.
    let all = x.or_else(|| components(a, true, steps))?.into_iter().zip(y.or_else(|| components(b, true, steps))?);
    Some(all.into_iter().all(|(x, y)| decide(&x, &y, steps).equal))
}

/// Maximum length of an unordered list that is compared.
const MAX_ITEMS: usize = 64;

/// Compares lists and sets with each other or with a single value. Returns `None` if neither value is one.
pub(crate) fn listed(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    if let Some((a, b)) = families(gold, answer, steps) {
        return Some(outcome(same_families(&a, &b, steps), "the same family", "different families"));
    }
    match (gold, answer) {
        (Value::List(a), Value::List(b)) => {
            let (x, y) = (by_name(a), by_name(b));
            match (x.len() == a.len(), y.len() == b.len()) {
                // Compares "x = 1, y = 2" with "1, 2" in the order in which they are written.
                (true, false) | (false, true) if x.is_empty() || y.is_empty() => {
                    let values = |l: &[Value]| l.iter().map(|v| v.unnamed().clone()).collect::<Vec<_>>();
                    return Some(ordered(&values(a), &values(b), steps));
                }
                // R = 5, r = 3 differs from R = 3, r = 5.
                (true, true) if x.keys().eq(y.keys()) => {
                    let same = x.values().zip(y.values()).all(|(x, y)| equal(x, y, steps).equal);
                    return Some(outcome(same, "equal by name", "different members"));
                }
                _ => {}
            }
            // In a list of yes and no, the order matters.
            let says = |t: &str| words::polar(t).is_some() && !matches!(t, "t" | "f");
            let word = |v: &Value| matches!(v, Value::Text(t) | Value::Scalar(Expr::Var(t), None) if says(t));
            let is_polar = |l: &[Value]| l.iter().any(word);
            Some(if is_polar(a) && is_polar(b) { ordered(a, b, steps) } else { unordered(a, b, steps) })
        }
        (Value::List(a) | Value::Set(a), Value::List(b) | Value::Set(b)) => {
            Some(unordered(&distinct(a, steps), &distinct(b, steps), steps))
        }
        (Value::List(list), Value::Tuple(t)) | (Value::Tuple(t), Value::List(list)) => {
            let plain: Vec<Value> = list.iter().map(|v| v.unnamed().clone()).collect();
            Some(ordered(&plain, t, steps))
        }
        (Value::Set(a), one @ (Value::Scalar(..) | Value::Assignment(..) | Value::Tuple(_)))
        | (one @ (Value::Scalar(..) | Value::Assignment(..) | Value::Tuple(_)), Value::Set(a)) => {
            if a.len() == 1 {
                return Some(equal(&a[0], one, steps));
            }
            match one {
                Value::Assignment(_, inner) if matches!(**inner, Value::Set(_)) => None,
                _ => Some(no("one value and several")),
            }
        }
        (Value::List(_), _) | (_, Value::List(_)) => Some(no("one value and several")),
        _ => None,
    }
}

/// The first member and the step of each family.
type Families = Vec<(Expr, Expr)>;

/// Returns both values as lists of families, if one of them is a family or a list of families.
pub(crate) fn families(gold: &Value, answer: &Value, steps: &Steps) -> Option<(Families, Families)> {
    fn one(v: &Value, steps: &Steps) -> Option<(Expr, Expr)> {
        match v.unnamed() {
            Value::Family(a, n) => Some((a.clone(), n.clone())),
            Value::Residue(a, n) => match &**a {
                Value::Scalar(a, None) => Some((a.clone(), n.clone())),
                _ => None,
            },
            Value::Scalar(e, None) => counted(e, steps),
            _ => None,
        }
    }
    let all = |v: &Value| match v {
        Value::List(items) if items.len() < MAX_ITEMS => items.iter().map(|v| one(v, steps)).collect(),
        v => one(v, steps).map(|f| vec![f]),
    };
    let family = |v: &Value| matches!(v, Value::Family(..));
    let sure = |v: &Value| match v {
        Value::List(items) => items.iter().any(|v| family(v.unnamed())),
        v => family(v),
    };
    if !sure(gold) && !sure(answer) {
        return None;
    }
    Some((all(gold)?, all(answer)?))
}

/// Returns the assignments by their names. All members of a system are assignments with distinct names.
fn by_name(items: &[Value]) -> BTreeMap<&str, &Value> {
    items.iter().filter_map(|v| if let Value::Assignment(name, _) = v { Some((&**name, v)) } else { None }).collect()
}

pub(crate) fn ordered(a: &[Value], b: &[Value], steps: &Steps) -> Comparison {
    let same = a.len() == b.len() && a.iter().zip(b).all(|(x, y)| equal(x, y, steps).equal);
    outcome(same, "equal in order", "different members")
}

pub(crate) fn distinct(items: &[Value], steps: &Steps) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if kept.len() >= MAX_ITEMS || !kept.iter().any(|k| equal(k, item, steps).equal) {
            kept.push(item.clone());
        }
    }
    kept
}

pub(crate) fn unordered(a: &[Value], b: &[Value], steps: &Steps) -> Comparison {
    if a.len() != b.len() {
        return no("different numbers of members");
    }
    let in_order = a.iter().zip(b).all(|(x, y)| x == y);
    if in_order {
        return yes("equal members");
    }
    if a.len() > MAX_ITEMS {
        return ordered(a, b, steps);
    }
    let mut rest: Vec<&Value> = b.iter().collect();
    for x in a {
        let Some(i) = rest.iter().position(|y| equal(x, y, steps).equal) else { return no("different members") };
        rest.remove(i);
    }
    yes("equal members")
}
