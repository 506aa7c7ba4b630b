//! Recurrences: the same wherever their index begins, `a_{n+1} = 2a_n` and `a_n = 2a_{n-1}`.

use super::Steps;
use super::equations::equations;
use super::expr::{Expr, integer, minus, var};
use super::parse::Value;

/// Most equations beside each other: a recurrence and where it begins.
const MAX_EQUATIONS: usize = 5;

/// The letter, index and shift of a member of a sequence: `a_n+1` is a, n, 1.
fn member(name: &str) -> Option<(&str, char, i64)> {
    let (letter, index) = name.split_once('_')?;
    let n = index.chars().next().filter(|c| matches!(c, 'n' | 'k' | 'm' | 'i' | 'j'))?;
    let shift = match &index[1..] {
        "" => 0,
        rest => rest.strip_prefix('+').unwrap_or(rest).parse().ok().filter(|_| rest.starts_with(['+', '-']))?,
    };
    Some((letter, n, shift))
}

/// The expressions that vanish, each with its index moved to where its latest member is the n-th.
fn vanishing(v: &Value) -> Option<Vec<Expr>> {
    let one = |v: &Value| {
        let e = match v {
            Value::Assignment(name, x) => match &**x {
                Value::Scalar(e, None) => minus(var(name), e.clone()),
                _ => return None,
            },
            Value::Equation(a, b) => minus(a.clone(), b.clone()),
            _ => return None,
        };
        Some(moved(&e))
    };
    match v {
        Value::List(items) if items.len() <= MAX_EQUATIONS => items.iter().map(one).collect(),
        v => one(v).map(|e| vec![e]),
    }
}

fn moved(e: &Expr) -> Expr {
    let names = e.variables();
    let members: Vec<(&str, char, i64)> = names.iter().filter_map(|n| member(n)).collect();
    let Some(last) = members.iter().map(|m| m.2).max() else { return e.clone() };
    if members.len() < 2 || members.iter().any(|m| m.1 != members[0].1) {
        return e.clone();
    }
    let letter = members[0].1.to_string();
    let back = Expr::Add(vec![var("n"), integer(-last)]);
    let out = if names.contains(&letter) { e.replace(&letter, &back) } else { e.clone() };
    names
        .iter()
        .filter_map(|n| member(n).map(|m| (n, m)))
        .fold(out, |out, (name, (a, _, shift))| out.replace(name, &var(&format!("member {a} {}", shift - last))))
}

/// True when both are recurrences, with or without where they begin, that say the same.
pub(super) fn same_recurrences(a: &Value, b: &Value, steps: &Steps) -> bool {
    let (Some(x), Some(mut y)) = (vanishing(a), vanishing(b)) else { return false };
    let counts = |e: &Expr| e.variables().iter().any(|n| n.starts_with("member "));
    if x.len() != y.len() || !x.iter().any(counts) {
        return false;
    }
    x.iter().all(|e| match y.iter().position(|f| counts(e) == counts(f) && equations(e, f, steps).equal) {
        Some(n) => {
            y.remove(n);
            true
        }
        None => false,
    })
}
