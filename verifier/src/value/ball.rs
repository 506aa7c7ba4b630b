//! Real numbers with an error bound: `(m +- r) 2^e`. Every operation propagates the error, including its rounding
//! error. Therefore two balls that do not overlap are two different numbers.

use crate::steps::Rational;
use num_bigint::{BigInt, Sign};
use std::sync::LazyLock;

/// Exponents above this limit are not supported: no number reaches `2^MAX_TOP`.
const MAX_TOP: i64 = 1 << 40;
/// Largest exponent of a product.
const MAX_EXPONENT: u64 = 1 << 44;
/// Bits of the stored constants. This is more than any requested precision.
const CONSTANT_BITS: i64 = 2_560;

/// A real number with an error bound.
#[derive(Clone, Debug)]
pub(crate) struct Ball {
    m: BigInt,
    e: i64,
    /// Error in units of `2^e`.
    r: f64,
}

/// Returns `2^n`, or infinity or 0 outside the range of f64. An infinite error means that nothing is known.
fn pow2(n: i64) -> f64 {
    2f64.powi(n.clamp(-1_100, 1_100) as i32)
}

fn shift(m: &BigInt, by: i64) -> BigInt {
    if by >= 0 { m << by as usize } else { m >> (-by) as usize }
}

impl Ball {
    /// Returns an integer without error.
    pub(crate) fn int(value: i64) -> Self {
        Ball { m: value.into(), e: 0, r: 0.0 }
    }

    /// Returns a rational number rounded to `prec` bits.
    pub(crate) fn ratio(value: &Rational, prec: i64) -> Self {
        let numer = Ball { m: value.numer().clone(), e: 0, r: 0.0 };
        if value.is_integer() {
            return numer.round(prec);
        }
        let denom = Ball { m: value.denom().clone(), e: 0, r: 0.0 };
        numer.div(&denom, prec).unwrap_or_else(|| Ball::int(0))
    }

    /// Returns an f64 without error.
    fn float(value: f64) -> Self {
        let bits = value.to_bits();
        let (exponent, fraction) = (((bits >> 52) & 0x7ff) as i64, (bits & ((1 << 52) - 1)) as i64);
        let m = if exponent == 0 { fraction } else { fraction | (1 << 52) };
        let signed = if value < 0.0 { -m } else { m };
        Ball { m: signed.into(), e: exponent.max(1) - 1_075, r: 0.0 }
    }

    /// Returns `2^n`.
    pub(crate) fn two_to(n: i64) -> Self {
        Ball { m: 1.into(), e: n, r: 0.0 }
    }

    pub(crate) fn is_zero(&self) -> bool {
        self.m.sign() == Sign::NoSign && self.r == 0.0
    }

    fn bits(&self) -> i64 {
        self.m.bits() as i64
    }

    /// Returns an exponent with `|x| < 2^top`.
    pub(crate) fn top(&self) -> i64 {
        let radius = if self.r > 0.0 { self.r.log2().ceil().min(1e6) as i64 + 1 } else { 0 };
        self.e + if self.r > 0.0 { self.bits().max(radius) + 1 } else { self.bits() }
    }

    /// Returns an exponent such that the error is below `2^error()`, or `i64::MIN` for an exact number.
    pub(crate) fn error(&self) -> i64 {
        if self.r == 0.0 { i64::MIN } else { self.e + self.r.log2().ceil().min(1e6) as i64 + 1 }
    }

    /// Returns true if zero lies within the error.
    pub(crate) fn may_be_zero(&self) -> bool {
        self.m.sign() == Sign::NoSign || self.r >= pow2(self.bits() - 1)
    }

    /// Returns the sign if it is certain, 0 for an exact zero.
    pub(crate) fn sign(&self) -> Option<i32> {
        if self.is_zero() {
            return Some(0);
        }
        if self.may_be_zero() {
            return None;
        }
        Some(if self.m.sign() == Sign::Minus { -1 } else { 1 })
    }

    /// Returns the midpoint as an f64.
    pub(crate) fn to_f64(&self) -> f64 {
        let drop = (self.bits() - 64).max(0);
        // Shifts the magnitude, because shifting a negative number rounds away from zero and can give one bit more.
        let head = self.m.magnitude() >> drop as usize;
        let digits = head.iter_u64_digits().next().unwrap_or(0) as f64;
        let signed = if self.m.sign() == Sign::Minus { -digits } else { digits };
        let e = self.e.saturating_add(drop);
        // Two factors are used, because a single one could overflow although the product does not.
        signed * pow2(e / 2) * pow2(e - e / 2)
    }

