//! Evaluates expressions at sample points in double precision. Expressions that the published library proves equal by
//! algebra agree at these points, and others do not. A real letter is negative at some points, because identities for
//! its root or logarithm must hold for all real numbers.

use num_complex::{Complex64, c64};

use super::complex::{called, pow, real};
use super::tree::{Operator, Tree};
use crate::steps::{Rational, Steps};

/// Name of a letter, and true if it is real.
type Letter = (String, bool);
/// Values of the letters.
type Point = Vec<(Letter, Complex64)>;

/// Returns the point with another value of one letter.
fn moved(at: &Point, letter: &Letter, x: Complex64) -> Point {
    at.iter().filter(|(s, _)| s != letter).cloned().chain([(letter.clone(), x)]).collect()
}

fn number(x: &Rational) -> Option<f64> {
    let exact = |n: &num_bigint::BigInt| n.to_string().parse::<f64>().ok().filter(|x| x.is_finite());
    Some(exact(x.numer())? / exact(x.denom())?)
}

/// Returns the value of an expression at a point.
pub(super) fn value(t: &Tree, at: &Point, steps: &Steps) -> Option<Complex64> {
    steps.spend(12)?;
    let v = |t: &Tree| value(t, at, steps);
    let found = match t {
        Tree::Exact(x) | Tree::Float(x) => Some(real(number(x)?)),
        Tree::Symbol(name, is_real) => at.iter().find(|(s, _)| s.0 == *name && s.1 == *is_real).map(|(_, v)| *v),
        Tree::Constant("e") => Some(real(std::f64::consts::E)),
        Tree::Constant("pi") => Some(real(std::f64::consts::PI)),
        Tree::Constant("i") => Some(Complex64::I),
        // Euler's constant.
        Tree::Constant(_) => Some(real(0.577_215_664_901_532_9)),
        Tree::Add(terms) => terms.iter().map(v).sum(),
        Tree::Mul(factors) => factors.iter().map(v).product(),
        Tree::Pow(a, b) => Some(pow(v(a)?, v(b)?)),
        Tree::Percent(a) => Some(v(a)? * 0.01),
        Tree::Call(name, arguments) => {
            let all: Vec<Complex64> = arguments.iter().map(v).collect::<Option<_>>()?;
            called(name, &all)
        }
        Tree::Apply(name, arguments) => {
            // Each name has its own function, the same wherever the name occurs.
            let mut total = real(seed(name));
            for (i, a) in arguments.iter().enumerate() {
                total += v(a)? * (1.37 + i as f64);
            }
            Some((total * 0.71).exp())
        }
        Tree::Bound(op, body, var, ends) => bound(*op, body, var, ends, at, steps),
        _ => None,
    };
    found.filter(|z| z.is_finite())
}

fn seed(name: &str) -> f64 {
    let hash =
        name.bytes().fold(1_469_598_103_934_665_603u64, |h, b| (h ^ u64::from(b)).wrapping_mul(1_099_511_628_211));
    // Short names differ only in the low bits. This step mixes them into the high bits.
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((hash ^ (hash << 29)) >> 11) as f64 / (1u64 << 53) as f64
}

fn bound(op: Operator, body: &Tree, var: &Tree, ends: &[Tree; 2], at: &Point, steps: &Steps) -> Option<Complex64> {
    let Tree::Symbol(name, is_real) = var else { return None };
    let key = (name.clone(), *is_real);
    let with = |x: Complex64| {
        steps.spend(30)?;
        value(body, &moved(at, &key, x), steps)
    };
    match op {
        Operator::Sum | Operator::Product => {
            const MAX_TERMS: f64 = 2_000.0;
            let low = value(&ends[0], at, steps)?;
            if ends[1] == Tree::Infinite(true) {
                return series(&with, low, op == Operator::Sum);
            }
            let high = value(&ends[1], at, steps)?;
            let whole = |c: Complex64| c.im == 0.0 && c.re.fract() == 0.0;
            if !whole(low) || !whole(high) || high.re - low.re > MAX_TERMS {
                return None;
            }
            let mut total = real(if op == Operator::Sum { 0.0 } else { 1.0 });
            let mut k = low.re;
            while k <= high.re {
                let term = with(real(k))?;
                total = if op == Operator::Sum { total + term } else { total * term };
                k += 1.0;
            }
            Some(total)
        }
        Operator::Integral => integral(&with, &ends[0], &ends[1], at, steps),
        Operator::Primitive => None,
        Operator::Limit => {
            let place = match &ends[0] {
                Tree::Infinite(_) => None,
                place => Some(value(place, at, steps)?),
            };
            let sign = if ends[0] == Tree::Infinite(false) { -1.0 } else { 1.0 };
            let f = |h: f64| match place {
                Some(p) => with(p + h),
                None => with(real(sign / h)),
            };
            extrapolated(&|k| f(0.1 / f64::from(1u32 << k)))
        }
        Operator::Derivative => {
            let x = at.iter().find(|(s, _)| *s == key).map(|(_, v)| *v)?;
            extrapolated(&|k| {
                let h = 0.05 / f64::from(1u32 << k);
                Some((with(x + h)? - with(x - h)?) / (2.0 * h))
            })
        }
    }
}

