//! Numeric evaluation of expressions with error bounds.

pub(crate) mod calculus;

use crate::steps::{Rational, Steps};
use crate::value::ball::{Ball, pi};
use crate::value::complex::Complex;
use crate::value::exact::exact;
use crate::value::expr::{Binder, Expr, number};
use num_bigint::BigInt;

/// Reason why an expression has no value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// The value does not exist: a division by zero, a logarithm of zero.
    Undefined,
    /// The error is too large to decide. More precision may help.
    Unsure,
    /// The budget is used up.
    Exhausted,
}

/// A value, or the reason why the expression has no value.
pub(crate) type Out = Result<Complex, Fault>;

/// Largest exponent for which a power is computed by repeated squaring.
const MAX_SQUARED: u32 = 4_096;

/// Variables, precision and budget of an evaluation.
pub(crate) struct Scope<'a> {
    /// Values of the variables. If a name occurs several times, the last one counts.
    pub(crate) vars: Vec<(String, Complex)>,
    /// Precision in bits.
    pub(crate) prec: i64,
    /// The work budget.
    pub(crate) steps: &'a Steps,
}

fn sure(value: Option<Complex>) -> Out {
    value.ok_or(Fault::Unsure)
}

/// Returns the exact value of a real ball that is an integer without error.
pub(crate) fn exactly(z: &Complex) -> Option<Rational> {
    if !z.is_real() {
        return None;
    }
    z.re.exact_integer().map(Rational::from_integer)
}

impl Scope<'_> {
    pub(crate) fn spend(&self, n: i64) -> Result<(), Fault> {
        let scale = self.prec / 64;
        self.steps.spend((n * scale) as u64).ok_or(Fault::Exhausted)
    }

    /// Evaluates an expression with the variables of this scope.
    pub(crate) fn eval(&mut self, e: &Expr) -> Out {
        self.spend(6)?;
        match e {
            Expr::Num { value, .. } => Ok(Complex::real(Ball::ratio(value, self.prec))),
            Expr::Var(name) => self.variable(name),
            Expr::Add(list) => list.iter().try_fold(Complex::int(0), |sum, e| Ok(sum.add(&self.eval(e)?, self.prec))),
            Expr::Mul(list) => list.iter().try_fold(Complex::int(1), |all, e| Ok(all.mul(&self.eval(e)?, self.prec))),
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
            // The odd root of a negative number is its real root.
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

    fn call(&mut self, name: &'static str, args: &[Complex]) -> Out {
        let prec = self.prec;
        self.spend(20)?;
        if matches!(name, "factorial" | "binom" | "gcd" | "lcm" | "mod") {
            let exact_args: Option<Vec<Expr>> = args.iter().map(|a| exactly(a).map(number)).collect();
            let Some(list) = exact_args else { return Err(Fault::Undefined) };
            let value = exact(&Expr::Call(name, list), self.steps).ok_or(Fault::Undefined)?;
            return Ok(Complex::real(Ball::ratio(&value, prec)));
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
            "floor" => real(only_real(x)?.floor()),
            "ceil" => real(only_real(x)?.neg().floor().map(Ball::neg)),
            "degree" => Ok(x.mul(&Complex::real(pi(prec)), prec).mul(&self.inverse(&Complex::int(180))?, prec)),
            "ln" => self.ln(x),
            "cis" => {
                self.spend(220)?;
                let (sin, cos) = x.sin_cos(prec).ok_or(Fault::Unsure)?;
                Ok(cos.add(&sin.mul(&Complex::i(), prec), prec))
            }
            "sin" | "cos" | "tan" | "cot" | "sec" | "csc" | "sinh" | "cosh" | "tanh" => {
                let (sin, cos) = if name.ends_with('h') {
                    self.spend(350)?;
                    let (up, down) = (sure(x.exp(prec))?, sure(x.clone().neg().exp(prec))?);
                    (up.sub(&down, prec).scale(-1), up.add(&down, prec).scale(-1))
                } else {
                    self.spend(220)?;
                    x.sin_cos(prec).ok_or(Fault::Unsure)?
                };
                match name.trim_end_matches('h') {
                    "sin" => Ok(sin),
                    "cos" => Ok(cos),
                    "sec" => self.inverse(&cos),
                    "csc" => self.inverse(&sin),
                    "tan" => Ok(sin.mul(&self.inverse(&cos)?, prec)),
                    _ => Ok(cos.mul(&self.inverse(&sin)?, prec)),
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

    /// Evaluates a function of which only the name is known. Each name has its own smooth function, the same wherever
    /// the name occurs.
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

    pub(crate) fn at(&mut self, var: &str, value: Complex, body: &Expr) -> Out {
        self.vars.push((var.to_owned(), value));
        let out = self.eval(body);
        self.vars.pop();
        out
    }
}

/// Returns a fixed hash of a name.
pub(crate) fn hash(name: &str) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for b in name.bytes() {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
        h ^= h >> 29;
    }
    h
}
