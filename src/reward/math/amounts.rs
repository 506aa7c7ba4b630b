//! Numbers and expressions with their units.

use super::Steps;
use super::compare::{Comparison, no, yes};
use super::decide::decide;
use super::exact::exact;
use super::expr::{Expr, divide, integer, minus, number, power, var};
use super::unit::{self, Unit, same_word};

pub(super) fn scalars(a: &Expr, u: Option<&Unit>, b: &Expr, v: Option<&Unit>, steps: &Steps) -> Comparison {
    // "Third" is 3rd, and not 3.
    let ordinal = |x: Option<&Unit>| matches!(x, Some(Unit::Word(w)) if w == "ordinal");
    let marked = |x: Option<&Unit>| matches!(x, Some(Unit::Word(w)) if matches!(w.as_str(), "ordinal" | "th" | "st" | "nd" | "rd"));
    if (marked(u) || marked(v)) && !(marked(u) && marked(v)) {
        return no("a place in a row and a number");
    }
    let (u, v) = if ordinal(u) || ordinal(v) { (None, None) } else { (u, v) };
    let (u, v) = (u.filter(|u| !silent(u)), v.filter(|v| !silent(v)));
    let plain = || -> Comparison {
        let decision = decide(a, b, steps);
        // The constant of integration is written C or c.
        let has = |e: &Expr, name: &str| e.variables().iter().any(|n| n == name);
        if !decision.is_equal() && has(a, "C") && has(b, "c") && !has(a, "c") && !has(b, "C") {
            return decide(a, &b.replace("c", &var("C")), steps).into();
        }
        // Antiderivatives may differ by a constant.
        if !decision.is_equal()
            && let (Some(f), Some(g)) = (without_constant(a), without_constant(b))
            && let [x] = minus(f.clone(), g.clone()).variables().as_slice()
        {
            let rise = |e: &Expr, at: &Expr| minus(e.clone(), e.replace(x, at));
            let places = [integer(1), divide(integer(1), integer(2)), integer(2)];
            if places.iter().any(|p| decide(&rise(&f, p), &rise(&g, p), steps).is_equal()) {
                return yes("equal up to the constant of integration");
            }
        }
        // The constants of a general solution: A and B, or C_1 and C_2.
        if !decision.is_equal()
            && let Some((x, y)) = alike(a, b)
        {
            return decide(&x, &y, steps).into();
        }
        // Gravity before a sum in brackets is a factor where the other side has it so.
        let factor = |e: &Expr, other: &Expr| {
            let applied = |e: &Expr| e.any(|p| matches!(p, Expr::Apply(f, _) if f == "g"));
            (applied(e) && has(other, "g") && !applied(other)).then(|| multiplied(e))
        };
        if !decision.is_equal()
            && let Some((x, y)) = factor(a, b).map(|x| (x, b.clone())).or_else(|| factor(b, a).map(|y| (a.clone(), y)))
        {
            return decide(&x, &y, steps).into();
        }
        // Engineers write j for i.
        if !decision.is_equal() && has(b, "j") && !has(a, "j") && complex(a) && !complex(b) {
            return decide(a, &b.replace("j", &var("i")), steps).into();
        }
        if !decision.is_equal() && has(a, "j") && !has(b, "j") && complex(b) && !complex(a) {
            return decide(&a.replace("j", &var("i")), b, steps).into();
        }
        // Families of solutions may count with another letter.
        let counter = |e: &Expr, other: &Expr| {
            let own =
                e.variables().into_iter().filter(|n| matches!(n.as_str(), "k" | "n" | "m" | "l") && !has(other, n));
            own.collect::<Vec<_>>()
        };
        let periodic =
            |e: &Expr| e.any(|p| matches!(p, Expr::Var(n) if n == "pi") || matches!(p, Expr::Call("degree", _)));
        if let ([x], [y]) = (counter(a, b).as_slice(), counter(b, a).as_slice())
            && periodic(a)
            && periodic(b)
        {
            return decide(a, &b.replace(y, &var(x)), steps).into();
        }
        decision.into()
    };
    match (u, v) {
        (Some(Unit::Percent), Some(Unit::Percent)) => plain(),
        // 50% is 0.5, and also 50, where the question asked for percent. 0.5% is not 0.5.
        (Some(Unit::Percent), None) | (None, Some(Unit::Percent)) => {
            let hundredth = |e: &Expr| divide(e.clone(), integer(100));
            let scaled = if u.is_some() { decide(&hundredth(a), b, steps) } else { decide(a, &hundredth(b), steps) };
            let large = |e: &Expr| exact(e, steps).is_some_and(|n| n > super::Rational::from_integer(1.into()));
            if scaled.is_equal() {
                yes("equal as a percentage")
            } else if large(if u.is_some() { b } else { a }) {
                plain()
            } else {
                no("a percentage and a number")
            }
        }
        (Some(Unit::Base(x, p)), Some(Unit::Base(y, q))) => {
            if p == q && x == y {
                yes("the same digits in the same base")
            } else {
                plain()
            }
        }
        (Some(Unit::Base(digits, _)), None) | (None, Some(Unit::Base(digits, _))) => {
            let other = if u.is_some() { b } else { a };
            // The base may be left out where the question names it.
            let same = digits
                .parse()
                .is_ok_and(|n| decide(&number(super::Rational::from_integer(n)), other, steps).is_equal());
            if same { yes("the same digits, base left out") } else { plain() }
        }
        (Some(Unit::Degree), Some(Unit::Degree)) => plain(),
        (Some(Unit::Degree), None) | (None, Some(Unit::Degree)) => {
            let first = plain();
            let (angle, other) = if u.is_some() { (a, b) } else { (b, a) };
            let has_pi = other.any(|e| match e {
                Expr::Var(n) => n == "pi",
                Expr::Call(f, _) => f.starts_with("arc"),
                _ => false,
            });
            if !first.equal && has_pi && decide(&radians(angle), other, steps).is_equal() {
                return yes("equal in radians");
            }
            first
        }
        (Some(Unit::Word(x)), Some(Unit::Word(y))) if same_word(x, y) => plain(),
        // 50 cents are 0.50.
        (Some(Unit::Measure(m)), None) | (None, Some(Unit::Measure(m)))
            if (m.first().is_counted() || m.first().is_share())
                && m.first().size != super::Rational::from_integer(1.into()) =>
        {
            let sized = |e: &Expr| Expr::Mul(vec![e.clone(), number(m.first().size.clone())]);
            let scaled = if u.is_some() { decide(&sized(a), b, steps) } else { decide(a, &sized(b), steps) };
            if scaled.is_equal() { yes("equal after conversion of units") } else { plain() }
        }
        (Some(x), Some(y)) => match (x.measure(), y.measure()) {
            (Some(p), Some(q)) if p == q => plain(),
            (Some(p), Some(q)) => unit::same(a, &p, b, &q, steps),
            _ => no("different units"),
        },
        _ => plain(),
    }
}

