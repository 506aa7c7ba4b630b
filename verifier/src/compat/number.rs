//! Exact values of expressions, if they are rational.

use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::Signed;

use super::tree::{Operator, Tree, integer, power, product, sum};
use crate::steps::{Rational, Steps, perfect_root};

/// Maximum number of digits of a number. `MAX_BITS` limits an exact result.
const MAX_DIGITS: usize = 1_000;
const MAX_BITS: u64 = 40_000;
/// Largest factorial, exponent and number of terms that are computed exactly.
const MAX_COUNT: u32 = 2_000;

/// Parses a number: digits, a point, a capital `E` and an exponent.
pub(super) fn read(text: &str) -> Option<Tree> {
    let (mantissa, exponent) = match text.split_once('E') {
        Some((m, e)) => (m, Some(e.replace('\u{2212}', "-").parse::<i32>().ok()?)),
        None => (text, None),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + decimals.len() > MAX_DIGITS || exponent.is_some_and(|e| e.abs() > 400) {
        return None;
    }
    let value: BigInt = format!("{whole}{decimals}").parse().ok()?;
    let mut value = Rational::new(value, BigInt::from(10).pow(decimals.len() as u32));
    if let Some(e) = exponent {
        value *= Rational::from_integer(10.into()).pow(e);
    }
    let float = exponent.is_some() || mantissa.contains('.');
    Some(if float { Tree::Float(value) } else { Tree::Exact(value) })
}

/// Returns a binomial coefficient, which is computed directly for small integers.
pub(super) fn binomial(upper: Tree, lower: Tree) -> Tree {
    if let (Some(n), Some(k)) = (small(&upper, MAX_COUNT), small(&lower, MAX_COUNT)) {
        return Tree::Exact(Rational::from_integer(choose(n, k)));
    }
    Tree::Call("binomial", vec![upper, lower])
}

fn choose(n: u32, k: u32) -> BigInt {
    if k > n {
        return BigInt::from(0);
    }
    (0..k.min(n - k)).fold(BigInt::from(1), |c, i| c * (n - i) / (i + 1))
}

/// Returns `1 / r`, which is computed directly for a number.
pub(super) fn inverse(r: Tree) -> Tree {
    let zero = Rational::from_integer(0.into());
    match r {
        Tree::Exact(x) if x != zero => Tree::Exact(x.recip()),
        r => power(r, integer(-1)),
    }
}

/// Computes a determinant by expansion along its first row.
pub(super) fn determinant(rows: &[Vec<Tree>], steps: &Steps) -> Option<Tree> {
    const MAX_ROWS: usize = 5;
    let n = rows.len();
    if n > MAX_ROWS || rows.iter().any(|r| r.len() != n) {
        return None;
    }
    steps.spend(1 + n as u64)?;
    let [first, rest @ ..] = rows else { return None };
    if rest.is_empty() {
        return first.first().cloned();
    }
    let term = |(j, entry): (usize, &Tree)| {
        let minor: Vec<_> = rest.iter().map(|r| [&r[..j], &r[j + 1..]].concat()).collect();
        let sign = integer(if j % 2 == 0 { 1 } else { -1 });
        Some(product(product(sign, entry.clone()), determinant(&minor, steps)?))
    };
    let terms = first.iter().enumerate().map(term).collect::<Option<Vec<_>>>()?;
    // The determinant of a matrix of numbers is a number.
    let total = terms.into_iter().reduce(sum)?;
    Some(match exact(&total, steps) {
        Some(x) if !total.any(&|t| matches!(t, Tree::Float(_))) => Tree::Exact(x),
        _ => total,
    })
}

/// Returns the exact value if it is rational and not too large.
pub(super) fn exact(t: &Tree, steps: &Steps) -> Option<Rational> {
    steps.spend(4)?;
    let zero = Rational::from_integer(0.into());
    match t {
        Tree::Exact(x) | Tree::Float(x) => Some(x.clone()),
        Tree::Percent(x) => Some(exact(x, steps)? / Rational::from_integer(100.into())),
        Tree::Add(terms) => terms.iter().try_fold(zero, |s, t| joined(s, exact(t, steps)?, true, steps)),
        Tree::Mul(factors) => {
            let one = Rational::from_integer(1.into());
            factors.iter().try_fold(one, |p, t| joined(p, exact(t, steps)?, false, steps))
        }
        Tree::Pow(base, exponent) => raised(exact(base, steps)?, &exact(exponent, steps)?, steps),
        Tree::Call(name, arguments) => called(name, arguments, steps),
        Tree::Bound(op @ (Operator::Sum | Operator::Product), body, var, ends) => {
            let (low, high) = (exact(&ends[0], steps)?, exact(&ends[1], steps)?);
            let count = (&high - &low).to_integer();
            if !low.is_integer() || !high.is_integer() || count > MAX_COUNT.into() || count < BigInt::from(-1) {
                return None;
            }
            let mut at = low;
            let add = *op == Operator::Sum;
            let mut total = Rational::from_integer(if add { 0 } else { 1 }.into());
            while at <= high {
                steps.spend(8 * body.size())?;
                let term = exact(&replaced(body, var, &Tree::Exact(at.clone())), steps)?;
                total = joined(total, term, add, steps)?;
                at += Rational::from_integer(1.into());
            }
            Some(total)
        }
        _ => None,
    }
}

/// Adds or multiplies two numbers. Integers skip the greatest common divisor, which takes long.
fn joined(a: Rational, b: Rational, add: bool, steps: &Steps) -> Option<Rational> {
    let bits = |x: &Rational| x.numer().bits() + x.denom().bits();
    let size = bits(&a) + bits(&b);
    if a.is_integer() && b.is_integer() {
        steps.spend(size / 16)?;
        let result = if add { a.numer() + b.numer() } else { a.numer() * b.numer() };
        return (result.bits() <= MAX_BITS).then(|| Rational::from_integer(result));
    }
    steps.spend(size * size / 2_000)?;
    let result = if add { a + b } else { a * b };
    (bits(&result) <= MAX_BITS).then_some(result)
}

/// Returns the expression with a symbol replaced.
pub(super) fn replaced(t: &Tree, var: &Tree, with: &Tree) -> Tree {
    if t == var {
        return with.clone();
    }
    let all = |list: &[Tree]| list.iter().map(|t| replaced(t, var, with)).collect::<Vec<_>>();
    match t {
        Tree::Add(list) => Tree::Add(all(list)),
        Tree::Mul(list) => Tree::Mul(all(list)),
        Tree::Call(f, list) => Tree::Call(f, all(list)),
        Tree::Apply(f, list) => Tree::Apply(f.clone(), all(list)),
        Tree::Pow(a, b) => power(replaced(a, var, with), replaced(b, var, with)),
        Tree::Percent(a) => Tree::Percent(Box::new(replaced(a, var, with))),
        Tree::Bound(op, body, v, ends) => {
            let ends = Box::new([replaced(&ends[0], var, with), replaced(&ends[1], var, with)]);
            let body = if **v == *var { body.clone() } else { Box::new(replaced(body, var, with)) };
            Tree::Bound(*op, body, v.clone(), ends)
        }
        Tree::Matrix(rows) => Tree::Matrix(rows.iter().map(|r| all(r)).collect()),
        t => t.clone(),
    }
}

fn raised(base: Rational, exponent: &Rational, steps: &Steps) -> Option<Rational> {
    let zero = Rational::from_integer(0.into());
    let n = i32::try_from(exponent.numer()).ok()?;
    let root = u32::try_from(exponent.denom()).ok()?;
    if base == zero && n <= 0 {
        return (n == 0).then(|| Rational::from_integer(1.into()));
    }
    let bits = base.numer().bits().max(base.denom().bits());
    steps.spend(bits)?;
    if root != 1 && base < zero {
        return None;
    }
    let base = if root == 1 { base } else { perfect_root(&base, root)? };
    (bits.saturating_mul(u64::from(n.unsigned_abs())) <= MAX_BITS || bits <= 1).then(|| base.pow(n))
}

fn called(name: &str, arguments: &[Tree], steps: &Steps) -> Option<Rational> {
    let all: Vec<Rational> = arguments.iter().map(|a| exact(a, steps)).collect::<Option<_>>()?;
    let count = |x: &Rational| u32::try_from(x.numer()).ok().filter(|n| x.is_integer() && *n <= MAX_COUNT);
    let factorial = |n: u32| {
        steps.spend(u64::from(n) * 8)?;
        Some(Rational::from_integer((1..=n).fold(BigInt::from(1), |p, k| p * k)))
    };
    match (name, all.as_slice()) {
        ("factorial", [x]) => factorial(count(x)?),
        ("gamma", [x]) => factorial(count(x)?.checked_sub(1)?),
        ("binomial", [n, k]) => Some(Rational::from_integer(choose(count(n)?, count(k)?))),
        ("abs", [x]) => Some(x.abs()),
        ("floor", [x]) => Some(x.floor()),
        ("ceil", [x]) => Some(x.ceil()),
        ("max", all) => all.iter().max().cloned(),
        ("min", all) => all.iter().min().cloned(),
        ("mod", [a, b]) if *b != Rational::from_integer(0.into()) => Some(a - b * (a / b).floor()),
        ("gcd" | "lcm", [first, rest @ ..]) if all.iter().all(|x| x.is_integer()) => {
            let join = if name == "gcd" { Integer::gcd } else { Integer::lcm };
            let joined = rest.iter().fold(first.to_integer(), |a, b| join(&a, b.numer()));
            Some(Rational::from_integer(joined.magnitude().clone().into()))
        }
        _ => None,
    }
}

/// Returns `t` as a number if it is an integer from zero to `most`.
fn small(t: &Tree, most: u32) -> Option<u32> {
    let n: &BigInt = t.whole()?;
    u32::try_from(n).ok().filter(|n| *n <= most)
}