/// Computes an infinite sum or product from its partial results.
fn series(f: &dyn Fn(Complex64) -> Option<Complex64>, low: Complex64, add: bool) -> Option<Complex64> {
    let (mut total, mut k) = (real(if add { 0.0 } else { 1.0 }), 0u32);
    let mut partial = Vec::new();
    for round in 0..7 {
        while k < 16 << round {
            match f(low + f64::from(k)) {
                Some(term) => total = if add { total + term } else { total * term },
                // Late terms may be outside the range of double precision. They are too small to count.
                None if k >= 64 => {}
                None => return None,
            }
            k += 1;
        }
        partial.push(total);
    }
    extrapolated(&|round| partial.get(round as usize).copied())
}

/// Computes the limit of a sequence with halved steps by Richardson extrapolation.
fn extrapolated(f: &dyn Fn(u32) -> Option<Complex64>) -> Option<Complex64> {
    const ROUNDS: u32 = 7;
    let mut row: Vec<Complex64> = (0..ROUNDS).map(f).collect::<Option<_>>()?;
    for order in 1..ROUNDS {
        let factor = f64::from(1u32 << order);
        row = row.windows(2).map(|w| (w[1] * factor - w[0]) / (factor - 1.0)).collect();
    }
    row.first().copied()
}

/// Computes an integral over a finite range by tanh-sinh quadrature.
fn integral(
    f: &dyn Fn(Complex64) -> Option<Complex64>,
    low: &Tree,
    high: &Tree,
    at: &Point,
    steps: &Steps,
) -> Option<Complex64> {
    let end = |t: &Tree| value(t, at, steps).filter(|c| c.im == 0.0).map(|c| c.re);
    let (a, b) = (end(low)?, end(high)?);
    let g = |t: f64| Some(f(real((a + b) / 2.0 + (b - a) / 2.0 * t))? * ((b - a) / 2.0));
    let (h, half) = (1.0 / 32.0, std::f64::consts::FRAC_PI_2);
    let mut total = real(0.0);
    for k in -110..=110 {
        let s = f64::from(k) * h;
        let t = (half * s.sinh()).tanh();
        if t.abs() >= 1.0 - 1e-15 {
            continue;
        }
        let weight = h * half * s.cosh() / (half * s.sinh()).cosh().powi(2);
        if let Some(v) = g(t) {
            total += v * weight;
        }
    }
    Some(total)
}

/// Returns sample values. Real letters take all combinations of signs, for up to three letters. Letters of a complex
/// formula take values off the real line.
fn point(symbols: &[(String, bool)], round: u32) -> Point {
    symbols
        .iter()
        .enumerate()
        .map(|(i, s)| {
            let x = seed(&format!("{}{round}", s.0));
            let size = 0.3 + 2.2 * x;
            let value =
                if s.1 { real(if round >> (i % 3) & 1 == 1 { -size } else { size }) } else { c64(size - 1.2, 0.4 + x) };
            (s.clone(), value)
        })
        .collect()
}

