//! Decides whether two expressions have the same value.

use crate::steps::{Rational, Steps};
use crate::value::ball::Ball;
use crate::value::comparison::{Comparison, no, outcome, yes};
use crate::value::complex::Complex;
use crate::value::eval::{Fault, Scope, hash};
use crate::value::exact::exact;
use crate::value::expr::{Binder, Expr, integer, minus};
use num_bigint::BigInt;
use num_traits::Signed;
use std::cmp::Ordering;

/// Precisions in bits, which are tried in this order.
const PRECISIONS: [i64; 3] = [192, 448, 1_024];
/// Number of bits in which two values must agree.
const AGREE: i64 = 56;
/// Number of sample points that are tried for expressions with variables.
const POINTS: u64 = 40;
/// Number of points that must agree. The chance that different expressions agree at one point by accident is below
/// 2^-40.
const ENOUGH: usize = 6;
/// Number of points that must agree if a variable stands for whole numbers. It is larger than the degree of any
/// polynomial in practice.
const ENOUGH_WHOLE: usize = 12;
/// Minimum number of digits after the point of a decimal that is accepted as an approximation.
const MIN_DECIMALS: u32 = 6;
/// Minimum number of significant digits of a decimal that is accepted as an approximation.
const MIN_SIGNIFICANT: u32 = 6;
/// A decimal with at least this many significant digits counts as computed, whatever its size.
const COMPUTED: u32 = 9;

/// Compares two scalar expressions.
pub(crate) fn decide(a: &Expr, b: &Expr, steps: &Steps) -> Comparison {
    if let (Some(x), Some(y)) = (a.is_infinite(), b.is_infinite()) {
        return outcome(x == y, "both infinite", "infinities of opposite sign");
    }
    if a.is_infinite().is_some() || b.is_infinite().is_some() {
        return no("one is infinite");
    }
    if let (Some(x), Some(y)) = (exact(a, steps), exact(b, steps)) {
        return rationals(a, &x, b, &y);
    }
    if a == b {
        return yes("the same expression");
    }
    let decision = at_points(a, b, steps);
    if steps.exhausted() { no("too much work to compare") } else { decision }
}

fn rationals(a: &Expr, x: &Rational, b: &Expr, y: &Rational) -> Comparison {
    if x == y {
        return yes("equal numbers");
    }
    let difference = if x > y { x - y } else { y - x };
    let rounded = |e: &Expr, other: &Expr, other_value: &Rational| {
        let Some(decimals) = rounding(e, other) else { return false };
        let scale = Rational::from_integer(BigInt::from(10).pow(decimals));
        // `e` was not rounded from a number that has no more digits than `e` itself.
        &difference * &scale < Rational::from_integer(1.into()) && !(other_value * scale).is_integer()
    };
    outcome(rounded(a, b, y) || rounded(b, a, x), "equal to the digits given", "different numbers")
}

/// Returns the number of digits after the point to which `e` may have been rounded, if `e` is a decimal with enough of
/// them. A short decimal also counts if the other decimal is longer and continues it with zeros or nines: 0.3 and
/// 0.30000000000000004.
fn rounding(e: &Expr, other: &Expr) -> Option<u32> {
    let (decimals, significant) = match e {
        Expr::Num { value, decimals: None } if value.is_integer() => (0, 0),
        _ => e.decimal()?,
    };
    if (decimals >= MIN_DECIMALS && significant >= MIN_SIGNIFICANT) || significant >= COMPUTED {
        return Some(decimals);
    }
    let (longer, computed) = other.decimal()?;
    (longer > decimals && longer >= 9 && computed >= COMPUTED).then(|| {
        // The first nine digits of the longer decimal must agree with the shorter one.
        let whole = computed.saturating_sub(longer);
        (9 - whole.min(5)).max(decimals)
    })
}

