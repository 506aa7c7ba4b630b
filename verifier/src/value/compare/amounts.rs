//! Compares numbers and expressions with their units.

use crate::lexicon::Dimension;
use crate::steps::{Rational, Steps};
use crate::value::comparison::{Comparison, no, outcome, yes};
use crate::value::decide::decide;
use crate::value::exact::exact;
use crate::value::expr::{Expr, divide, integer, invert, minus, number, var};
use crate::value::unit::{Unit, is_plural};
use crate::words;

/// Index of the first tag in a dimension.
const TAGS: usize = 11;

/// Compares two amounts.
pub(crate) fn scalars(a: &Expr, u: Option<&Unit>, b: &Expr, v: Option<&Unit>, steps: &Steps) -> Comparison {
    // The word "unit" does not give a size and is ignored.
    let (u, v) = (u.filter(|u| !u.is_silent()), v.filter(|v| !v.is_silent()));
    match (u, v) {
        (None, None) => expressions(a, b, steps),
        (Some(u), Some(v)) => measured(a, u, b, v, steps),
        (Some(u), None) => bare(a, u, b, steps),
        // If the question names the base, an answer may omit it. An answer must not add one.
        (None, Some(Unit::Base(..))) => expressions(a, b, steps),
        (None, Some(v)) => bare(b, v, a, steps),
    }
}

/// Compares an amount that has a unit with one that has none.
fn bare(a: &Expr, unit: &Unit, b: &Expr, steps: &Steps) -> Comparison {
    match unit {
        // 50% equals 0.5. It also equals 50, because the question may ask for percent. But 0.5% does not equal 0.5.
        Unit::Percent => {
            if decide(&divide(a.clone(), integer(100)), b, steps).equal {
                return yes("equal as a percentage");
            }
            let small = exact(b, steps)
                .is_some_and(|x| x.numer().magnitude() < x.denom().magnitude() && *x.numer() != 0.into());
            if small { no("a percentage and a number") } else { expressions(a, b, steps) }
        }
        Unit::Base(digits, _) => {
            // The answer may omit the base.
            let written = digits.parse().map(|n| number(Rational::from_integer(n)));
            let same = written.is_ok_and(|n| decide(&n, b, steps).equal);
            if same { yes("the same digits without the base") } else { expressions(a, b, steps) }
        }
        Unit::Degree => {
            let plain = expressions(a, b, steps);
            let turned = b.any(|e| match e {
                Expr::Var(n) => n == "pi",
                Expr::Call(f, _) => f.starts_with("arc"),
                _ => false,
            });
            if !plain.equal && turned && decide(&radians(a), b, steps).equal {
                return yes("equal in radians");
            }
            plain
        }
        // "Third" equals "3rd", but not 3.
        Unit::Ordinal => no("an ordinal and a number"),
        Unit::Measure(_, size) if unit.is_number() && *size != Rational::from_integer(1.into()) => {
            // 50 cents equal 0.50.
            let sized = Expr::Mul(vec![a.clone(), number(size.clone())]);
            if decide(&sized, b, steps).equal {
                return yes("equal after conversion of units");
            }
            expressions(a, b, steps)
        }
        // Only a plural names something countable. Other words are not understood.
        Unit::Thing(thing) if !is_plural(thing) => no("unknown words"),
        _ => expressions(a, b, steps),
    }
}

/// Compares two amounts that both have a unit.
fn measured(a: &Expr, u: &Unit, b: &Expr, v: &Unit, steps: &Steps) -> Comparison {
    match (u, v) {
        (Unit::Percent, Unit::Percent) | (Unit::Degree, Unit::Degree) | (Unit::Ordinal, Unit::Ordinal) => {
            expressions(a, b, steps)
        }
        (Unit::Base(..), Unit::Base(..)) => expressions(a, b, steps),
        (Unit::Temperature(zero, size), Unit::Temperature(other, degree)) if zero == other && size == degree => {
            expressions(a, b, steps)
        }
        (Unit::Temperature(..), _) | (_, Unit::Temperature(..)) => match (kelvins(a, u), kelvins(b, v)) {
            (Some(a), Some(b)) => converted(&a, &b, steps),
            _ => no("different units"),
        },
        (Unit::Degree, Unit::Measure(_, size)) if v.is_angle() => in_degrees(a, b, size, steps),
        (Unit::Measure(_, size), Unit::Degree) if u.is_angle() => in_degrees(b, a, size, steps),
        (Unit::Measure(d, s), Unit::Measure(e, t)) => {
            if !same_kind(d, e) {
                return no("different units");
            }
            if s == t { expressions(a, b, steps) } else { converted(&sized(a, s), &sized(b, t), steps) }
        }
        (Unit::Money(x), Unit::Money(y)) if x == y => expressions(a, b, steps),
        (Unit::Thing(x), Unit::Thing(y)) if words::alike(x, y) => expressions(a, b, steps),
        _ => no("different units"),
    }
}

