//! Numeric values with error bounds.

use num_bigint::BigInt;

use super::ball::{Ball, pi};
use super::complex::Complex;
use super::exact::{MAX_TERMS, exact};
use super::expr::{Binder, Bound, Expr, number};
use super::{Rational, Steps};

/// Why there is no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// There is none: a division by zero, a logarithm of zero.
    Undefined,
    /// The error is too large to tell; more precision may help.
    Unsure,
    /// The budget is used up.
    Exhausted,
}

type Out = Result<Complex, Fault>;

/// Largest exponent that is taken by squaring.
const MAX_SQUARED: u32 = 4_096;
/// Nodes of a quadrature on either side, in steps of 1/32.
const LAST_NODE: i64 = 136;

/// Where expressions are evaluated.
pub(super) struct Scope<'a> {
    /// Values of the variables; the last of a name counts.
    pub(super) vars: Vec<(String, Complex)>,
    /// Bits of precision.
    pub(super) prec: i64,
    /// The budget.
    pub(super) steps: &'a Steps,
}

fn sure(value: Option<Complex>) -> Out {
    value.ok_or(Fault::Unsure)
}

/// The exact value of a real ball that is one.
fn exactly(z: &Complex) -> Option<Rational> {
    if !z.is_real() {
        return None;
    }
    z.re.exact_integer().map(Rational::from_integer)
}

