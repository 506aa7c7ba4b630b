//! Families `first + k step` over all whole `k`, permutations in cycles, and the solutions of equations.

use super::Steps;
use super::decide::{Sampler, decide};
use super::eval::Scope;
use super::expr::{Expr, divide, integer, minus, negate, number, power, var};
use super::lex::{Tok, Token};
use super::parse::Value;
use super::scalar::is;
use super::{Rational, exact};

/// Most families that one with a small step is spread to.
const MAX_SPREAD: i64 = 24;
/// Most numbers in the cycles of a permutation.
const MAX_CYCLED: usize = 64;

/// `first` and `step` of an expression that is linear in `name`.
pub(super) fn family(e: &Expr, name: &str, steps: &Steps) -> Option<(Expr, Expr)> {
    if !e.variables().iter().any(|n| n == name) {
        return None;
    }
    let at = |n: i64| e.replace(name, &integer(n));
    let step = minus(at(1), at(0));
    let far = Expr::Mul(vec![integer(5), step.clone()]);
    let straight =
        decide(&minus(at(2), at(1)), &step, steps).is_equal() && decide(&minus(at(7), at(2)), &far, steps).is_equal();
    (straight && !decide(&step, &integer(0), steps).is_equal()).then(|| (at(0), step))
}

/// Two families, for even and for odd numbers, of an expression with a power that only turns its sign: (-1)^k.
pub(super) fn halves(e: &Expr, name: &str, steps: &Steps) -> Option<[(Expr, Expr); 2]> {
    let turning = e.any(|p| matches!(p, Expr::Pow(_, n) if n.variables().iter().any(|v| v == name)));
    let half = |odd: i64| {
        let counter = Expr::Add(vec![Expr::Mul(vec![integer(2), var(name)]), integer(odd)]);
        family(&e.replace(name, &counter), name, steps)
    };
    turning.then(|| Some([half(0)?, half(1)?]))?
}

/// The family that an expression with one counting letter is.
pub(super) fn counted(e: &Expr, steps: &Steps) -> Option<(Expr, Expr)> {
    match e.variables().as_slice() {
        [name] if matches!(name.as_str(), "k" | "n" | "m" | "l" | "N" | "K" | "j" | "t") => family(e, name, steps),
        _ => None,
    }
}

/// The whole number that a constant is.
pub(super) fn whole(e: &Expr, steps: &Steps) -> Option<i64> {
    if let Some(value) = exact::exact(e, steps) {
        return if value.is_integer() { i64::try_from(value.numer()).ok() } else { None };
    }
    let n = approximate(e, steps).filter(|x| x.abs() < 1e9)?.round() as i64;
    decide(e, &integer(n), steps).is_equal().then_some(n)
}

/// A constant as a floating-point number.
pub(super) fn approximate(e: &Expr, steps: &Steps) -> Option<f64> {
    if !Sampler::new(&[e]).is_constant() {
        return None;
    }
    let value = Scope { vars: Vec::new(), prec: 192, steps }.eval(e).ok()?;
    value.is_real().then(|| value.re.to_f64())
}

