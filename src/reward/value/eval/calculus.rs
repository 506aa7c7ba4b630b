//! Sums, products, integrals, limits and derivatives by their values.

use crate::reward::steps::Rational;
use crate::reward::value::ball::{Ball, pi};
use crate::reward::value::complex::Complex;
use crate::reward::value::eval::{Fault, Out, Scope, exactly};
use crate::reward::value::exact::{MAX_TERMS, exact};
use crate::reward::value::expr::{Binder, Bound, Expr, number};

/// Nodes of a quadrature on either side, in steps of 1/32.
const LAST_NODE: i64 = 136;

impl Scope<'_> {
    pub(crate) fn series(&mut self, b: &Bound) -> Out {
        let sum = b.binder == Binder::Sum;
        let from = self.eval(&b.from)?;
        let from = exactly(&from).and_then(|q| i64::try_from(q.numer()).ok()).ok_or(Fault::Undefined)?;
        let infinite = b.to.is_infinite() == Some(1);
        // A series that has not settled by then is accelerated.
        const SETTLED: i64 = 400;
        let to = if infinite {
            from + SETTLED
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
        if infinite { self.accelerated(b, from) } else { Ok(total) }
    }

    /// A slowly converging sum by Levin's u-transform, checked against one of lower order.
    fn accelerated(&mut self, b: &Bound, from: i64) -> Out {
        const ORDER: i64 = 40;
        if b.binder == Binder::Product {
            return Err(Fault::Undefined);
        }
        // The weights alternate and grow: half of the bits are lost to them.
        let outer = std::mem::replace(&mut self.prec, 512);
        let prec = self.prec;
        let mut sums = Vec::new();
        let mut sum = Complex::int(0);
        for k in 0..=ORDER {
            let term = match self.at(&b.var, Complex::int(from + k), &b.body) {
                Ok(term) if !term.may_be_zero() => term,
                Ok(_) => {
                    self.prec = outer;
                    return Err(Fault::Undefined);
                }
                Err(fault) => {
                    self.prec = outer;
                    return Err(fault);
                }
            };
            sum = sum.add(&term, prec);
            let weight = term.mul(&Complex::int(k + 1), prec).inverse(prec).ok_or(Fault::Unsure)?;
            sums.push((sum.clone(), weight));
        }
        let transform = |order: i64| {
            let (mut over, mut under, mut binomial) = (Complex::int(0), Complex::int(0), Complex::int(1));
            for j in 0..=order {
                let (partial, weight) = &sums[j as usize];
                let base = Complex::int(j + 1).power((order - 1) as u32, prec);
                let factor = binomial.mul(&base, prec).mul(weight, prec);
                over = over.add(&factor.mul(partial, prec), prec);
                under = under.add(&factor, prec);
                let next = Complex::int(j - order).mul(&Complex::int(j + 1).inverse(prec)?, prec);
                binomial = binomial.mul(&next, prec);
            }
            Some(over.mul(&under.inverse(prec)?, prec))
        };
        let both = (transform(ORDER), transform(ORDER - 6));
        self.prec = outer;
        let (Some(fine), Some(coarse)) = both else { return Err(Fault::Undefined) };
        let gap = fine.sub(&coarse, prec).top();
        if gap > -64 { Err(Fault::Undefined) } else { Ok(fine.widen(gap)) }
    }

    /// Tanh-sinh quadrature, checked against itself with every other point left out.
    pub(crate) fn integral(&mut self, b: &Bound) -> Out {
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

    pub(crate) fn quadrature(
        &mut self,
        b: &Bound,
        ends: (Option<i32>, Option<i32>),
        from: Complex,
        to: Complex,
    ) -> Out {
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
    pub(crate) fn node(
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
    pub(crate) fn limit(&mut self, b: &Bound) -> Out {
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
            let near = self.beside(b, &place, infinite.is_some(), sign, 64);
            // What approaches its limit like a logarithm is not there yet.
            let slow = match &near {
                Err(Fault::Undefined) => true,
                Ok(value) => value.may_be_zero() && value.error() > -100,
                Err(_) => false,
            };
            let value = if slow { self.beside(b, &place, infinite.is_some(), sign, 160) } else { near };
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

    pub(crate) fn beside(&mut self, b: &Bound, place: &Complex, infinite: bool, sign: i64, near: i64) -> Out {
        let outer = self.prec;
        // Limits inside limits would ask for more digits than the constants have.
        if outer > 1_400 {
            return Err(Fault::Undefined);
        }
        // Differences of nearly equal values lose a few times as many bits.
        self.prec = outer + 6 * near.min(96);
        let mut values = Vec::new();
        for n in 0..4i64 {
            let at = if infinite {
                Complex::real(Ball::int(sign).scale(near - n))
            } else {
                place.add(&Complex::real(Ball::int(sign).scale(n - near)), self.prec)
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
        if gap > size - near.min(140) {
            return Err(Fault::Undefined);
        }
        Ok(best[2].clone().widen(gap.max(size - 120)))
    }

    /// A central difference with a step far below the precision, checked against one with the double step.
    pub(crate) fn derivative(&mut self, b: &Bound) -> Out {
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
