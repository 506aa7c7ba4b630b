//! Whether two amounts in units are equal.

use super::dimension::{ANGLE, AXES, Dimension, NONE, TAGS, TEMPERATURE};
use super::{Measure, Reading, same_word};
use crate::reward::math::compare::{Comparison, no, yes};
use crate::reward::math::decide::{Decision, decide};
use crate::reward::math::exact::exact;
use crate::reward::math::expr::{Expr, divide, number, power, var};
use crate::reward::math::{Rational, Steps};

/// Fewest digits that a number in a measured unit must be written with to be compared by them.
const MIN_DIGITS: u32 = 2;

/// `a` in units `u` and `b` in units `v`: equal in one of the readings.
pub(in crate::reward::math) fn same(a: &Expr, u: &Measure, b: &Expr, v: &Measure, steps: &Steps) -> Comparison {
    let mut why = "different units";
    for x in &u.0 {
        for y in &v.0 {
            let Some(turns) = alike(x, y) else { continue };
            why = "different amounts in the same kind of unit";
            if equal(a, x, b, y, turns, steps) {
                let plain = x.size == y.size && x.pi + turns == y.pi && x.zero == y.zero;
                return yes(if plain { "equal amounts in the same unit" } else { "equal after conversion of units" });
            }
        }
    }
    no(why)
}

/// The power of two pi that a quantity in `x` gains where it is told in `y`; `None` for units of different kinds.
fn alike(x: &Reading, y: &Reading) -> Option<i8> {
    if !same_things(&x.things, &y.things) {
        return None;
    }
    // Five dollars are no share.
    if x.things.is_empty() != y.things.is_empty() && (x.dimension == NONE || y.dimension == NONE) {
        return None;
    }
    if x.dimension == y.dimension {
        return Some(0);
    }
    let tags = |d: &Dimension| d[TAGS..AXES].iter().filter(|p| **p != 0).count();
    let bare = |d: &Dimension| {
        let mut d = *d;
        d[TAGS..AXES].fill(0);
        d[ANGLE] = 0;
        d
    };
    if bare(&x.dimension) != bare(&y.dimension) || bare(&x.dimension) == NONE && x.things.is_empty() {
        return None;
    }
    let (p, q) = (x.dimension[ANGLE], y.dimension[ANGLE]);
    // What is counted may be left out, and so may radians: 5 Hz and 5 per second, 3 rad/s and 3 per second.
    match (tags(&x.dimension), tags(&y.dimension)) {
        // Turns are counted like cycles: 60 rpm are 1 Hz; radians are not.
        _ if p != q && x.pi != y.pi && (p == 0 || q == 0) && (p - q).abs() == 1 => Some(if p == 0 { q } else { -p }),
        (0, 0) if (p == 0 || q == 0) && (p - q).abs() == 1 && x.pi == y.pi => Some(0),
        (0, _) | (_, 0) if p == q => Some(0),
        _ => None,
    }
}

/// The same things are counted; all of them may be left out on one side.
fn same_things(a: &[(String, i8)], b: &[(String, i8)]) -> bool {
    if a.is_empty() || b.is_empty() {
        return true;
    }
    a.len() == b.len() && a.iter().all(|x| b.iter().any(|y| x.1 == y.1 && same_word(&x.0, &y.0)))
}

fn equal(a: &Expr, x: &Reading, b: &Expr, y: &Reading, turns: i8, steps: &Steps) -> bool {
    // Written in the same unit.
    if x.size == y.size && x.pi == y.pi && x.zero == y.zero && turns == 0 {
        return decide(a, b, steps).is_equal();
    }
    let absolute = (x.zero.is_some() || y.zero.is_some()) && is_temperature(x) && is_temperature(y);
    let converted = |e: &Expr, from: &Reading, to: &Reading, turns: i8| {
        let mut factors = vec![e.clone(), number(&from.size / &to.size)];
        let pi = from.pi - to.pi + turns;
        if turns != 0 {
            factors.push(number(Rational::from_integer(2.into()).pow(i32::from(turns))));
        }
        if pi != 0 {
            factors.push(power(var("pi"), number(Rational::from_integer(pi.into()))));
        }
        let product = Expr::Mul(factors);
        if !absolute {
            return product;
        }
        let none = Rational::from_integer(0.into());
        let (z, w) = (from.zero.as_ref().unwrap_or(&none), to.zero.as_ref().unwrap_or(&none));
        Expr::Add(vec![product, number((z - w) / &to.size)])
    };
    // A rounded number stands as it is; the other is converted.
    let (there, back) = (converted(a, x, y, turns), converted(b, y, x, -turns));
    let exactly = |p: &Expr, q: &Expr| matches!(decide(p, q, steps), Decision::Equal(_));
    exactly(&there, b)
        || exactly(a, &back)
        || ((x.rough || y.rough) && (rounded(b, &there, steps) || rounded(a, &back, steps)))
}

fn is_temperature(r: &Reading) -> bool {
    let mut one = NONE;
    one[TEMPERATURE] = 1;
    r.dimension == one && r.things.is_empty()
}

/// Whether `exact_value` rounds to the digits that `written` is written with.
fn rounded(written: &Expr, value: &Expr, steps: &Steps) -> bool {
    let Some((last, digits)) = last_place(written, steps) else { return false };
    if digits < MIN_DIGITS {
        return false;
    }
    let half = divide(number(last), number(Rational::from_integer(2.into())));
    let off =
        Expr::Call("abs", vec![Expr::Add(vec![value.clone(), crate::reward::math::expr::negate(written.clone())])]);
    crate::reward::math::decide::order(&off, &half, steps).is_some_and(std::cmp::Ordering::is_le)
}

/// The place value of the last digit a number is written with, and how many significant digits it has: those of a
/// decimal, of a decimal times a power of ten, and of a whole number without the zeros at its end.
fn last_place(e: &Expr, steps: &Steps) -> Option<(Rational, u32)> {
    let ten = |n: i32| Rational::from_integer(10.into()).pow(n);
    match e {
        Expr::Num { value, decimals: Some(d) } => {
            let (_, digits) = e.decimal()?;
            let zero = Rational::from_integer(0.into());
            (*value != zero).then(|| (ten(-(*d as i32)), digits))
        }
        Expr::Num { value, decimals: None } if value.is_integer() => {
            let text = value.numer().magnitude().to_string();
            let zeros = text.len() - text.trim_end_matches('0').len();
            Some((ten(zeros as i32), (text.len() - zeros) as u32))
        }
        Expr::Mul(factors) => {
            let (mut place, mut scale) = (None, Rational::from_integer(1.into()));
            for f in factors {
                let powers = exact(f, steps)?;
                let one = Rational::from_integer(1.into());
                if powers == -one.clone() || is_power_of_ten(&powers) {
                    scale *= powers;
                } else if place.is_none() {
                    place = Some(last_place(f, steps)?);
                } else {
                    return None;
                }
            }
            let (last, digits) = place?;
            let scale = if scale < Rational::from_integer(0.into()) { -scale } else { scale };
            Some((last * scale, digits))
        }
        _ => None,
    }
}

fn is_power_of_ten(n: &Rational) -> bool {
    let ten = |t: String| t.trim_end_matches('0') == "1";
    ten(n.numer().to_string()) && ten(n.denom().to_string())
}
