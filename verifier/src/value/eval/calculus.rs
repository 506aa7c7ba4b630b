//! Numeric values of sums, products, integrals, limits and derivatives.

use crate::value::ball::Ball;
use crate::value::complex::Complex;
use crate::value::eval::{Fault, Out, Scope, exactly};
use crate::value::expr::{Binder, Bound, Expr};

/// Maximum number of terms of a sum that is added.
const MAX_TERMS: i64 = 2_000;
/// Number of times that the step of a quadrature is halved.
const HALVINGS: i64 = 10;

impl Scope<'_> {
    pub(crate) fn series(&mut self, b: &Bound) -> Out {
        let sum = b.binder == Binder::Sum;
        let whole = |z: Complex| exactly(&z).and_then(|q| i64::try_from(q.numer()).ok()).ok_or(Fault::Undefined);
        let from = whole(self.eval(&b.from)?)?;
        let infinite = b.to.is_infinite() == Some(1);
        // Number of terms after which an infinite series must have converged.
        const SETTLED: i64 = 400;
        let to = if infinite { from + SETTLED } else { whole(self.eval(&b.to)?)? };
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
                // The terms fall like a geometric series, so the remainder is not much larger than the last term.
                if falling > 24 && top < -self.prec - 64 {
                    return Ok(total.widen(-self.prec));
                }
            }
        }
        if infinite { Err(Fault::Undefined) } else { Ok(total) }
    }

    /// Computes an integral between finite ends by Romberg's quadrature.
    pub(crate) fn integral(&mut self, b: &Bound) -> Out {
        let (from, to) = (self.eval(&b.from)?, self.eval(&b.to)?);
        let outer = std::mem::replace(&mut self.prec, 160);
        let out = self.quadrature(b, &from, &to.sub(&from, 160));
        self.prec = outer;
        out
    }

    fn quadrature(&mut self, b: &Bound, from: &Complex, width: &Complex) -> Out {
        let prec = self.prec;
        let mut value = |level: i64, k: i64| {
            self.spend(20)?;
            let share = Complex::real(Ball::int(k).scale(-level));
            self.at(&b.var, from.add(&width.mul(&share, prec), prec), &b.body)
        };
        let half = Complex::real(Ball::two_to(-1));
        let mut sum = value(0, 0)?.add(&value(0, 1)?, prec).mul(&half, prec);
        let mut sums = vec![sum.mul(width, prec)];
        for level in 1..=HALVINGS {
            for k in (1..1 << level).step_by(2) {
                sum = sum.add(&value(level, k)?, prec);
            }
            sums.push(sum.mul(width, prec).mul(&Complex::real(Ball::two_to(-level)), prec));
        }
        let (value, gap) = extrapolated(sums, 2, prec).ok_or(Fault::Unsure)?;
        if gap > value.top().max(0) - 44 { Err(Fault::Undefined) } else { Ok(value.widen((gap + 12).max(-100))) }
    }

    /// Computes the limit of a function that is smooth near the point, by extrapolating from values at four distances.
    pub(crate) fn limit(&mut self, b: &Bound) -> Out {
        let infinite = b.from.is_infinite();
        let place = match infinite {
            Some(_) => Complex::int(0),
            None => self.eval(&b.from)?,
        };
        let mut found: Option<Complex> = None;
        for sign in [1, -1] {
            if infinite.is_some_and(|s| s != sign) {
                continue;
            }
            let value = self.beside(b, &place, infinite.is_some(), sign.into());
            match (value, &found) {
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

    pub(crate) fn beside(&mut self, b: &Bound, place: &Complex, infinite: bool, sign: i64) -> Out {
        // Distance of the nearest point from the place, as a power of two.
        const NEAR: i64 = 64;
        let outer = self.prec;
        // Nested limits would require more digits than the stored constants have.
        if outer > 1_400 {
            return Err(Fault::Undefined);
        }
        // Differences of nearly equal values lose several times as many bits.
        self.prec = outer + 6 * NEAR;
        let prec = self.prec;
        let value = |n: i64| {
            let at = if infinite {
                Complex::real(Ball::int(sign).scale(NEAR - n))
            } else {
                place.add(&Complex::real(Ball::int(sign).scale(n - NEAR)), prec)
            };
            let value = self.at(&b.var, at, &b.body);
            value.map_err(|fault| if fault == Fault::Unsure { Fault::Undefined } else { fault })
        };
        let values = (0..4).rev().map(value).collect::<Result<_, _>>();
        self.prec = outer;
        let (value, gap) = extrapolated(values?, 1, prec).ok_or(Fault::Unsure)?;
        let size = value.top().max(0);
        if gap > size - NEAR { Err(Fault::Undefined) } else { Ok(value.widen(gap.max(size - 120))) }
    }

    /// Computes a derivative as a central difference with a very small step, and checks it against twice the step.
    pub(crate) fn derivative(&mut self, b: &Bound) -> Out {
        const NEAR: i64 = 80;
        let x = self.eval(&Expr::Var(b.var.clone()))?;
        let outer = self.prec;
        if outer > 2_000 {
            return Err(Fault::Undefined);
        }
        self.prec = outer + 3 * NEAR;
        let mut slope = |n: i64| {
            let step = Complex::real(Ball::two_to(n - NEAR));
            let right = self.at(&b.var, x.add(&step, self.prec), &b.body)?;
            let left = self.at(&b.var, x.sub(&step, self.prec), &b.body)?;
            Ok(right.sub(&left, self.prec).scale(NEAR - n - 1))
        };
        let slopes = slope(0).and_then(|first| Ok([first, slope(1)?]));
        self.prec = outer;
        let slopes = slopes?;
        let gap = slopes[0].sub(&slopes[1], outer).top();
        Ok(slopes[0].clone().widen(gap.max(-2 * NEAR)))
    }
}

/// Extrapolates values at steps that are halved each time, by Neville's scheme. The error is a series in powers of
/// `2^order` of the step. Returns the limit and the size of the last correction.
fn extrapolated(mut column: Vec<Complex>, order: i64, prec: i64) -> Option<(Complex, i64)> {
    let (mut gap, mut power) = (i64::MAX, 0);
    while column.len() > 1 {
        power += order;
        let factor = Complex::int(1 << power);
        let under = Complex::int((1 << power) - 1).inverse(prec)?;
        let before = column.last()?.clone();
        column = column.windows(2).map(|w| factor.mul(&w[1], prec).sub(&w[0], prec).mul(&under, prec)).collect();
        gap = column.last()?.sub(&before, prec).top();
    }
    Some((column.pop()?, gap))
}