/// Returns true if the dimensions are equal. A tag may be absent on one side.
fn same_kind(a: &Dimension, b: &Dimension) -> bool {
    let untagged = |d: &Dimension| d[TAGS..].iter().all(|p| *p == 0);
    a[..TAGS] == b[..TAGS] && (a[TAGS..] == b[TAGS..] || untagged(a) || untagged(b))
}

fn sized(e: &Expr, size: &Rational) -> Expr {
    Expr::Mul(vec![e.clone(), number(size.clone())])
}

/// Returns a temperature in kelvins.
fn kelvins(e: &Expr, unit: &Unit) -> Option<Expr> {
    match (unit, Unit::named("K")) {
        (Unit::Temperature(zero, size), _) => Some(Expr::Add(vec![sized(e, size), number(zero.clone())])),
        (Unit::Measure(d, size), Some(Unit::Measure(kelvin, _))) if *d == kelvin => Some(sized(e, size)),
        _ => None,
    }
}

fn converted(a: &Expr, b: &Expr, steps: &Steps) -> Comparison {
    outcome(decide(a, b, steps).equal, "equal after conversion of units", "different amounts or units")
}

/// Compares degrees with radians. The angle is also converted to degrees, because the number of degrees may be rounded.
fn in_degrees(degrees: &Expr, angle: &Expr, size: &Rational, steps: &Steps) -> Comparison {
    let turned = Expr::Mul(vec![angle.clone(), number(size.clone()), integer(180), invert(var("pi"))]);
    let same = decide(degrees, &turned, steps).equal || decide(&radians(degrees), &sized(angle, size), steps).equal;
    outcome(same, "equal in radians", "different angles")
}

fn radians(degrees: &Expr) -> Expr {
    Expr::Mul(vec![degrees.clone(), var("pi"), divide(integer(1), integer(180))])
}

/// Compares expressions without units. Accepts some that differ only in the names of their letters.
pub(crate) fn expressions(a: &Expr, b: &Expr, steps: &Steps) -> Comparison {
    let decision = decide(a, b, steps);
    if decision.equal || (!a.has_variables() && !b.has_variables()) {
        return decision;
    }
    // Antiderivatives may differ by a constant.
    if let (Some(f), Some(g)) = (without_constant(a), without_constant(b))
        && let [x] = minus(f.clone(), g.clone()).variables().as_slice()
    {
        let rise = |e: &Expr, at: &Expr| minus(e.clone(), e.replace(x, at));
        let places = [integer(1), divide(integer(1), integer(2)), integer(2)];
        if places.iter().any(|p| decide(&rise(&f, p), &rise(&g, p), steps).equal) {
            return yes("equal up to the constant of integration");
        }
    }
    // The constants of a general solution are named A and B, or C_1 and C_2.
    if let Some((x, y)) = alike(a, b) {
        return decide(&x, &y, steps);
    }
    let has = |e: &Expr, name: &str| e.variables().iter().any(|n| n == name);
    // Families of solutions may use different counting letters.
    let counter = |e: &Expr, other: &Expr| {
        let own = e.variables().into_iter().filter(|n| matches!(n.as_str(), "k" | "n" | "m" | "l") && !has(other, n));
        own.collect::<Vec<_>>()
    };
    let periodic = |e: &Expr| e.any(|p| matches!(p, Expr::Var(n) if n == "pi"));
    if let ([x], [y]) = (counter(a, b).as_slice(), counter(b, a).as_slice())
        && periodic(a)
        && periodic(b)
    {
        return decide(a, &b.replace(y, &var(x)), steps);
    }
    decision
}

/// Returns a sum without its constant of integration. Returns `None` if it does not contain exactly one.
pub(crate) fn without_constant(e: &Expr) -> Option<Expr> {
    let Expr::Add(terms) = e else { return None };
    let constant = |t: &Expr| matches!(t, Expr::Var(n) if matches!(n.as_str(), "C" | "c" | "K" | "C_1" | "c_1"));
    let rest: Vec<Expr> = terms.iter().filter(|t| !constant(t)).cloned().collect();
    (rest.len() + 1 == terms.len()).then_some(Expr::Add(rest))
}

/// Renames the constants of two general solutions to the same names, if one numbers them and the other does not.
/// Returns `None` if the expressions are not such solutions.
fn alike(a: &Expr, b: &Expr) -> Option<(Expr, Expr)> {
    let numbered = |e: &Expr| e.replace("C_1", &var("A")).replace("C_2", &var("B")).replace("C_3", &var("C"));
    let small =
        |e: &Expr| numbered(&e.replace("c_1", &var("C_1")).replace("c_2", &var("C_2")).replace("c_3", &var("C_3")));
    let counts = |e: &Expr| e.variables().iter().any(|n| n == "C_2" || n == "c_2");
    let plain = |e: &Expr| ["A", "B"].iter().all(|n| e.variables().iter().any(|v| v == n));
    let fits = (counts(a) && (plain(b) || counts(b))) || (counts(b) && plain(a));
    fits.then(|| (small(a), small(b)))
}
