//! Integrals of entire functions by their antiderivatives, so that nested integrals need no quadrature.

use super::expr::{Expr, divide, integer, invert, minus, negate, power, var};
use super::{Rational, exact};

/// Largest degree of a polynomial that is integrated term by term.
const MAX_DEGREE: usize = 12;
/// Most parts of an expanded polynomial: expanding powers of long sums doubles them at every step.
const MAX_PARTS: usize = 1_500;

/// The integral of `body` over `x` between finite ends, where `body` is a sum of polynomials and exponentials, sines
/// and cosines of linear functions: those are continuous wherever the ends lie.
pub(super) fn definite(body: &Expr, x: &str, from: &Expr, to: &Expr) -> Option<Expr> {
    if from.is_infinite().is_some() || to.is_infinite().is_some() {
        return None;
    }
    if parts(body) > MAX_PARTS {
        return None;
    }
    let f = antiderivative(body, x)?;
    let value = minus(f.replace(x, to), f.replace(x, from));
    (parts(&value) <= MAX_PARTS).then_some(value)
}

fn parts(e: &Expr) -> usize {
    let mut n = 0;
    e.walk(&mut |_| n += 1);
    n
}

fn depends(e: &Expr, x: &str) -> bool {
    e.variables().iter().any(|n| n == x)
}

fn antiderivative(e: &Expr, x: &str) -> Option<Expr> {
    if !depends(e, x) {
        return Some(Expr::Mul(vec![e.clone(), var(x)]));
    }
    if let Some(c) = coefficients(e, x) {
        let term = |(n, c): (usize, Expr)| {
            let n = n as i64 + 1;
            Expr::Mul(vec![c, power(var(x), integer(n)), invert(integer(n))])
        };
        return Some(Expr::Add(c.into_iter().enumerate().map(term).collect()));
    }
    match e {
        Expr::Add(terms) => terms.iter().map(|t| antiderivative(t, x)).collect::<Option<_>>().map(Expr::Add),
        Expr::Mul(factors) => {
            let (own, mut free): (Vec<&Expr>, Vec<Expr>) = {
                let (own, free): (Vec<&Expr>, Vec<&Expr>) = factors.iter().partition(|f| depends(f, x));
                (own, free.into_iter().cloned().collect())
            };
            match own.as_slice() {
                [one] => free.push(antiderivative(one, x)?),
                [a, b] => free.push(by_parts(a, b, x).or_else(|| by_parts(b, a, x))?),
                _ => return None,
            }
            Some(Expr::Mul(free))
        }
        e => waves(e, x),
    }
}

/// Exponentials, sines and cosines of linear functions.
fn waves(e: &Expr, x: &str) -> Option<Expr> {
    let slope = |u: &Expr| match coefficients(u, x)?.as_slice() {
        [_, a] => Some(a.clone()),
        _ => None,
    };
    match e {
        Expr::Pow(base, u) if !depends(base, x) => {
            let log = match &**base {
                Expr::Var(n) if n == "e" => integer(1),
                Expr::Num { value, .. } if *value > Rational::from_integer(0.into()) => {
                    Expr::Call("ln", vec![(**base).clone()])
                }
                _ => return None,
            };
            Some(divide(e.clone(), Expr::Mul(vec![slope(u)?, log])))
        }
        Expr::Call("sin", u) => Some(divide(negate(Expr::Call("cos", u.clone())), slope(u.first()?)?)),
        Expr::Call("cos", u) => Some(divide(Expr::Call("sin", u.clone()), slope(u.first()?)?)),
        _ => None,
    }
}

/// A polynomial times a wave.
fn by_parts(p: &Expr, f: &Expr, x: &str) -> Option<Expr> {
    let mut c = coefficients(p, x)?;
    let (mut f, mut sign, mut terms) = (waves(f, x)?, false, Vec::new());
    while !c.is_empty() {
        // Without x^0, which has no value at 0.
        let monomial = |(n, c): (usize, &Expr)| match n {
            0 => c.clone(),
            n => Expr::Mul(vec![c.clone(), power(var(x), integer(n as i64))]),
        };
        let p = Expr::Add(c.iter().enumerate().map(monomial).collect());
        let term = Expr::Mul(vec![p, f.clone()]);
        terms.push(if sign { negate(term) } else { term });
        sign = !sign;
        c = c.into_iter().enumerate().skip(1).map(|(n, c)| Expr::Mul(vec![integer(n as i64), c])).collect();
        if !c.is_empty() {
            f = antiderivative(&f, x)?;
        }
    }
    Some(Expr::Add(terms))
}

/// Coefficients of a polynomial in `x`, from the constant one.
fn coefficients(e: &Expr, x: &str) -> Option<Vec<Expr>> {
    if !depends(e, x) {
        return Some(vec![e.clone()]);
    }
    match e {
        Expr::Var(_) => Some(vec![integer(0), integer(1)]),
        Expr::Add(terms) => {
            let mut sum: Vec<Expr> = Vec::new();
            for t in terms {
                for (n, c) in coefficients(t, x)?.into_iter().enumerate() {
                    match sum.get_mut(n) {
                        Some(have) => *have = add(have.clone(), c),
                        None => sum.push(c),
                    }
                }
            }
            Some(sum)
        }
        Expr::Mul(factors) => {
            let mut total = vec![integer(1)];
            for f in factors {
                total = product(&total, &coefficients(f, x)?)?;
            }
            Some(total)
        }
        Expr::Pow(base, n) => {
            let Expr::Num { value, .. } = &**n else { return None };
            let n = exact::to_u32(value).filter(|&n| n as usize <= MAX_DEGREE)?;
            let base = coefficients(base, x)?;
            (0..n).try_fold(vec![integer(1)], |total, _| product(&total, &base))
        }
        _ => None,
    }
}

fn product(a: &[Expr], b: &[Expr]) -> Option<Vec<Expr>> {
    if a.len() + b.len() > MAX_DEGREE + 2 {
        return None;
    }
    if let ([one], _) | (_, [one]) = (a, b)
        && *one == integer(1)
    {
        return Some(if a.len() == 1 { b } else { a }.to_vec());
    }
    let zero = integer(0);
    let mut out = vec![zero.clone(); a.len() + b.len() - 1];
    for (i, x) in a.iter().enumerate().filter(|(_, x)| **x != zero) {
        for (j, y) in b.iter().enumerate().filter(|(_, y)| **y != zero) {
            out[i + j] = add(std::mem::replace(&mut out[i + j], zero.clone()), times(x, y));
        }
    }
    (out.iter().map(parts).sum::<usize>() <= MAX_PARTS).then_some(out)
}

fn add(a: Expr, b: Expr) -> Expr {
    match (a, b) {
        (Expr::Num { value: x, .. }, Expr::Num { value: y, .. }) => super::expr::number(x + y),
        (a, b) if a == integer(0) => b,
        (a, b) => Expr::Add(vec![a, b]),
    }
}

fn times(a: &Expr, b: &Expr) -> Expr {
    match (a, b) {
        (Expr::Num { value: x, .. }, Expr::Num { value: y, .. }) => super::expr::number(x * y),
        (a, b) => Expr::Mul(vec![a.clone(), b.clone()]),
    }
}