/// Whether two unions of families have the same members.
pub(super) fn same_families(a: &[(Expr, Expr)], b: &[(Expr, Expr)], steps: &Steps) -> bool {
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

/// True when two numbers are whole steps apart.
fn apart(a: &Expr, b: &Expr, step: &Expr, steps: &Steps) -> bool {
    whole(&divide(minus(a.clone(), b.clone()), step.clone()), steps).is_some()
}

/// A permutation written as cycles of numbers with spaces between: `(1 2 3)(4 5)`.
pub(super) fn cycles(tokens: &[Token]) -> Option<Value> {
    let (mut cycles, mut seen): (Vec<Vec<u32>>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut rest = tokens;
    while !rest.is_empty() {
        let close = rest.iter().position(|t| is(Some(t), ')'))?;
        let [open, inner @ ..] = &rest[..close] else { return None };
        if !is(Some(open), '(') || inner.len() < 2 {
            return None;
        }
        let mut cycle = Vec::new();
        for t in inner {
            let Tok::Num(n) = &t.tok else { return None };
            let n: u32 = n.parse().ok()?;
            if seen.contains(&n) || seen.len() >= MAX_CYCLED {
                return None;
            }
            seen.push(n);
            cycle.push(n);
        }
        rest = &rest[close + 1..];
        // The inverse goes round the other way.
        let inverse = match rest {
            [hat, open, minus, Token { tok: Tok::Num(n), .. }, end, tail @ ..]
                if is(Some(hat), '^')
                    && is(Some(open), '{')
                    && is(Some(minus), '-')
                    && n == "1"
                    && is(Some(end), '}') =>
            {
                Some(tail)
            }
            _ => None,
        };
        if let Some(tail) = inverse {
            cycle.reverse();
            rest = tail;
        }
        let least = cycle.iter().enumerate().min_by_key(|(_, n)| **n)?.0;
        cycle.rotate_left(least);
        cycles.push(cycle);
    }
    cycles.sort();
    (!cycles.is_empty()).then_some(Value::Cycles(cycles))
}

/// The cycles of a permutation that is written with the numbers above their images.
pub(super) fn images(rows: &[Vec<Expr>], steps: &Steps) -> Option<Vec<Vec<u32>>> {
    let [above, below] = rows else { return None };
    let numbers = |row: &[Expr]| -> Option<Vec<u32>> {
        row.iter().map(|e| exact::exact(e, steps).and_then(|n| exact::to_u32(&n))).collect()
    };
    let (above, below) = (numbers(above)?, numbers(below)?);
    let known = |n: &u32| above.iter().filter(|m| *m == n).count() == 1;
    if above.len() > MAX_CYCLED || !below.iter().all(known) {
        return None;
    }
    let (mut cycles, mut seen): (Vec<Vec<u32>>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut order = above.clone();
    order.sort_unstable();
    for &first in &order {
        let (mut cycle, mut n) = (Vec::new(), first);
        while !seen.contains(&n) {
            seen.push(n);
            cycle.push(n);
            n = below[above.iter().position(|m| *m == n)?];
        }
        if cycle.len() > 1 {
            cycles.push(cycle);
        }
    }
    Some(cycles)
}

/// Both real solutions of an equation that is quadratic in its one variable, or the one of a linear equation.
pub(super) fn solutions(f: &Expr, steps: &Steps) -> Option<Vec<Expr>> {
    let [name] = &f.variables()[..] else { return None };
    let at = |n: i64| exact::exact(&f.replace(name, &integer(n)), steps);
    let zero = Rational::from_integer(0.into());
    let two = Rational::from_integer(2.into());
    let (f0, f1, f2, f3) = (at(0)?, at(1)?, at(2)?, at(3)?);
    let bend = &f2 - &f1 - (&f1 - &f0);
    if &f3 - &f2 - (&f2 - &f1) != bend {
        return None;
    }
    let a = &bend / &two;
    let b = &f1 - &f0 - &a;
    if a == zero {
        return (b != zero).then(|| vec![number(-f0 / b)]);
    }
    let discriminant = &b * &b - &two * &two * &a * &f0;
    if discriminant < zero {
        return Some(Vec::new());
    }
    let root = power(number(discriminant.clone()), divide(integer(1), integer(2)));
    let over = |r: Expr| divide(Expr::Add(vec![number(-b.clone()), r]), number(&two * &a));
    Some(if discriminant == zero { vec![over(integer(0))] } else { vec![over(root.clone()), over(negate(root))] })
}

/// Parts of a vector in terms of the unit vectors `i`, `j` and `k`, with or without their marks.
pub(super) fn components(e: &Expr, steps: &Steps) -> Option<Vec<Expr>> {
    const MARKS: [&str; 4] = ["", "hat ", "vec ", "bar "];
    let mut e = e.clone();
    let mut used = [false; 3];
    // Unit vectors along x, y and z are told by their hats.
    for (letter, axis) in [("x", "i"), ("y", "j"), ("z", "k")] {
        e = e.replace(&format!("hat {letter}"), &var(&format!("hat {axis}")));
    }
    let occurs = |e: &Expr, name: &str| e.any(|p| matches!(p, Expr::Var(n) if n == name));
    for (n, axis) in ["i", "j", "k"].into_iter().enumerate() {
        for name in MARKS.iter().flat_map(|m| [format!("{m}{axis}"), format!("{m}{axis}math")]) {
            if occurs(&e, &name) {
                e = e.replace(&name, &var(&format!("unit {axis}")));
                used[n] = true;
            }
        }
    }
    if !(used[1] || used[2]) {
        return None;
    }
    let units = ["unit i", "unit j", "unit k"];
    let with = |one: Option<usize>| {
        units.iter().enumerate().fold(e.clone(), |e, (n, u)| e.replace(u, &integer(i64::from(one == Some(n)))))
    };
    let parts: Vec<Expr> = (0..3).map(|n| with(Some(n))).collect();
    let sum = Expr::Add(units.iter().zip(&parts).map(|(u, p)| Expr::Mul(vec![p.clone(), var(u)])).collect());
    decide(&sum, &e, steps).is_equal().then_some(parts)
}

/// Tokens before the sign of a transpose at the end.
pub(super) fn transposed(tokens: &[Token]) -> Option<&[Token]> {
    let sign = |t: &Token| {
        matches!(&t.tok, Tok::Word(w) if w == "T" || w == "t")
            || matches!(&t.tok, Tok::Cmd(c) if c == "top" || c == "intercal")
    };
    match tokens {
        [rest @ .., hat, t] if is(Some(hat), '^') && sign(t) => Some(rest),
        [rest @ .., hat, open, t, close]
            if is(Some(hat), '^') && is(Some(open), '{') && sign(t) && is(Some(close), '}') =>
        {
            Some(rest)
        }
        _ => None,
    }
}

/// Rows of a matrix that is written as a list of lists.
pub(super) fn rows(value: &Value) -> Option<Vec<Vec<Expr>>> {
    let row = |v: &Value| -> Option<Vec<Expr>> {
        match v {
            Value::Tuple(items) | Value::Set(items) => {
                items.iter().map(|v| if let Value::Scalar(e, None) = v { Some(e.clone()) } else { None }).collect()
            }
            // [a, b] read as an interval.
            Value::Region(r) => match r.spans.as_slice() {
                [s] if s.low_closed && s.high_closed => Some(vec![s.low.clone(), s.high.clone()]),
                _ => None,
            },
            _ => None,
        }
    };
    match value {
        Value::Tuple(items) | Value::Set(items) | Value::List(items) if items.len() > 1 => {
            items.iter().map(row).collect()
        }
        _ => None,
    }
}