/// Returns true if two expressions agree at all sample points at which both have a value, and if such points exist.
pub(super) fn agree(a: &Tree, b: &Tree, steps: &Steps) -> bool {
    const ROUNDS: u32 = 9;
    let mut symbols = Vec::new();
    a.symbols(&mut symbols);
    b.symbols(&mut symbols);
    let coarse = |t: &Tree| {
        t.any(&|t| matches!(t, Tree::Bound(Operator::Limit | Operator::Derivative | Operator::Integral, ..)))
    };
    // A letter that is an end of a sum or product is a whole number.
    let ranges = |t: &Tree| match t {
        Tree::Bound(Operator::Sum | Operator::Product, _, _, ends) => {
            ends.iter().any(|e| e.any(&|t| matches!(t, Tree::Symbol(..))))
        }
        _ => false,
    };
    let counts = a.any(&ranges) || b.any(&ranges);
    // Limits and derivatives are extrapolated, so they need a larger tolerance.
    let endless = |t: &Tree| {
        t.any(&|t| matches!(t, Tree::Bound(_, _, _, ends) if ends.iter().any(|e| matches!(e, Tree::Infinite(_)))))
    };
    let tolerance = if endless(a) || endless(b) || coarse(a) || coarse(b) { 1e-6 } else { 1e-11 };
    let mut valid = 0;
    for round in 0..if symbols.is_empty() { 1 } else { ROUNDS } {
        let mut at = point(&symbols, round);
        if counts {
            let whole = |s: &(String, bool)| real((seed(&s.0) * 3.0).floor() + f64::from(round) + 2.0);
            at.iter_mut().for_each(|(s, v)| *v = whole(s));
        }
        let (Some(x), Some(y)) = (value(a, &at, steps), value(b, &at, steps)) else {
            if steps.exhausted() {
                return false;
            }
            continue;
        };
        if (x - y).norm() > tolerance * x.norm().max(y.norm()).max(1e-3) {
            return false;
        }
        valid += 1;
    }
    valid > usize::from(!symbols.is_empty())
}

/// Finds a root in one letter from a starting value by the secant method. Returns `None` if it finds none.
fn root(t: &Tree, letter: &Letter, at: &Point, start: Complex64, steps: &Steps) -> Option<Complex64> {
    let f = |x: Complex64| value(t, &moved(at, letter, x), steps);
    let (mut x0, mut x1) = (start, start + c64(0.1, 0.03));
    let (mut f0, mut f1) = (f(x0)?, f(x1)?);
    for _ in 0..60 {
        let slope = f1 - f0;
        if slope == Complex64::ZERO {
            break;
        }
        let x2 = Some(x1 - f1 * (x1 - x0) / slope).filter(|x| x.is_finite())?;
        (x0, f0) = (x1, f1);
        x1 = x2;
        f1 = f(x1)?;
        if f1.norm() < 1e-13 {
            return Some(x1);
        }
    }
    (f1.norm() < 1e-9).then_some(x1)
}

/// Returns true if two expressions in the same letters have the same zeros at all samples.
pub(super) fn same_roots(a: &Tree, b: &Tree, steps: &Steps) -> bool {
    let (mut symbols, mut others) = (Vec::new(), Vec::new());
    a.symbols(&mut symbols);
    b.symbols(&mut others);
    let by_name = |t: &Tree| t.any(&|t| matches!(t, Tree::Apply(..)));
    if symbols.is_empty()
        || by_name(a)
        || by_name(b)
        || symbols.len() != others.len()
        || !others.iter().all(|s| symbols.contains(s))
    {
        return false;
    }
    let mut found = 0;
    for round in 0..3 {
        let at = point(&symbols, round);
        let Some(var) = symbols.last() else { return false };
        for (f, g) in [(a, b), (b, a)] {
            for start in [c64(0.7, 0.4), c64(-1.3, -0.6), c64(5.0, 1.0)] {
                let Some(x) = root(f, var, &at, start, steps) else { continue };
                // A root of one expression must be a root of the other.
                match value(g, &moved(&at, var, x), steps) {
                    Some(y) if y.norm() <= 1e-7 => found += 1,
                    _ => return false,
                }
            }
        }
    }
    found >= 4
}

/// Returns the value of a real constant, which may be infinite.
pub(super) fn real_value(t: &Tree, steps: &Steps) -> Option<f64> {
    match t {
        Tree::Infinite(positive) => Some(if *positive { f64::INFINITY } else { f64::NEG_INFINITY }),
        t => {
            let v = value(t, &Vec::new(), steps)?;
            (v.im.abs() <= 1e-12 * (1.0 + v.re.abs())).then_some(v.re)
        }
    }
}