    /// Returns the number if it is an integer without error.
    pub(crate) fn exact_integer(&self) -> Option<BigInt> {
        if self.r != 0.0 || self.top() > 4_096 || self.e < -4_096 {
            return None;
        }
        let whole = shift(&self.m, self.e);
        (self.e >= 0 || shift(&whole, -self.e) == self.m).then_some(whole)
    }

    /// Returns the largest integer that is not above the number, if the error allows only one.
    pub(crate) fn floor(&self) -> Option<Ball> {
        if self.top() > 4_096 || self.r.is_infinite() {
            return None;
        }
        let radius = BigInt::from(self.r.ceil() as i128);
        let (low, high) = (shift(&(&self.m - &radius), self.e), shift(&(&self.m + &radius), self.e));
        (low == high).then_some(Ball { m: low, e: 0, r: 0.0 })
    }

    /// Returns a ball with an infinite error.
    fn unknown() -> Self {
        Ball { m: 0.into(), e: 0, r: f64::INFINITY }
    }

    fn round(mut self, prec: i64) -> Self {
        // The error or the exponent is beyond what its type can hold.
        if self.r.is_nan() || self.r > 1e290 || self.e.unsigned_abs() > MAX_EXPONENT {
            return Ball::unknown();
        }
        let noise = if self.r > pow2(32) { self.r.log2().min(1e6) as i64 - 30 } else { 0 };
        let drop = (self.bits() - prec).max(noise).max(0);
        if drop > 0 {
            self.m >>= drop as usize;
            self.e += drop;
            self.r = self.r * pow2(-drop) * 1.000_001 + 1.0;
        }
        self
    }

    /// Adds `2^error` to the error.
    pub(crate) fn widen(mut self, error: i64) -> Self {
        self.r += pow2(error - self.e);
        self
    }

    pub(crate) fn neg(mut self) -> Self {
        self.m = -self.m;
        self
    }

    pub(crate) fn abs(self) -> Self {
        if self.m.sign() == Sign::Minus { self.neg() } else { self }
    }

    pub(crate) fn add(&self, other: &Ball, prec: i64) -> Ball {
        if self.is_zero() {
            return other.clone();
        }
        if other.is_zero() {
            return self.clone();
        }
        let e = self.e.min(other.e).max(self.top().max(other.top()) - prec - 64);
        let at = |b: &Ball| {
            let by = b.e - e;
            // A shift to the right rounds down, which adds an error of at most one unit.
            let r = if b.r == 0.0 { 0.0 } else { b.r * pow2(by) };
            (shift(&b.m, by), if by >= 0 { r } else { r + 1.0 })
        };
        let ((m1, r1), (m2, r2)) = (at(self), at(other));
        Ball { m: m1 + m2, e, r: (r1 + r2) * 1.000_001 }.round(prec)
    }

    pub(crate) fn sub(&self, other: &Ball, prec: i64) -> Ball {
        self.add(&other.clone().neg(), prec)
    }

    pub(crate) fn mul(&self, other: &Ball, prec: i64) -> Ball {
        let m = &self.m * &other.m;
        let mut r = 0.0;
        if self.r > 0.0 || other.r > 0.0 {
            let bound = |b: &Ball| if b.m.sign() == Sign::NoSign { 0.0 } else { pow2(b.bits()) };
            let cross = |bound: f64, r: f64| if r == 0.0 || bound == 0.0 { 0.0 } else { bound * r };
            r = (cross(bound(self), other.r) + cross(bound(other), self.r) + cross(self.r, other.r)) * 1.000_001;
        }
        Ball { m, e: self.e.saturating_add(other.e), r }.round(prec)
    }

    /// Divides. Returns `None` if the divisor may be zero.
    pub(crate) fn div(&self, other: &Ball, prec: i64) -> Option<Ball> {
        let (b1, b2) = (self.bits(), other.bits());
        if other.m.sign() == Sign::NoSign || other.r > pow2(b2 - 2) {
            return None;
        }
        let k = prec + 8 + (b2 - b1).max(0);
        let q = (&self.m << k as usize) / &other.m;
        // |x1/x2 - m1/m2| <= (r1 + |m1/m2| r2) / (|m2| - r2), and |m2| - r2 >= 2^(b2 - 2).
        let from = |r: f64, n: i64| if r == 0.0 { 0.0 } else { r * pow2(n) };
        let r = from(self.r, k - b2 + 2) + from(other.r, q.bits() as i64 - b2 + 2);
        Some(Ball { m: q, e: self.e - other.e - k, r: r * 1.000_001 + 1.0 }.round(prec))
    }

