//! Matrices and vectors beside each other, their names and their parts.

use super::Steps;
use super::compare::{Comparison, no, outcome, yes};
use super::decide::decide;
use super::expr::{Expr, integer};
use super::family::components;
use super::lists::ordered;
use super::parse::Value;

pub(super) fn matrices(a: &[Vec<Expr>], b: &[Vec<Expr>], steps: &Steps) -> Comparison {
    let shape = a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.len() == y.len());
    let same = shape && a.iter().flatten().zip(b.iter().flatten()).all(|(x, y)| decide(x, y, steps).is_equal());
    outcome(same, "equal entry by entry", if shape { "different entries" } else { "different shapes" })
}

/// A matrix of one row or column beside a tuple.
pub(super) fn vector(rows: &[Vec<Expr>], items: &[Value], steps: &Steps) -> Comparison {
    let line = rows.len() == 1 || rows.iter().all(|r| r.len() == 1);
    let entries: Vec<&Expr> = rows.iter().flatten().collect();
    let same = line
        && entries.len() == items.len()
        && entries
            .iter()
            .zip(items)
            .all(|(e, v)| matches!(v, Value::Scalar(x, None) if decide(e, x, steps).is_equal()));
    outcome(same, "equal entry by entry", "different entries")
}

/// A matrix beside its name, `I_2` or `0`, or a vector beside its parts along the axes.
pub(super) fn named_matrix(rows: &[Vec<Expr>], e: &Expr, steps: &Steps) -> Comparison {
    let size = rows.len();
    // 2 I_2
    if let Expr::Mul(factors) = e
        && let [Expr::Num { .. }, Expr::Var(n)] = factors.as_slice()
        && *n == format!("I_{size}")
    {
        let none = integer(0);
        let fits = |i: usize, j: usize, x: &Expr| decide(x, if i == j { &factors[0] } else { &none }, steps).is_equal();
        let same =
            rows.iter().enumerate().all(|(i, r)| r.len() == size && r.iter().enumerate().all(|(j, x)| fits(i, j, x)));
        return if same { yes("equal entry by entry") } else { no("different entries") };
    }
    let entry = |i: usize, j: usize| match e {
        Expr::Num { .. } => Some(0),
        Expr::Var(n) if *n == format!("I_{size}") => Some(i64::from(i == j)),
        _ => None,
    };
    let zero = decide(e, &integer(0), steps).is_equal();
    let named = (zero || (matches!(e, Expr::Var(_)) && rows.iter().all(|r| r.len() == size)))
        && rows.iter().enumerate().all(|(i, r)| {
            let fits = |(j, x): (usize, &Expr)| entry(i, j).is_some_and(|n| decide(x, &integer(n), steps).is_equal());
            r.iter().enumerate().all(fits)
        });
    if named {
        return yes("equal entry by entry");
    }
    let items: Vec<Value> = rows.iter().flatten().map(|x| Value::Scalar(x.clone(), None)).collect();
    if size == 1 || rows.iter().all(|r| r.len() == 1) { along_axes(e, &items, steps) } else { no("different kinds") }
}

/// `2i - 3j` beside `(2, -3)`.
pub(super) fn along_axes(e: &Expr, items: &[Value], steps: &Steps) -> Comparison {
    let Some(parts) = components(e, steps).filter(|_| items.len() == 2 || items.len() == 3) else {
        return no("different kinds");
    };
    let part = |n: usize| Value::Scalar(parts[n].clone(), None);
    let flat = items.len() == 3 || decide(&parts[2], &integer(0), steps).is_equal();
    let list: Vec<Value> = (0..items.len()).map(part).collect();
    if flat { ordered(items, &list, steps) } else { no("different members") }
}