impl Scope<'_> {
    fn spend(&self, n: i64) -> Result<(), Fault> {
        let scale = self.prec / 64;
        self.steps.spend((n * scale) as u64).ok_or(Fault::Exhausted)
    }

    /// The value at these variables.
    pub(super) fn eval(&mut self, e: &Expr) -> Out {
        self.spend(6)?;
        match e {
            Expr::Num { value, .. } => Ok(Complex::real(Ball::ratio(value, self.prec))),
            Expr::Var(name) => self.variable(name),
            Expr::Add(terms) => {
                let mut sum = Complex::int(0);
                for t in terms {
                    sum = sum.add(&self.eval(t)?, self.prec);
                }
                Ok(sum)
            }
            Expr::Mul(factors) => {
                let mut product = Complex::int(1);
                for f in factors {
                    product = product.mul(&self.eval(f)?, self.prec);
                }
                Ok(product)
            }
            Expr::Pow(base, exponent) => self.power(base, exponent),
            Expr::Call(name, args) => {
                let args: Vec<Complex> = args.iter().map(|a| self.eval(a)).collect::<Result<_, _>>()?;
                self.call(name, &args)
            }
            Expr::Apply(name, args) => {
                let args: Vec<Complex> = args.iter().map(|a| self.eval(a)).collect::<Result<_, _>>()?;
                self.apply(name, &args)
            }
            Expr::Bound(b) => match b.binder {
                Binder::Sum | Binder::Product => self.series(b),
                Binder::Integral => self.integral(b),
                Binder::Limit => self.limit(b),
                Binder::Derivative => self.derivative(b),
            },
            Expr::Matrix(_) => Err(Fault::Undefined),
        }
    }

    fn variable(&self, name: &str) -> Out {
        if let Some((_, value)) = self.vars.iter().rev().find(|(n, _)| n == name) {
            return Ok(value.clone());
        }
        match name {
            "pi" => Ok(Complex::real(pi(self.prec))),
            "e" => sure(Complex::int(1).exp(self.prec)),
            "i" => Ok(Complex::i()),
            _ => Err(Fault::Undefined),
        }
    }

    fn inverse(&self, z: &Complex) -> Out {
        if z.is_zero() {
            return Err(Fault::Undefined);
        }
        sure(z.inverse(self.prec))
    }

    fn power(&mut self, base: &Expr, exponent: &Expr) -> Out {
        if matches!(base, Expr::Var(name) if name == "e") && !self.vars.iter().any(|(n, _)| n == "e") {
            let x = self.eval(exponent)?;
            self.spend(170)?;
            return sure(x.exp(self.prec));
        }
        let z = self.eval(base)?;
        let rational = exact(exponent, self.steps);
        if self.steps.exhausted() {
            return Err(Fault::Exhausted);
        }
        let by = match &rational {
            Some(_) => Complex::int(0),
            None => self.eval(exponent)?,
        };
        let rational = rational.or_else(|| exactly(&by));
        let by = match &rational {
            Some(q) => Complex::real(Ball::ratio(q, self.prec)),
            None => by,
        };
        if z.is_zero() {
            return if by.re.sign() == Some(1) { Ok(Complex::int(0)) } else { Err(Fault::Undefined) };
        }
        if let Some(q) = &rational {
            let magnitude = u32::try_from(q.numer().magnitude()).unwrap_or(u32::MAX);
            if magnitude <= MAX_SQUARED && *q.denom() <= BigInt::from(2) {
                self.spend(4 + i64::from(magnitude.max(1).ilog2()))?;
                let root = if q.is_integer() { z } else { sure(z.sqrt(self.prec))? };
                let positive = root.power(magnitude, self.prec);
                return if *q < Rational::from_integer(0.into()) { self.inverse(&positive) } else { Ok(positive) };
            }
            // The real root of a negative number, where there is one.
            if z.is_real() && z.re.sign() == Some(-1) && q.denom().bit(0) {
                let size = self.exponential(&z.neg(), &by)?;
                return Ok(if q.numer().bit(0) { size.neg() } else { size });
            }
        }
        self.exponential(&z, &by)
    }

    fn exponential(&self, z: &Complex, by: &Complex) -> Out {
        self.spend(430)?;
        if z.may_be_zero() {
            return Err(Fault::Unsure);
        }
        sure(z.ln(self.prec).and_then(|l| l.mul(by, self.prec).exp(self.prec)))
    }

    fn call(&mut self, name: &str, args: &[Complex]) -> Out {
        let prec = self.prec;
        self.spend(20)?;
        if matches!(name, "factorial" | "factorial2" | "binom" | "permutations" | "gcd" | "lcm" | "mod") {
            let exact_args: Option<Vec<Expr>> = args.iter().map(|a| exactly(a).map(number)).collect();
            let Some(list) = exact_args else { return Err(Fault::Undefined) };
            let known: &'static str = match name {
                "factorial" => "factorial",
                "factorial2" => "factorial2",
                "binom" => "binom",
                "permutations" => "permutations",
                "gcd" => "gcd",
                "lcm" => "lcm",
                _ => "mod",
            };
            let value = exact(&Expr::Call(known, list), self.steps).ok_or(Fault::Undefined)?;
            return Ok(Complex::real(Ball::ratio(&value, prec)));
        }
        if let "max" | "min" = name {
            return self.extreme(name == "max", args);
        }
        if let ("log", [base, x]) = (name, args) {
            let (top, bottom) = (self.ln(x)?, self.ln(base)?);
            return Ok(top.mul(&self.inverse(&bottom)?, prec));
        }
        let [x] = args else { return Err(Fault::Undefined) };
        let real = |b: Option<Ball>| b.map(Complex::real).ok_or(Fault::Unsure);
        let only_real = |x: &Complex| if x.is_real() { Ok(x.re.clone()) } else { Err(Fault::Undefined) };
        match name {
            "abs" => real(x.abs(prec)),
            "re" => Ok(Complex::real(x.re.clone())),
            "im" => Ok(Complex::real(x.im.clone())),
            "conj" => Ok(Complex { re: x.re.clone(), im: x.im.clone().neg() }),
            "arg" => real(x.arg(prec)),
            "floor" => real(only_real(x)?.floor()),
            "ceil" => real(only_real(x)?.neg().floor().map(Ball::neg)),
            "sign" => match only_real(x)?.sign() {
                Some(s) => Ok(Complex::int(i64::from(s))),
                None => Err(Fault::Unsure),
            },
            "degree" => Ok(x.mul(&Complex::real(pi(prec)), prec).mul(&self.inverse(&Complex::int(180))?, prec)),
            "ln" => self.ln(x),
            "sin" | "cos" | "tan" | "cot" | "sec" | "csc" => {
                self.spend(220)?;
                let (sin, cos) = x.sin_cos(prec).ok_or(Fault::Unsure)?;
                match name {
                    "sin" => Ok(sin),
                    "cos" => Ok(cos),
                    "sec" => self.inverse(&cos),
                    "csc" => self.inverse(&sin),
                    "tan" => Ok(sin.mul(&self.inverse(&cos)?, prec)),
                    _ => Ok(cos.mul(&self.inverse(&sin)?, prec)),
                }
            }
            "sinh" | "cosh" | "tanh" | "coth" | "sech" | "csch" => {
                self.spend(350)?;
                let (up, down) = (sure(x.exp(prec))?, sure(x.clone().neg().exp(prec))?);
                let half = |z: Complex| Complex { re: z.re.scale(-1), im: z.im.scale(-1) };
                let (sinh, cosh) = (half(up.sub(&down, prec)), half(up.add(&down, prec)));
                match name {
                    "sinh" => Ok(sinh),
                    "cosh" => Ok(cosh),
                    "tanh" => Ok(sinh.mul(&self.inverse(&cosh)?, prec)),
                    "coth" => Ok(cosh.mul(&self.inverse(&sinh)?, prec)),
                    "sech" => self.inverse(&cosh),
                    _ => self.inverse(&sinh),
                }
            }
            "arctan" | "arccot" | "arcsin" | "arccos" | "arcsec" | "arccsc" => {
                self.spend(320)?;
                let x = match name {
                    "arcsec" | "arccsc" => only_real(&self.inverse(x)?)?,
                    _ => only_real(x)?,
                };
                let half = || pi(prec).scale(-1);
                if matches!(name, "arctan" | "arccot") {
                    let angle = x.atan(prec).ok_or(Fault::Unsure)?;
                    return Ok(Complex::real(if name == "arctan" { angle } else { half().sub(&angle, prec) }));
                }
                let rest = Ball::int(1).sub(&x.mul(&x, prec), prec);
                if rest.sign() == Some(-1) {
                    return Err(Fault::Undefined);
                }
                let side = rest.sqrt(prec).ok_or(Fault::Unsure)?;
                let angle = real(Complex { re: side, im: x }.arg(prec))?;
                let cosine = matches!(name, "arccos" | "arcsec");
                Ok(if cosine { Complex::real(half().sub(&angle.re, prec)) } else { angle })
            }
            "arcsinh" | "arccosh" | "arctanh" => {
                self.spend(300)?;
                let x = only_real(x)?;
                if name == "arctanh" {
                    let (up, down) = (Ball::int(1).add(&x, prec), Ball::int(1).sub(&x, prec));
                    let q = up.div(&down, prec).and_then(|q| q.ln(prec)).ok_or(Fault::Undefined)?;
                    return Ok(Complex::real(q.scale(-1)));
                }
                let one = Ball::int(if name == "arcsinh" { 1 } else { -1 });
                let root = x.mul(&x, prec).add(&one, prec).sqrt(prec).ok_or(Fault::Undefined)?;
                real(x.add(&root, prec).ln(prec))
            }
            _ => Err(Fault::Undefined),
        }
    }

    fn ln(&self, x: &Complex) -> Out {
        self.spend(260)?;
        if x.is_zero() { Err(Fault::Undefined) } else { sure(x.ln(self.prec)) }
    }

    fn extreme(&self, largest: bool, args: &[Complex]) -> Out {
        let mut best = args.first().ok_or(Fault::Undefined)?.clone();
        for x in &args[1..] {
            if !x.is_real() || !best.is_real() {
                return Err(Fault::Undefined);
            }
            let sign = x.sub(&best, self.prec).re.sign().ok_or(Fault::Unsure)?;
            if (sign > 0) == largest && sign != 0 {
                best = x.clone();
            }
        }
        Ok(best)
    }

    /// A function that is only named stands for one smooth function of its own, the same wherever it occurs.
    fn apply(&mut self, name: &str, args: &[Complex]) -> Out {
        self.spend(230)?;
        let mut hash = hash(name);
        let mut next = || {
            hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Complex::real(Ball::int(300 + (hash >> 54) as i64).scale(-9))
        };
        let mut phase = next();
        for x in args {
            phase = phase.add(&next().mul(x, self.prec), self.prec);
        }
        let (sin, _) = phase.sin_cos(self.prec).ok_or(Fault::Unsure)?;
        Ok(sin.add(&next(), self.prec))
    }

    fn at(&mut self, var: &str, value: Complex, body: &Expr) -> Out {
        self.vars.push((var.to_owned(), value));
        let out = self.eval(body);
        self.vars.pop();
        out
    }

    fn series(&mut self, b: &Bound) -> Out {
        let sum = b.binder == Binder::Sum;
        let from = self.eval(&b.from)?;
        let from = exactly(&from).and_then(|q| i64::try_from(q.numer()).ok()).ok_or(Fault::Undefined)?;
        let infinite = b.to.is_infinite() == Some(1);
        let to = if infinite {
            from + MAX_TERMS
        } else {
            let to = self.eval(&b.to)?;
            exactly(&to).and_then(|q| i64::try_from(q.numer()).ok()).ok_or(Fault::Undefined)?
        };
        if to.checked_sub(from).is_none_or(|n| n > MAX_TERMS) {
            return Err(Fault::Undefined);
        }
        let mut total = Complex::int(i64::from(!sum));
        let (mut falling, mut last) = (0, i64::MAX);
        for k in from..=to {
            let term = self.at(&b.var, Complex::int(k), &b.body)?;
            let rest = if sum { term.clone() } else { term.sub(&Complex::int(1), self.prec) };
            total = if sum { total.add(&term, self.prec) } else { total.mul(&term, self.prec) };
            if infinite {
                let top = if rest.is_zero() { -self.prec - 65 } else { rest.top() };
                falling = if top <= last { falling + 1 } else { 0 };
                last = top;
                // Terms that keep falling like a geometric series: what is left is not much above the last one.
                if falling > 24 && top < -self.prec - 64 {
                    return Ok(total.widen(-self.prec));
                }
            }
        }
        if infinite { Err(Fault::Undefined) } else { Ok(total) }
    }

    /// Tanh-sinh quadrature, checked against itself with every other point left out.
    fn integral(&mut self, b: &Bound) -> Out {
        let ends = (b.from.is_infinite(), b.to.is_infinite());
        let finite = |s: &mut Self, e: &Expr, inf: Option<i32>| match inf {
            Some(_) => Ok(Complex::int(0)),
            None => s.eval(e),
        };
        let (from, to) = (finite(self, &b.from, ends.0)?, finite(self, &b.to, ends.1)?);
        // No more than 100 bits are claimed.
        let outer = std::mem::replace(&mut self.prec, 160);
        let out = self.quadrature(b, ends, from, to);
        self.prec = outer;
        out
    }

    fn quadrature(&mut self, b: &Bound, ends: (Option<i32>, Option<i32>), from: Complex, to: Complex) -> Out {
        let prec = self.prec;
        let width = to.sub(&from, prec);
        // Steps of 1/16 from -4.25 to 4.25, and halved where that is not enough: the weight at the ends is below 2^-150.
        let mut sums = [Complex::int(0), Complex::int(0), Complex::int(0)];
        let mut edge = i64::MIN;
        for pass in 0..2 {
            for k in -LAST_NODE..=LAST_NODE {
                if (k % 2 == 0) != (pass == 0) {
                    continue;
                }
                let Some(value) = self.node(b, k, ends, (&from, &to, &width))? else { continue };
                if k.abs() == LAST_NODE && !value.is_zero() {
                    edge = edge.max(value.top());
                }
                for (sum, every) in sums.iter_mut().zip([4, 2, 1]) {
                    if k % every == 0 {
                        *sum = sum.add(&value, prec);
                    }
                }
            }
            let scaled = |z: &Complex, n: i64| Complex { re: z.re.clone().scale(n), im: z.im.clone().scale(n) };
            let (coarse, fine) = match pass {
                0 => (scaled(&sums[0], -3), scaled(&sums[1], -4)),
                _ => (scaled(&sums[1], -4), scaled(&sums[2], -5)),
            };
            let gap = fine.sub(&coarse, prec).top().max(-prec);
            // Halving the step squares the error; half of that gain is claimed. What lies beyond the last points is
            // smaller than a few times them.
            if gap <= -44 || (pass == 1 && gap <= -24) {
                return Ok(fine.widen((gap * 3 / 2).max(-100).max(edge.saturating_add(8))));
            }
        }
        Err(Fault::Undefined)
    }

    /// The integrand at a node times its weight; `None` at an end where it has no value.
    fn node(
        &mut self,
        b: &Bound,
        k: i64,
        ends: (Option<i32>, Option<i32>),
        (from, to, width): (&Complex, &Complex, &Complex),
    ) -> Result<Option<Complex>, Fault> {
        let prec = self.prec;
        self.spend(800)?;
        let t = Ball::int(k).scale(-5);
        let exp = |x: &Ball| x.exp(prec).ok_or(Fault::Unsure);
        let (up, down) = (exp(&t)?, exp(&t.clone().neg())?);
        let quarter_turn = pi(prec).scale(-1);
        let sinh = up.sub(&down, prec).scale(-1).mul(&quarter_turn, prec);
        let slope = up.add(&down, prec).scale(-1).mul(&quarter_turn, prec);
        let (grow, shrink) = (exp(&sinh)?, exp(&sinh.clone().neg())?);
        let (x, weight) = match ends {
            (None, None) => {
                // (1 + tanh s) / 2 = 1 / (1 + e^(-2s)), and its slope.
                let total = grow.add(&shrink, prec);
                let share = grow.div(&total, prec).ok_or(Fault::Unsure)?;
                let density = slope.scale(1).div(&total.mul(&total, prec), prec).ok_or(Fault::Unsure)?;
                let offset = width.mul(&Complex::real(share), prec);
                (from.add(&offset, prec), width.mul(&Complex::real(density), prec))
            }
            (None, Some(1)) => (from.add(&Complex::real(grow.clone()), prec), Complex::real(grow.mul(&slope, prec))),
            (Some(-1), None) => (to.sub(&Complex::real(grow.clone()), prec), Complex::real(grow.mul(&slope, prec))),
            (Some(-1), Some(1)) => {
                let x = Complex::real(grow.sub(&shrink, prec).scale(-1));
                let density = grow.add(&shrink, prec).scale(-1).mul(&slope, prec);
                (x, Complex::real(density))
            }
            _ => return Err(Fault::Undefined),
        };
        match self.at(&b.var, x, &b.body) {
            Ok(value) => Ok(Some(value.mul(&weight, prec))),
            Err(Fault::Exhausted) => Err(Fault::Exhausted),
            // An end where the function has no value counts for nothing.
            Err(_) if k.abs() > 96 => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The limit of a function that is smooth beside the place: values at four distances, extrapolated.
    fn limit(&mut self, b: &Bound) -> Out {
        let infinite = b.from.is_infinite();
        let place = match infinite {
            Some(_) => Complex::int(0),
            None => self.eval(&b.from)?,
        };
        let side = exact(&b.to, self.steps).map_or(0, |s| i32::from(s > Rational::from_integer(0.into())) * 2 - 1);
        let side = if b.to == number(Rational::from_integer(0.into())) { 0 } else { side };
        let mut found: Option<Complex> = None;
        for sign in [1i64, -1] {
            let wanted = match infinite {
                Some(s) => i64::from(s) == sign,
                None => side == 0 || i64::from(side) == sign,
            };
            if !wanted {
                continue;
            }
            match (self.beside(b, &place, infinite.is_some(), sign), &found) {
                (Ok(value), None) => found = Some(value),
                (Ok(value), Some(other)) => {
                    if !value.sub(other, self.prec).may_be_zero() {
                        return Err(Fault::Undefined);
                    }
                }
                (Err(Fault::Undefined), _) => {}
                (Err(fault), _) => return Err(fault),
            }
        }
        found.ok_or(Fault::Undefined)
    }

    fn beside(&mut self, b: &Bound, place: &Complex, infinite: bool, sign: i64) -> Out {
        const NEAR: i64 = 64;
        let outer = self.prec;
        // Differences of nearly equal values lose a few times NEAR bits.
        self.prec = outer + 6 * NEAR;
        let mut values = Vec::new();
        for n in 0..4i64 {
            let at = if infinite {
                Complex::real(Ball::int(sign).scale(NEAR - n))
            } else {
                place.add(&Complex::real(Ball::int(sign).scale(n - NEAR)), self.prec)
            };
            let value = self.at(&b.var, at, &b.body);
            match value {
                Ok(v) => values.push(v),
                Err(fault) => {
                    self.prec = outer;
                    return Err(if fault == Fault::Unsure { Fault::Undefined } else { fault });
                }
            }
        }
        let prec = self.prec;
        self.prec = outer;
        // Neville's scheme at distances 1, 2, 4, 8: each column removes one power of the distance.
        let mut column = values;
        let mut best = Vec::new();
        for power in 1..4i64 {
            let factor = Complex::int(1 << power);
            let under = Complex::int((1 << power) - 1).inverse(prec).ok_or(Fault::Unsure)?;
            column = column.windows(2).map(|w| factor.mul(&w[0], prec).sub(&w[1], prec).mul(&under, prec)).collect();
            best.push(column[0].clone());
        }
        let size = best[2].top().max(0);
        let gap = best[2].sub(&best[1], prec).top();
        if gap > size - NEAR {
            return Err(Fault::Undefined);
        }
        Ok(best[2].clone().widen(gap.max(size - 120)))
    }

    /// A central difference with a step far below the precision, checked against one with the double step.
    fn derivative(&mut self, b: &Bound) -> Out {
        const NEAR: i64 = 80;
        let x = self.eval(&Expr::Var(b.var.clone()))?;
        let outer = self.prec;
        if outer > 2_000 {
            return Err(Fault::Undefined);
        }
        self.prec = outer + 3 * NEAR;
        let mut slopes = Vec::new();
        for n in 0..2i64 {
            let step = Complex::real(Ball::two_to(n - NEAR));
            let (right, left) = (x.add(&step, self.prec), x.sub(&step, self.prec));
            let pair = self.at(&b.var, right, &b.body).and_then(|r| Ok((r, self.at(&b.var, left, &b.body)?)));
            match pair {
                Ok((r, l)) => {
                    let rise = r.sub(&l, self.prec);
                    slopes.push(Complex { re: rise.re.scale(NEAR - n - 1), im: rise.im.scale(NEAR - n - 1) });
                }
                Err(fault) => {
                    self.prec = outer;
                    return Err(fault);
                }
            }
        }
        self.prec = outer;
        let gap = slopes[0].sub(&slopes[1], outer).top();
        Ok(slopes[0].clone().widen(gap.max(-2 * NEAR)))
    }
}

/// A fixed number for a name.
pub(super) fn hash(name: &str) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for b in name.bytes() {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        h ^= h >> 29;
    }
    h
}