    /// Returns the square root. Returns `None` for a number that is certainly negative or has an infinite error.
    pub(crate) fn sqrt(&self, prec: i64) -> Option<Ball> {
        if self.is_zero() {
            return Some(self.clone());
        }
        if self.r.is_infinite() {
            return None;
        }
        if self.may_be_zero() || self.r > pow2(self.bits() - 2) {
            let half = self.top().div_euclid(2) + 1;
            return Some(Ball { m: 0.into(), e: half, r: 1.0 });
        }
        if self.m.sign() == Sign::Minus {
            return None;
        }
        let mut k = (2 * prec + 4 - self.bits()).max(0);
        k += (self.e - k).rem_euclid(2);
        let square = &self.m << k as usize;
        let root = square.sqrt();
        let exact = self.r == 0.0 && &root * &root == square;
        let r = if self.r == 0.0 { 0.0 } else { self.r * pow2(k - root.bits() as i64 + 1) };
        let r = if exact { 0.0 } else { r + 1.0 };
        Some(Ball { m: root, e: (self.e - k) / 2, r }.round(prec))
    }

    /// Returns the midpoint in units of `2^-w`.
    fn fixed(&self, w: i64) -> BigInt {
        shift(&self.m, self.e + w)
    }

    /// Returns `e^x`. Returns `None` if the result is too large to represent or if the error is too large.
    pub(crate) fn exp(&self, prec: i64) -> Option<Ball> {
        let top = self.top();
        let error = self.error();
        if error > 0 {
            return None;
        }
        if top > 40 {
            // The result is indistinguishable from 0, or too large to represent.
            return (self.sign() == Some(-1)).then(|| Ball { m: 0.into(), e: -MAX_TOP, r: 1.0 });
        }
        let w = prec + 48 + top.max(0);
        let x = self.fixed(w);
        let ln2 = &CONSTANTS.1 >> (CONSTANT_BITS - w) as usize;
        let mut k = &x / &ln2;
        if x.sign() == Sign::Minus {
            k -= 1;
        }
        let f = x - &k * &ln2;
        // e^f = (e^(f / 2^8))^(2^8): a few squarings replace many terms.
        let (mut term, mut sum, small) = (BigInt::from(1) << w as usize, BigInt::from(0), f >> 8usize);
        let mut n = 0u32;
        while term.sign() != Sign::NoSign {
            sum += &term;
            n += 1;
            term = ((term * &small) >> w as usize) / n;
        }
        for _ in 0..8 {
            sum = (&sum * &sum) >> w as usize;
        }
        let k = i64::try_from(&k).ok()?;
        // About 90 terms at the highest precision, each with an error of one or two units, and eight doublings of the
        // error give less than 2^17 units. ln 2 is rounded down by less than one unit, and k times ln 2 is subtracted.
        // This error of k units is below the requested precision, because w has `top` additional bits.
        let mut r = pow2(17);
        if error > i64::MIN {
            r += pow2(error + 1 + sum.bits() as i64);
        }
        let out = Ball { m: sum, e: k - w, r }.round(prec);
        (out.top().abs() < MAX_TOP).then_some(out)
    }

    /// Returns the natural logarithm of a number that is certainly positive.
    pub(crate) fn ln(&self, prec: i64) -> Option<Ball> {
        if self.sign() != Some(1) || self.r > pow2(self.bits() - 2) {
            return None;
        }
        let prec = prec + 16;
        let scale = self.e + self.bits();
        let f = Ball { m: self.m.clone(), e: -self.bits(), r: self.r };
        let guess = f.to_f64().ln();
        let t = f.mul(&Ball::float(-guess).exp(prec)?, prec);
        // ln t = 2 artanh((t - 1) / (t + 1)), with |t - 1| near 2^-52.
        let u = t.sub(&Ball::int(1), prec).div(&t.add(&Ball::int(1), prec), prec)?;
        let doubled = u.odd_series(&u.mul(&u, prec), prec)?.scale(1);
        let shift = Ball::int(scale).mul(&ln2(prec), prec);
        Some(doubled.add(&Ball::float(guess), prec).add(&shift, prec).widen(-prec + 8))
    }

