//! Exact rational values of expressions, if they exist and are not too large.

use crate::steps::{Rational, Steps, perfect_root};
use crate::value::expr::{Expr, number};
use num_bigint::BigInt;
use num_integer::Integer;
use num_traits::Signed;

/// Maximum size of an exact result in bits. It prevents the computation of numbers such as 10^10^10.
const MAX_BITS: u64 = 8_192;
/// Largest argument of an exact factorial.
const MAX_FACTORIAL: u32 = 700;

fn bits(x: &Rational) -> u64 {
    x.numer().bits() + x.denom().bits()
}

fn small(x: Rational) -> Option<Rational> {
    (bits(&x) <= MAX_BITS).then_some(x)
}

/// Returns the steps of a greatest common divisor, which takes quadratic time in the size.
fn cancelling(a: &Rational, b: &Rational) -> u64 {
    let size = bits(a) + bits(b);
    4 + size * size / 400
}

fn add(a: &Rational, b: &Rational, steps: &Steps) -> Option<Rational> {
    if a.is_integer() && b.is_integer() {
        steps.spend(2 + (bits(a) + bits(b)) / 512)?;
        return small(whole(a.numer() + b.numer()));
    }
    steps.spend(cancelling(a, b))?;
    small(a + b)
}

fn multiply(a: &Rational, b: &Rational, steps: &Steps) -> Option<Rational> {
    if a.is_integer() && b.is_integer() {
        steps.spend(2 + bits(a) / 64 * (bits(b) / 64 + 1))?;
        return small(whole(a.numer() * b.numer()));
    }
    steps.spend(cancelling(a, b))?;
    small(a * b)
}

/// Returns the number as a u32 if it is an integer that fits.
pub(crate) fn to_u32(x: &Rational) -> Option<u32> {
    x.is_integer().then(|| u32::try_from(x.numer()).ok()).flatten()
}

fn whole(i: impl Into<BigInt>) -> Rational {
    Rational::from_integer(i.into())
}

/// Returns the exact value if the expression is rational, not too large, and within the budget.
pub(crate) fn exact(e: &Expr, steps: &Steps) -> Option<Rational> {
    steps.spend(1)?;
    match e {
        Expr::Num { value, .. } => Some(value.clone()),
        Expr::Var(_) | Expr::Apply(..) | Expr::Bound(_) | Expr::Matrix(_) => None,
        Expr::Add(list) => list.iter().try_fold(whole(0), |sum, e| add(&sum, &exact(e, steps)?, steps)),
        Expr::Mul(list) => list.iter().try_fold(whole(1), |all, e| multiply(&all, &exact(e, steps)?, steps)),
        Expr::Pow(base, exponent) => {
            let (base, exponent) = (exact(base, steps)?, exact(exponent, steps)?);
            steps.spend(8 + bits(&base) / 4)?;
            power(&base, &exponent)
        }
        Expr::Call(name, args) => {
            let args: Vec<Rational> = args.iter().map(|a| exact(a, steps)).collect::<Option<_>>()?;
            call(name, &args, steps)
        }
    }
}

/// Returns a rational expression as one literal, and any other expression unchanged. For notations of a single number,
/// such as a mixed number.
pub(crate) fn literal(e: Expr, steps: &Steps) -> Expr {
    exact(&e, steps).map_or(e, number)
}

/// Returns `base^exponent` if it is rational: integer exponents, and roots of perfect powers. An odd root of a negative
/// number is the real root.
pub(crate) fn power(base: &Rational, exponent: &Rational) -> Option<Rational> {
    let zero = whole(0);
    if exponent.is_integer() {
        if *base == zero && *exponent <= zero {
            return None;
        }
        let unit = base.numer().bits() <= 1 && base.denom().bits() <= 1;
        if unit {
            let even = !exponent.numer().bit(0);
            return Some(if even { base * base } else { base.clone() });
        }
        let n = i32::try_from(exponent.numer()).ok()?;
        if bits(base).saturating_mul(u64::from(n.unsigned_abs())) > MAX_BITS {
            return None;
        }
        return Some(base.pow(n));
    }
    let root = u32::try_from(exponent.denom()).ok().filter(|&r| r <= 64)?;
    if *base < zero && root % 2 == 0 {
        return None;
    }
    power(&perfect_root(base, root)?, &whole(exponent.numer().clone()))
}

/// Returns the factorial of `n`. Returns `None` if `n` is too large.
pub(crate) fn factorial(n: u32, steps: &Steps) -> Option<BigInt> {
    if n > MAX_FACTORIAL {
        return None;
    }
    steps.spend(u64::from(n) * (8 + u64::from(n) / 32) + 1)?;
    Some((1..=n).fold(BigInt::from(1), |product, k| product * k))
}

fn binomial(n: u32, k: u32, steps: &Steps) -> Option<Rational> {
    if k > MAX_FACTORIAL {
        return None;
    }
    let mut out = BigInt::from(1);
    for j in 0..k {
        steps.spend(4 + out.bits() / 256)?;
        out = out * (n - j) / (j + 1);
    }
    small(whole(out))
}

fn call(name: &str, args: &[Rational], steps: &Steps) -> Option<Rational> {
    let size: u64 = args.iter().map(bits).sum();
    let division = matches!(name, "gcd" | "lcm" | "mod" | "floor" | "ceil");
    steps.spend(4 + if division { size * size / 400 } else { size / 64 })?;
    match (name, args) {
        ("abs", [x]) => Some(x.abs()),
        ("floor", [x]) => Some(x.floor()),
        ("ceil", [x]) => Some(x.ceil()),
        ("factorial", [x]) => factorial(to_u32(x)?, steps).map(whole),
        ("binom", [n, k]) => {
            let (n, k) = (to_u32(n)?, to_u32(k)?);
            if n < k { Some(whole(0)) } else { binomial(n, k.min(n - k), steps) }
        }
        ("mod", [a, n]) if *n > whole(0) => Some(a - (a / n).floor() * n),
        ("gcd" | "lcm", [first, rest @ ..]) if args.iter().all(|x| x.is_integer()) => {
            let join = if name == "gcd" { Integer::gcd } else { Integer::lcm };
            rest.iter().try_fold(first.abs(), |a, b| small(whole(join(a.numer(), b.numer()))))
        }
        ("max", all) => all.iter().max().cloned(),
        ("min", all) => all.iter().min().cloned(),
        _ => None,
    }
}