/// Collects the variables that stand for whole numbers: ends of sums, arguments of factorials, exponents of -1.
fn whole_variables(e: &Expr, out: &mut Vec<String>) {
    e.walk(&mut |part| {
        let mut add = |e: &Expr| out.extend(e.variables());
        match part {
            Expr::Bound(b) if matches!(b.binder, Binder::Sum | Binder::Product) => {
                add(&b.from);
                add(&b.to);
            }
            Expr::Call("factorial" | "binom" | "gcd" | "lcm" | "mod", args) => {
                args.iter().for_each(&mut add);
            }
            Expr::Pow(base, exponent) => {
                let below = |e: &Expr| matches!(e, Expr::Num { value, .. } if value.is_negative());
                if below(base) || matches!(&**base, Expr::Mul(f) if f.first().is_some_and(below)) {
                    add(exponent);
                }
            }
            _ => {}
        }
    });
}

/// Generator of sample values for variables.
pub(crate) struct Sampler {
    names: Vec<String>,
    whole: Vec<String>,
}

impl Sampler {
    /// Creates a sampler for the free variables of all the expressions.
    pub(crate) fn new(exprs: &[&Expr]) -> Self {
        let (mut names, mut whole) = (Vec::new(), Vec::new());
        for e in exprs {
            for name in e.variables() {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            whole_variables(e, &mut whole);
        }
        Sampler { names, whole }
    }

    /// Returns true if there are no variables to sample.
    pub(crate) fn is_constant(&self) -> bool {
        self.names.is_empty()
    }

    fn enough(&self) -> usize {
        match (self.names.is_empty(), self.names.iter().any(|n| self.whole.contains(n))) {
            (true, _) => 1,
            (_, true) => ENOUGH_WHOLE,
            _ => ENOUGH,
        }
    }

    /// Returns the values at one point. At the first points all are positive or all negative; later points mix signs
    /// and sizes.
    pub(crate) fn point(&self, point: u64) -> Vec<(String, Complex)> {
        let value = |name: &String| {
            let mut h = hash(name) ^ point.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            h ^= h >> 31;
            h = h.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            h ^= h >> 27;
            if self.whole.contains(name) {
                // The values are close together and grow, so that each variable is sometimes the smaller and sometimes
                // the larger one.
                return Complex::int(1 + (point / 2) as i64 + (h % 5) as i64);
            }
            let size = 41 + (h >> 8 & 0x1ff) as i64 * 2;
            let negative = match point {
                0 | 2 => false,
                1 => true,
                _ => h & 1 == 1,
            };
            // The size is between 1/12 and 4, and at some points up to 33.
            let ball = Ball::int(if negative { -size } else { size }).scale(if point % 5 == 4 { -5 } else { -8 });
            Complex::real(ball)
        };
        self.names.iter().map(|n| (n.clone(), value(n))).collect()
    }
}

fn at_points(a: &Expr, b: &Expr, steps: &Steps) -> Comparison {
    let sampler = Sampler::new(&[a, b]);
    let constant = sampler.is_constant();
    let complex =
        [a, b].iter().any(|e| e.any(|p| matches!(p, Expr::Var(n) if n == "i") || matches!(p, Expr::Call("cis", _))));
    let mut agreed = 0;
    let mut open = "no value to compare";
    for point in 0..if constant { 1 } else { POINTS } {
        let vars = sampler.point(point);
        for (level, &prec) in PRECISIONS.iter().enumerate() {
            let last = level + 1 == PRECISIONS.len();
            let mut scope = Scope { vars: vars.clone(), prec, steps };
            let (x, y) = match (scope.eval(a), scope.eval(b)) {
                (Ok(x), Ok(y)) => (x, y),
                (Err(Fault::Exhausted), _) | (_, Err(Fault::Exhausted)) => {
                    return no("too much work to compare");
                }
                (Err(Fault::Unsure), _) | (_, Err(Fault::Unsure)) if !last && constant => continue,
                // The point is outside the domain of one of the expressions and decides nothing.
                _ => break,
            };
            // A value that is not real for real variables is also outside the domain.
            let real = x.is_real() && y.is_real();
            if !(constant || complex || real) {
                break;
            }
            let difference = x.sub(&y, prec);
            if !difference.may_be_zero() {
                let rounded = constant && rounds(a, b, &difference, prec);
                return outcome(rounded, "equal to the digits given", "different values");
            }
            let error = difference.error();
            let agrees = if x.may_be_zero() && y.may_be_zero() {
                error < -AGREE - 40
            } else {
                let size = x.top().max(y.top());
                // Constants must also agree absolutely, because a large constant can hide a small summand.
                error < size - AGREE && !(x.may_be_zero() || y.may_be_zero()) && (!constant || error < -40)
            };
            if agrees {
                agreed += 1;
                break;
            }
            open = "too close to tell apart";
        }
        if agreed >= sampler.enough() {
            return yes(if constant { "equal values" } else { "equal at every sample point" });
        }
    }
    outcome(agreed >= 2, "equal where both have values", open)
}

/// Returns true if one expression is a decimal and the other is certainly within its last digit.
fn rounds(a: &Expr, b: &Expr, difference: &Complex, prec: i64) -> bool {
    [(a, b), (b, a)].into_iter().any(|(e, other)| {
        other.decimal().is_none()
            && rounding(e, other).is_some_and(|decimals| {
                let unit = Rational::new(1.into(), BigInt::from(10).pow(decimals));
                let size = Complex::abs(difference, prec);
                size.is_some_and(|s| s.sub(&Ball::ratio(&unit, prec), prec).sign() == Some(-1))
            })
    })
}

/// Returns the order of two constants if it can be determined.
pub(crate) fn order(a: &Expr, b: &Expr, steps: &Steps) -> Option<Ordering> {
    match (a.is_infinite(), b.is_infinite()) {
        (Some(x), Some(y)) => return Some(x.cmp(&y)),
        (Some(x), None) => return Some(x.cmp(&0)),
        (None, Some(y)) => return Some(0.cmp(&y)),
        _ => {}
    }
    if let (Some(x), Some(y)) = (exact(a, steps), exact(b, steps)) {
        return Some(x.cmp(&y));
    }
    if a == b || decide(a, b, steps).equal {
        return Some(Ordering::Equal);
    }
    let sampler = Sampler::new(&[a, b]);
    if !sampler.is_constant() {
        return None;
    }
    PRECISIONS.iter().find_map(|&prec| {
        let mut scope = Scope { vars: Vec::new(), prec, steps };
        let value = scope.eval(&minus(a.clone(), b.clone())).ok().filter(Complex::is_real)?;
        value.re.sign().map(|s| s.cmp(&0))
    })
}

/// Decides whether two expressions are proportional: `a = k b` at every sample point with one `k` other than 0. Returns
/// `Some(true)` if `k` is positive and `Some(false)` if it is negative.
pub(crate) fn proportional(a: &Expr, b: &Expr, steps: &Steps) -> Option<bool> {
    let sampler = Sampler::new(&[a, b]);
    let prec = PRECISIONS[0];
    let mut first: Option<(Complex, Complex)> = None;
    let mut agreed = 0;
    for point in 0..POINTS {
        let mut scope = Scope { vars: sampler.point(point), prec, steps };
        let (Ok(x), Ok(y)) = (scope.eval(a), scope.eval(b)) else {
            if steps.exhausted() {
                return None;
            }
            continue;
        };
        if x.may_be_zero() && y.may_be_zero() {
            continue;
        }
        if x.may_be_zero() || y.may_be_zero() {
            return None;
        }
        match &first {
            None => first = Some((x, y)),
            Some((x0, y0)) => {
                let (left, right) = (x.mul(y0, prec), y.mul(x0, prec));
                let difference = left.sub(&right, prec);
                if !difference.may_be_zero() || difference.error() > left.top() - AGREE {
                    return None;
                }
                agreed += 1;
            }
        }
        if agreed >= sampler.enough() {
            break;
        }
    }
    let (x, y) = first.filter(|_| agreed >= 2)?;
    Some(x.re.mul(&y.re, prec).sign() != Some(-1))
}

/// Returns the value of a constant if it is a whole number.
pub(crate) fn whole(e: &Expr, steps: &Steps) -> Option<i64> {
    let n = approximate(e, steps).filter(|x| x.abs() < 1e9)?.round() as i64;
    decide(e, &integer(n), steps).equal.then_some(n)
}

/// Returns a constant as a floating-point number.
pub(crate) fn approximate(e: &Expr, steps: &Steps) -> Option<f64> {
    if !Sampler::new(&[e]).is_constant() {
        return None;
    }
    let value = Scope { vars: Vec::new(), prec: 192, steps }.eval(e).ok()?;
    value.is_real().then(|| value.re.to_f64())
}
