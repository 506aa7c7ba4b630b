//! Complex numbers with error bounds. A zero imaginary part is exact, so real arithmetic stays real.

use crate::value::ball::{Ball, pi};

/// A complex number with error bounds.
#[derive(Clone, Debug)]
pub(crate) struct Complex {
    pub(crate) re: Ball,
    pub(crate) im: Ball,
}

impl Complex {
    pub(crate) fn real(re: Ball) -> Self {
        Complex { re, im: Ball::int(0) }
    }

    pub(crate) fn int(value: i64) -> Self {
        Self::real(Ball::int(value))
    }

    pub(crate) fn i() -> Self {
        Complex { re: Ball::int(0), im: Ball::int(1) }
    }

    /// Returns true if the imaginary part is exactly zero.
    pub(crate) fn is_real(&self) -> bool {
        self.im.is_zero()
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.re.is_zero() && self.im.is_zero()
    }

    pub(crate) fn may_be_zero(&self) -> bool {
        self.re.may_be_zero() && self.im.may_be_zero()
    }

    /// Returns an exponent with `|z| < 2^top`.
    pub(crate) fn top(&self) -> i64 {
        let part = |b: &Ball| if b.is_zero() { i64::MIN / 2 } else { b.top() };
        part(&self.re).max(part(&self.im)) + i64::from(!self.is_real())
    }

    /// Returns an exponent such that the error is below `2^error()`.
    pub(crate) fn error(&self) -> i64 {
        self.re.error().max(self.im.error())
    }

    pub(crate) fn widen(self, error: i64) -> Self {
        if self.is_real() {
            return Self::real(self.re.widen(error));
        }
        Complex { re: self.re.widen(error), im: self.im.widen(error) }
    }

    pub(crate) fn neg(self) -> Self {
        Complex { re: self.re.neg(), im: self.im.neg() }
    }

    /// Multiplies by `2^n`.
    pub(crate) fn scale(self, n: i64) -> Self {
        Complex { re: self.re.scale(n), im: self.im.scale(n) }
    }

    pub(crate) fn add(&self, other: &Self, prec: i64) -> Self {
        Complex { re: self.re.add(&other.re, prec), im: self.im.add(&other.im, prec) }
    }

    pub(crate) fn sub(&self, other: &Self, prec: i64) -> Self {
        Complex { re: self.re.sub(&other.re, prec), im: self.im.sub(&other.im, prec) }
    }

    pub(crate) fn mul(&self, other: &Self, prec: i64) -> Self {
        if self.is_real() && other.is_real() {
            return Self::real(self.re.mul(&other.re, prec));
        }
        let cross = |a: &Ball, b: &Ball| a.mul(b, prec);
        Complex {
            re: cross(&self.re, &other.re).sub(&cross(&self.im, &other.im), prec),
            im: cross(&self.re, &other.im).add(&cross(&self.im, &other.re), prec),
        }
    }

    /// Returns `1 / z`. Returns `None` if `z` may be zero.
    pub(crate) fn inverse(&self, prec: i64) -> Option<Self> {
        if self.is_real() {
            return Ball::int(1).div(&self.re, prec).map(Self::real);
        }
        let norm = self.norm(prec);
        Some(Complex { re: self.re.div(&norm, prec)?, im: self.im.clone().neg().div(&norm, prec)? })
    }

    fn norm(&self, prec: i64) -> Ball {
        self.re.mul(&self.re, prec).add(&self.im.mul(&self.im, prec), prec)
    }

    pub(crate) fn abs(&self, prec: i64) -> Option<Ball> {
        if self.is_real() { Some(self.re.clone().abs()) } else { self.norm(prec).sqrt(prec) }
    }

    /// Returns the angle in (-pi, pi]. Returns `None` if the error does not determine the branch.
    pub(crate) fn arg(&self, prec: i64) -> Option<Ball> {
        let half = || pi(prec).scale(-1);
        match (self.re.sign(), self.im.sign()) {
            (Some(1), _) => self.im.div(&self.re, prec)?.atan(prec),
            (_, Some(1)) => Some(half().sub(&self.re.div(&self.im, prec)?.atan(prec)?, prec)),
            (_, Some(-1)) => Some(half().neg().sub(&self.re.div(&self.im, prec)?.atan(prec)?, prec)),
            (Some(-1), Some(0)) => Some(pi(prec)),
            _ => None,
        }
    }

    pub(crate) fn exp(&self, prec: i64) -> Option<Self> {
        let size = self.re.exp(prec)?;
        if self.is_real() {
            return Some(Self::real(size));
        }
        let (sin, cos) = self.im.sin_cos(prec)?;
        Some(Complex { re: size.mul(&cos, prec), im: size.mul(&sin, prec) })
    }

    pub(crate) fn ln(&self, prec: i64) -> Option<Self> {
        if self.is_real() && self.re.sign() == Some(1) {
            return self.re.ln(prec).map(Self::real);
        }
        Some(Complex { re: self.abs(prec)?.ln(prec)?, im: self.arg(prec)? })
    }

    /// Returns the principal square root.
    pub(crate) fn sqrt(&self, prec: i64) -> Option<Self> {
        if self.is_zero() {
            return Some(self.clone());
        }
        if self.is_real() {
            return match self.re.sign() {
                Some(-1) => Some(Complex { re: Ball::int(0), im: self.re.clone().neg().sqrt(prec)? }),
                _ => self.re.sqrt(prec).map(Self::real),
            };
        }
        self.ln(prec)?.scale(-1).exp(prec)
    }

    /// Returns an integer power, computed by squaring.
    pub(crate) fn power(&self, n: u32, prec: i64) -> Self {
        let (mut out, mut square, mut n) = (Self::int(1), self.clone(), n);
        while n > 0 {
            if n & 1 == 1 {
                out = out.mul(&square, prec);
            }
            n >>= 1;
            if n > 0 {
                square = square.mul(&square, prec);
            }
        }
        out
    }

    pub(crate) fn sin_cos(&self, prec: i64) -> Option<(Self, Self)> {
        let (sin, cos) = self.re.sin_cos(prec)?;
        if self.is_real() {
            return Some((Self::real(sin), Self::real(cos)));
        }
        let (up, down) = (self.im.exp(prec)?, self.im.clone().neg().exp(prec)?);
        let cosh = up.add(&down, prec).scale(-1);
        let sinh = up.sub(&down, prec).scale(-1);
        Some((
            Complex { re: sin.mul(&cosh, prec), im: cos.mul(&sinh, prec) },
            Complex { re: cos.mul(&cosh, prec), im: sin.mul(&sinh, prec).neg() },
        ))
    }
}