/// Units that say nothing about the size: ordinals, and "units" themselves.
pub(super) fn silent(unit: &Unit) -> bool {
    matches!(unit, Unit::Word(w) if matches!(w.as_str(), "th" | "st" | "nd" | "rd" | "unit" | "square unit" | "cubic unit" | "sq unit" | "unit^2" | "unit^3"))
}

pub(super) fn complex(e: &Expr) -> bool {
    e.any(|p| matches!(p, Expr::Var(n) if n == "i") || matches!(p, Expr::Call("cis", _)))
}

/// What stands beside the constant of integration.
pub(super) fn without_constant(e: &Expr) -> Option<Expr> {
    let Expr::Add(terms) = e else { return None };
    let constant = |t: &Expr| matches!(t, Expr::Var(n) if matches!(n.as_str(), "C" | "c" | "K" | "C_1" | "c_1"));
    let rest: Vec<Expr> = terms.iter().filter(|t| !constant(t)).cloned().collect();
    (rest.len() + 1 == terms.len()).then_some(Expr::Add(rest))
}

pub(super) fn radians(degrees: &Expr) -> Expr {
    Expr::Mul(vec![degrees.clone(), var("pi"), divide(integer(1), integer(180))])
}

/// Both with the same names for the constants of a general solution, where one numbers them and the other does not.
fn alike(a: &Expr, b: &Expr) -> Option<(Expr, Expr)> {
    let numbered = |e: &Expr| e.replace("C_1", &var("A")).replace("C_2", &var("B")).replace("C_3", &var("C"));
    let small =
        |e: &Expr| numbered(&e.replace("c_1", &var("C_1")).replace("c_2", &var("C_2")).replace("c_3", &var("C_3")));
    let counts = |e: &Expr| e.variables().iter().any(|n| n == "C_2" || n == "c_2");
    let plain = |e: &Expr| ["A", "B"].iter().all(|n| e.variables().iter().any(|v| v == n));
    let fits = (counts(a) && (plain(b) || counts(b))) || (counts(b) && plain(a));
    fits.then(|| (small(a), small(b)))
}

/// The expression with `g` before a sum in brackets as a factor.
fn multiplied(e: &Expr) -> Expr {
    let all = |list: &[Expr]| list.iter().map(multiplied).collect::<Vec<_>>();
    match e {
        Expr::Apply(f, args) if f == "g" && matches!(args.as_slice(), [Expr::Add(_)]) => {
            let mut factors = all(args);
            factors.push(var("g"));
            Expr::Mul(factors)
        }
        Expr::Add(terms) => Expr::Add(all(terms)),
        Expr::Mul(factors) => Expr::Mul(all(factors)),
        Expr::Pow(base, n) => power(multiplied(base), multiplied(n)),
        Expr::Call(f, args) => Expr::Call(f, all(args)),
        e => e.clone(),
    }
}
