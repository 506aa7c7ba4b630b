//! Families `first + k step` over all whole `k`, and components of vectors.

use crate::steps::Steps;
use crate::value::decide::{approximate, decide, whole};
use crate::value::expr::{Expr, divide, integer, minus, var};

/// Maximum number of families that replace one family, so that all families have the same, largest step.
const MAX_SPREAD: i64 = 24;

/// Returns `first` and `step` of an expression that is linear in `name`.
pub(crate) fn family(e: &Expr, name: &str, steps: &Steps) -> Option<(Expr, Expr)> {
    if !e.variables().iter().any(|n| n == name) {
        return None;
    }
    let at = |n: i64| e.replace(name, &integer(n));
    let step = minus(at(1), at(0));
    let straight = decide(&minus(at(2), at(1)), &step, steps).equal;
    (straight && !decide(&step, &integer(0), steps).equal).then(|| (at(0), step))
}

/// Returns the family for an expression whose only variable is a counting letter.
pub(crate) fn counted(e: &Expr, steps: &Steps) -> Option<(Expr, Expr)> {
    match e.variables().as_slice() {
        [name] if matches!(name.as_str(), "k" | "n" | "m" | "l" | "N" | "K" | "j" | "t") => family(e, name, steps),
        _ => None,
    }
}

/// Returns true if two unions of families have the same members.
pub(crate) fn same_families(a: &[(Expr, Expr)], b: &[(Expr, Expr)], steps: &Steps) -> bool {
    let size = |f: &(Expr, Expr)| approximate(&f.1, steps).map(f64::abs);
    let Some(sizes) = a.iter().chain(b).map(size).collect::<Option<Vec<f64>>>() else { return false };
    let Some(widest) = sizes.iter().enumerate().max_by(|x, y| x.1.total_cmp(y.1)).map(|(n, _)| n) else { return false };
    let Some((_, step)) = a.iter().chain(b).nth(widest) else { return false };
    let spread = |list: &[(Expr, Expr)]| {
        let mut firsts: Vec<Expr> = Vec::new();
        for (first, own) in list {
            let times = whole(&divide(step.clone(), own.clone()), steps)?.abs();
            if !(1..=MAX_SPREAD).contains(&times) {
                return None;
            }
            for k in 0..times {
                let next = Expr::Add(vec![first.clone(), Expr::Mul(vec![integer(k), own.clone()])]);
                if !firsts.iter().any(|f| apart(f, &next, step, steps)) {
                    firsts.push(next);
                }
            }
        }
        Some(firsts)
    };
    let (Some(x), Some(y)) = (spread(a), spread(b)) else { return false };
    x.len() == y.len() && x.iter().all(|f| y.iter().any(|g| apart(f, g, step, steps)))
}

/// Returns true if two numbers differ by a whole number of steps.
fn apart(a: &Expr, b: &Expr, step: &Expr, steps: &Steps) -> bool {
    whole(&divide(minus(a.clone(), b.clone()), step.clone()), steps).is_some()
}

/// Returns the components of a vector that is written with the unit vectors `i`, `j` and `k`, with or without their
/// accents. A bare `i` alone is the imaginary unit, unless `is_vector`.
pub(crate) fn components(e: &Expr, is_vector: bool, steps: &Steps) -> Option<Vec<Expr>> {
    const MARKS: [&str; 4] = ["", "hat ", "vec ", "bar "];
    let mut e = e.clone();
    let (mut used, mut marked) = ([false; 3], is_vector);
    // Unit vectors along x, y and z are recognised by their hats.
    for (letter, axis) in [("x", "i"), ("y", "j"), ("z", "k")] {
        e = e.replace(&format!("hat {letter}"), &var(&format!("hat {axis}")));
    }
    let occurs = |e: &Expr, name: &str| e.any(|p| matches!(p, Expr::Var(n) if n == name));
    for (n, axis) in ["i", "j", "k"].into_iter().enumerate() {
        for name in MARKS.iter().flat_map(|m| [format!("{m}{axis}"), format!("{m}{axis}math")]) {
            if occurs(&e, &name) {
                e = e.replace(&name, &var(&format!("unit {axis}")));
                used[n] = true;
                marked |= name.contains(' ');
            }
        }
    }
    if !(used[1] || used[2] || used[0] && marked) {
        return None;
    }
    let units = ["unit i", "unit j", "unit k"];
    let with = |one: Option<usize>| {
        units.iter().enumerate().fold(e.clone(), |e, (n, u)| e.replace(u, &integer(i64::from(one == Some(n)))))
    };
    let parts: Vec<Expr> = (0..3).map(|n| with(Some(n))).collect();
    let sum = Expr::Add(units.iter().zip(&parts).map(|(u, p)| Expr::Mul(vec![p.clone(), var(u)])).collect());
    decide(&sum, &e, steps).equal.then_some(parts)
}
