//! Lists, sets and systems: which members belong together.

use super::Steps;
use super::compare::{Comparison, equal, no, outcome, yes};
use super::expr::Expr;
use super::family::{counted, halves, same_families};
use super::names::same_name;
use super::parse::Value;
use super::relation::SAME;

/// Longest unordered list that is compared.
const MAX_ITEMS: usize = 64;

/// Lists, sets and what stands alone beside them.
pub(super) fn listed(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    let items = |v: &Value| match v {
        Value::List(items) | Value::Set(items) => Some(items.clone()),
        _ => None,
    };
    if let Some((a, b)) = families(gold, answer, steps) {
        return Some(outcome(same_families(&a, &b, steps), "the same family", "different families"));
    }
    match (gold, answer) {
        (Value::Assignment(names, v), Value::List(_) | Value::Tuple(_)) if names.contains(SAME) => {
            Some(equal(&Value::List(each(names, v)), answer, steps))
        }
        (Value::List(_) | Value::Tuple(_), Value::Assignment(names, v)) if names.contains(SAME) => {
            Some(equal(gold, &Value::List(each(names, v)), steps))
        }
        (Value::List(a), Value::List(b)) => {
            if let (Some(x), Some(y)) = (system(a), system(b)) {
                return Some(systems(&x, &y, steps));
            }
            if let Some(c) = indexed(a, b, steps).or_else(|| indexed(b, a, steps)) {
                return Some(c);
            }
            // x = 1, y = 2 beside 1, 2: in the order of writing.
            if system(a).is_some() != system(b).is_some() {
                let value = |v: &Value| if let Value::Assignment(_, x) = v { (**x).clone() } else { v.clone() };
                let (x, y): (Vec<_>, Vec<_>) = (a.iter().map(value).collect(), b.iter().map(value).collect());
                let plain = |l: &[Value]| l.iter().all(|v| !matches!(v, Value::Assignment(..)));
                // Points may be given labels that nobody asked for.
                let point =
                    |v: &Value| matches!(v, Value::Assignment(n, p) if n.len() == 1 && matches!(**p, Value::Tuple(_)));
                if plain(a) && b.iter().all(point) {
                    return Some(unordered(&x, &y, steps));
                }
                if plain(a) || plain(b) {
                    return Some(ordered(&x, &y, steps));
                }
            }
            Some(unordered(a, b, steps))
        }
        (Value::List(_) | Value::Set(_), Value::List(_) | Value::Set(_)) => {
            let (a, b) = (items(gold)?, items(answer)?);
            Some(unordered(&distinct(a, steps), &distinct(b, steps), steps))
        }
        (Value::List(list), Value::Tuple(t)) | (Value::Tuple(t), Value::List(list)) => {
            let value = |v: &Value| if let Value::Assignment(_, x) = v { (**x).clone() } else { v.clone() };
            let plain: Vec<Value> = list.iter().map(value).collect();
            let c = ordered(&plain, t, steps);
            if c.equal {
                return Some(c);
            }
            // y = 2, x = 1 is (1, 2).
            let mut named = system(list)?;
            named.sort_by(|x, y| x.0.cmp(&y.0));
            let sorted: Vec<Value> = named.into_iter().map(|(_, v)| v).collect();
            Some(ordered(&sorted, t, steps))
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
        (Value::Assignment(_, x), other) if matches!(**x, Value::Set(_) | Value::List(_)) => {
            Some(equal(x, other, steps))
        }
        (other, Value::Assignment(_, x)) if matches!(**x, Value::Set(_) | Value::List(_)) => {
            Some(equal(other, x, steps))
        }
        (Value::List(_), _) | (_, Value::List(_)) => Some(no("one value and several")),
        _ => None,
    }
}

/// Several names of one value, each with it.
pub(super) fn each(names: &str, value: &Value) -> Vec<Value> {
    names.split(SAME).map(|n| Value::Assignment(n.to_owned(), Box::new(value.clone()))).collect()
}

/// The two families of a value with (-1)^k in it.
fn turning(v: &Value, steps: &Steps) -> Option<Families> {
    match v {
        Value::Scalar(e, None) => match e.variables().as_slice() {
            [n] if matches!(n.as_str(), "k" | "n" | "m") => halves(e, n, steps).map(Vec::from),
            _ => None,
        },
        Value::Assignment(_, v) => turning(v, steps),
        _ => None,
    }
}

/// Families, each as one member and the step to the next.
type Families = Vec<(Expr, Expr)>;

/// Both as families, when one of them is a list of families.
pub(super) fn families(gold: &Value, answer: &Value, steps: &Steps) -> Option<(Families, Families)> {
    fn one(v: &Value, steps: &Steps) -> Option<(Expr, Expr)> {
        match v {
            Value::Family(a, n) => Some((a.clone(), n.clone())),
            Value::Scalar(e, None) => counted(e, steps),
            Value::Assignment(_, x) => one(x, steps),
            Value::Residue(x, n) => match &**x {
                Value::Scalar(a, None) => Some((a.clone(), n.clone())),
                _ => None,
            },
            _ => None,
        }
    }
    let all = |v: &Value| match v {
        Value::Residue(x, n) => match &**x {
            Value::List(items) => items
                .iter()
                .map(|v| match v {
                    Value::Scalar(a, None) => Some((a.clone(), n.clone())),
                    _ => None,
                })
                .collect(),
            _ => one(v, steps).map(|f| vec![f]),
        },
        Value::List(items) | Value::Set(items) if items.len() < MAX_ITEMS => {
            items.iter().map(|v| one(v, steps)).collect()
        }
        v => one(v, steps).map(|f| vec![f]).or_else(|| turning(v, steps)),
    };
    let sure = |v: &Value| match v {
        Value::List(items) | Value::Set(items) => items.iter().any(|v| match v {
            Value::Assignment(_, x) => matches!(**x, Value::Family(..)),
            v => matches!(v, Value::Family(..)),
        }),
        Value::Residue(x, _) => matches!(**x, Value::List(_)),
        _ => false,
    };
    // Angles and a counting letter: whole turns, stated or not.
    let angle = |v: &Value| match v {
        Value::Scalar(e, None) => e.any(|p| matches!(p, Expr::Var(n) if n == "pi")) && counted(e, steps).is_some(),
        _ => false,
    };
    let angles = |v: &Value| match v {
        Value::List(items) | Value::Set(items) => {
            !items.is_empty()
                && items.iter().all(|v| match v {
                    Value::Assignment(_, x) => angle(x),
                    v => angle(v),
                })
        }
        Value::Assignment(_, x) => angle(x),
        v => angle(v),
    };
    if !(sure(gold) || sure(answer) || angles(gold) && angles(answer)) {
        return None;
    }
    Some((all(gold)?, all(answer)?))
}

/// `x_1 = 2, x_2 = 3` beside `x = 2, 3`.
pub(super) fn indexed(named: &[Value], other: &[Value], steps: &Steps) -> Option<Comparison> {
    let [Value::Assignment(base, first), rest @ ..] = other else { return None };
    let all = system(named)?;
    let own = all.iter().all(|(n, _)| n.split_once('_').is_some_and(|(n, _)| n == base));
    if !own || rest.iter().any(|v| matches!(v, Value::Assignment(..))) {
        return None;
    }
    let values: Vec<Value> = all.into_iter().map(|(_, v)| v).collect();
    let plain: Vec<Value> = std::iter::once((**first).clone()).chain(rest.iter().cloned()).collect();
    Some(unordered(&values, &plain, steps))
}

/// Names and values, when every member is an assignment to a name of its own.
pub(super) fn system(items: &[Value]) -> Option<Vec<(String, Value)>> {
    let mut out: Vec<(String, Value)> = Vec::new();
    for item in items {
        let Value::Assignment(name, value) = item else { return None };
        if out.iter().any(|(n, _)| n == name) {
            return None;
        }
        out.push((name.clone(), (**value).clone()));
    }
    Some(out)
}

pub(super) fn systems(a: &[(String, Value)], b: &[(String, Value)], steps: &Steps) -> Comparison {
    let same =
        a.len() == b.len() && a.iter().all(|(n, x)| b.iter().any(|(m, y)| same_name(n, m) && equal(x, y, steps).equal));
    outcome(same, "the same value for every name", "different values for the names")
}

pub(super) fn ordered(a: &[Value], b: &[Value], steps: &Steps) -> Comparison {
    let same = a.len() == b.len() && a.iter().zip(b).all(|(x, y)| equal(x, y, steps).equal);
    outcome(same, "equal in order", "different members")
}

pub(super) fn distinct(items: Vec<Value>, steps: &Steps) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if kept.len() >= MAX_ITEMS || !kept.iter().any(|k| equal(k, &item, steps).equal) {
            kept.push(item);
        }
    }
    kept
}

pub(super) fn unordered(a: &[Value], b: &[Value], steps: &Steps) -> Comparison {
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
        match rest.iter().position(|y| equal(x, y, steps).equal) {
            Some(i) => drop(rest.remove(i)),
            None => return no("different members"),
        }
    }
    yes("equal members")
}