    /// Returns sine and cosine. Returns `None` if the number is too large for the stored digits of pi.
    pub(crate) fn sin_cos(&self, prec: i64) -> Option<(Ball, Ball)> {
        let (top, error) = (self.top(), self.error());
        let w = prec + 32 + top.max(0);
        if w + 8 > CONSTANT_BITS || error > 0 {
            return None;
        }
        let x = self.fixed(w);
        let right = &CONSTANTS.0 >> (CONSTANT_BITS - w + 1) as usize;
        // Round to the nearest multiple of a right angle.
        let doubled: BigInt = (&x << 1usize) + &right;
        let mut q = &doubled / (&right << 1usize);
        if doubled.sign() == Sign::Minus {
            q -= 1;
        }
        let f = x - &q * &right;
        let (mut sin, mut cos) = (BigInt::from(0), BigInt::from(0));
        let (mut term, mut n) = (BigInt::from(1) << w as usize, 0u32);
        while term.sign() != Sign::NoSign && n < 1_000 {
            match n % 4 {
                0 => cos += &term,
                1 => sin += &term,
                2 => cos -= &term,
                _ => sin -= &term,
            }
            n += 1;
            let next = (term * &f) >> w as usize;
            term = next / n;
        }
        let quarter = u32::try_from(((q % 4) + 4) % BigInt::from(4)).ok()?;
        let (sin, cos) = match quarter {
            0 => (sin, cos),
            1 => (cos, -sin),
            2 => (-sin, -cos),
            _ => (-cos, sin),
        };
        // At most a thousand terms, each with an error of one or two units. The right angle is rounded down by less
        // than one unit, and q right angles are subtracted. This error of q units is below the requested precision,
        // because w has `top` additional bits.
        let r = pow2(12) + if error > i64::MIN { pow2(error + w) } else { 0.0 };
        let ball = |m: BigInt| Ball { m, e: -w, r }.round(prec);
        Some((ball(sin), ball(cos)))
    }

    /// Returns the arc tangent.
    pub(crate) fn atan(&self, prec: i64) -> Option<Ball> {
        let middle = Ball { r: 0.0, ..self.clone() };
        if middle.is_zero() {
            return Some(self.clone());
        }
        let prec = prec + 16;
        if middle.e + middle.bits() > 1 {
            // For 2 and above: atan x = sign(x) pi/2 - atan(1/x).
            let inverse = Ball::int(1).div(&middle, prec)?.atan(prec)?;
            let right = pi(prec).scale(-1);
            let right = if middle.m.sign() == Sign::Minus { right.neg() } else { right };
            return Some(right.sub(&inverse, prec).spread(self));
        }
        let guess = Ball::float(middle.to_f64().atan());
        let (sin, cos) = guess.sin_cos(prec)?;
        let rest = middle.mul(&cos, prec).sub(&sin, prec).div(&cos.add(&middle.mul(&sin, prec), prec), prec)?;
        let sum = rest.odd_series(&rest.mul(&rest, prec).neg(), prec)?;
        Some(sum.add(&guess, prec).widen(-prec + 8).spread(self))
    }

    /// Returns `x + x s / 3 + x s^2 / 5 + ...` for a square `s` near 2^-104.
    fn odd_series(&self, square: &Ball, prec: i64) -> Option<Ball> {
        let (mut power, mut sum) = (self.clone(), self.clone());
        for n in 1..=(prec / 100 + 2) {
            power = power.mul(square, prec);
            sum = sum.add(&power.div(&Ball::int(2 * n + 1), prec)?, prec);
        }
        Some(sum)
    }

    /// Adds another ball's error. This is correct for functions whose slope is at most 1.
    fn spread(self, from: &Ball) -> Ball {
        if from.r == 0.0 { self } else { self.widen(from.error()) }
    }

    /// Multiplies by `2^n`.
    pub(crate) fn scale(mut self, n: i64) -> Ball {
        self.e += n;
        self
    }
}

/// Pi and ln 2 in units of `2^-CONSTANT_BITS`.
static CONSTANTS: LazyLock<(BigInt, BigInt)> = LazyLock::new(|| {
    let w = CONSTANT_BITS + 64;
    let series = |n: u32, alternating: bool| {
        let (mut power, mut sum, mut k) = ((BigInt::from(1) << w as usize) / n, BigInt::from(0), 0u32);
        while power.sign() != Sign::NoSign {
            let term = &power / (2 * k + 1);
            if alternating && k % 2 == 1 {
                sum -= term
            } else {
                sum += term
            }
            power /= n * n;
            k += 1;
        }
        sum
    };
    // Machin's formulas.
    let pi = (series(5, true) * 16 - series(239, true) * 4) >> 64usize;
    let ln2 = (series(26, false) * 18 - series(4_801, false) * 2 + series(8_749, false) * 8) >> 64usize;
    (pi, ln2)
});

/// Returns pi.
pub(crate) fn pi(prec: i64) -> Ball {
    Ball { m: CONSTANTS.0.clone(), e: -CONSTANT_BITS, r: 1.0 }.round(prec)
}

/// Returns the natural logarithm of 2.
fn ln2(prec: i64) -> Ball {
    Ball { m: CONSTANTS.1.clone(), e: -CONSTANT_BITS, r: 1.0 }.round(prec)
}
