//! Equality of values.

use super::amounts::scalars;
use super::arrays::{along_axes, matrices, named_matrix, vector};
use super::constants::general;
use super::decide::{Decision, decide, proportional};
use super::domain::Domain;
use super::equations::{as_equation, equations, only_letters, solved};
use super::exact::exact;
use super::expr::{Expr, divide, integer, minus, var};
use super::family::{counted, images, rows, same_families};
use super::growth::growth;
use super::lists::{listed, ordered};
use super::locus::loci;
use super::names::{applied, letters, same_name};
use super::parse::Value;
use super::ratio::reordered;
use super::recurrence::same_recurrences;
use super::region::Region;
use super::sets::{open_interval, points};
use super::side::is_negative;
use super::terms::{series, summed};
use super::unit::{self, Unit};
use super::written::{is_notation, notation, operands};
use super::{Steps, clock};
use crate::reward::words;

/// The outcome, with the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Whether they are equal.
    pub equal: bool,
    /// Why.
    pub why: &'static str,
}

pub(super) fn yes(why: &'static str) -> Comparison {
    Comparison { equal: true, why }
}

pub(super) fn no(why: &'static str) -> Comparison {
    Comparison { equal: false, why }
}

pub(super) fn outcome(same: bool, equal: &'static str, different: &'static str) -> Comparison {
    if same { yes(equal) } else { no(different) }
}

impl From<Decision> for Comparison {
    fn from(d: Decision) -> Self {
        Comparison { equal: d.is_equal(), why: d.why() }
    }
}

/// Compares a gold value with an answer's.
pub fn equal(gold: &Value, answer: &Value, steps: &Steps) -> Comparison {
    let comparison = compared(gold, answer, steps);
    if comparison.equal {
        return comparison;
    }
    if same_recurrences(gold, answer, steps) {
        return yes("the same recurrence");
    }
    general(gold, answer, steps).unwrap_or(comparison)
}

fn compared(gold: &Value, answer: &Value, steps: &Steps) -> Comparison {
    if steps.spend(4).is_none() {
        return no("too much work to compare");
    }
    if let Some(c) = loci(gold, answer, steps).or_else(|| listed(gold, answer, steps)) {
        return c;
    }
    match (gold, answer) {
        (Value::Except(a), Value::Except(b)) => {
            outcome(same_families(a, b, steps), "all but the same family", "all but different families")
        }
        (Value::Over(a, d), Value::Over(b, e)) => {
            let real = d.iter().chain(e).all(|(_, d)| *d == Domain::Real);
            if real { equal(a, b, steps) } else { no("different points for whole parameters") }
        }
        // From one number on is not for all whole numbers.
        (Value::Over(_, d), v) | (v, Value::Over(_, d)) if endless(v) && d.iter().any(|(_, d)| *d != Domain::Whole) => {
            no("different families")
        }
        (Value::Within(a, r), Value::Within(b, s)) => {
            let values = equal(a, b, steps);
            if !values.equal || r.same(s, steps) { values } else { no("different ranges of the variable") }
        }
        (Value::Within(a, _), b) => equal(a, b, steps),
        (a, Value::Within(b, _)) => equal(a, b, steps),
        (Value::Over(a, _), b) => equal(a, b, steps),
        (a, Value::Over(b, _)) => equal(a, b, steps),
        (Value::Sided(s, a), Value::Sided(t, b)) => {
            if s == t {
                equal(a, b, steps)
            } else {
                no("different directions")
            }
        }
        (Value::Sided(side, a), b) | (b, Value::Sided(side, a)) => {
            let plain = equal(a, b, steps);
            match (&**a, b) {
                // A loss of 15% is -15%.
                (Value::Scalar(e, u), Value::Scalar(..)) if is_negative(side) && !plain.equal => {
                    equal(&Value::Scalar(super::expr::negate(e.clone()), u.clone()), b, steps)
                }
                _ => plain,
            }
        }
        (Value::Assignment(a, x), Value::Assignment(b, y)) => {
            if let (Some((f, t)), Some((g, u)), Value::Scalar(p, None), Value::Scalar(q, None)) =
                (applied(a), applied(b), &**x, &**y)
                && f == g
                && t != u
            {
                // g(t) = 2t and g(x) = 2x.
                decide(p, &q.replace(u, &var(t)), steps).into()
            } else if let Some(y) = reordered(b, y, a) {
                equal(x, &y, steps)
            } else if same_name(a, b) {
                equal(x, y, steps)
            } else if let (Value::Scalar(p, None), Value::Scalar(q, None)) = (&**x, &**y)
                && p.variables().contains(b)
                && q.variables().contains(a)
            {
                // x = (y - 1) / 2 and y = 2x + 1 are one line.
                equations(&minus(var(a), p.clone()), &minus(var(b), q.clone()), steps)
            } else if let (Value::Scalar(p, None), Value::Scalar(q, None)) = (&**x, &**y)
                && let (Some(l), Some(m)) = (letters(a), letters(b))
            {
                // PV = nRT and P = nRT / V: a law solved for another of its letters.
                let (f, g) = (minus(l, p.clone()), minus(m, q.clone()));
                let mut names = (f.variables(), g.variables());
                names.0.sort();
                names.1.sort();
                if names.0 == names.1 && names.0.len() > 1 { equations(&f, &g, steps) } else { no("different names") }
            } else {
                no("different names")
            }
        }
        // y = 2x + 1 and 2x - y + 1 = 0.
        (Value::Assignment(name, x), Value::Equation(a, b)) => as_equation(name, x, a, b, steps),
        (Value::Equation(a, b), Value::Assignment(name, x)) => as_equation(name, x, a, b, steps),
        (Value::Assignment(_, x), y) => equal(x, y, steps),
        (x, Value::Assignment(_, y)) => equal(x, y, steps),
        (Value::Equation(a, b), Value::Equation(c, d)) => {
            equations(&minus(a.clone(), b.clone()), &minus(c.clone(), d.clone()), steps)
        }
        // a + b = 12 beside 12: the letters are what was asked for.
        (Value::Scalar(x, None), Value::Equation(a, b)) | (Value::Equation(a, b), Value::Scalar(x, None))
            if !b.has_variables() && !x.has_variables() && only_letters(a) =>
        {
            decide(x, b, steps).into()
        }
        // |E(G)| = n - 1 beside n - 1: what is asked for on the left.
        (Value::Scalar(x, None), Value::Equation(a, b)) | (Value::Equation(a, b), Value::Scalar(x, None))
            if asked(a) =>
        {
            decide(x, b, steps).into()
        }
        (Value::Positive(a, s), Value::Positive(b, t)) => {
            outcome(s == t && proportional(a, b, steps) == Some(true), "equal inequalities", "different inequalities")
        }
        (Value::Scalar(a, u), Value::Scalar(b, v)) => {
            let plain = scalars(a, u.as_ref(), b, v.as_ref(), steps);
            if plain.equal { plain } else { growth(a, b, steps).unwrap_or(plain) }
        }
        (Value::Terms(a), Value::Terms(b)) => series(a, b, steps),
        (Value::Terms(t), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Terms(t)) => summed(t, e, steps),
        (Value::Tuple(a), Value::Tuple(b)) => ordered(a, b, steps),
        (Value::Matrix(a), Value::Matrix(b)) => matrices(a, b, steps),
        (Value::Matrix(m), list @ Value::Tuple(items)) | (list @ Value::Tuple(items), Value::Matrix(m)) => {
            match rows(list) {
                Some(r) => matrices(m, &r, steps),
                None => vector(m, items, steps),
            }
        }
        (Value::Matrix(m), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Matrix(m)) => {
            named_matrix(m, e, steps)
        }
        (list @ Value::Tuple(t), Value::Scalar(e, None)) | (Value::Scalar(e, None), list @ Value::Tuple(t)) => {
            match rows(list) {
                Some(m) => named_matrix(&m, e, steps),
                None => along_axes(e, t, steps),
            }
        }
        (Value::Region(a), Value::Region(b)) => regions(a, b, steps),
        // (a, b) is the pair or the open interval; [a, b] the list or the closed interval.
        (Value::Tuple(t), Value::Region(r)) | (Value::Region(r), Value::Tuple(t)) => match open_interval(t) {
            Some(i) => regions(&i, r, steps),
            None => no("different kinds"),
        },
        (Value::Set(t), Value::Region(r)) | (Value::Region(r), Value::Set(t)) => match points(t) {
            Some(p) => regions(&p, r, steps),
            None => no("different kinds"),
        },
        (Value::Region(r), Value::Scalar(x, None)) | (Value::Scalar(x, None), Value::Region(r)) => {
            let point = r.spans.len() == 1 && r.spans[0].low == r.spans[0].high;
            if point { decide(&r.spans[0].low, x, steps).into() } else { no("a number and a range") }
        }
        (Value::Named(a), Value::Named(b)) => outcome(a == b, "the same set of numbers", "different sets of numbers"),
        (Value::Ratio(a), Value::Ratio(b)) => ratios(a, b, steps),
        (Value::Ratio(r), Value::Scalar(x, None)) | (Value::Scalar(x, None), Value::Ratio(r)) => match r.as_slice() {
            // 10 to 15 and 10-15.
            [a, b] if *x == minus(a.clone(), b.clone()) => yes("the same range of numbers"),
            [a, b] => decide(&divide(a.clone(), b.clone()), x, steps).into(),
            _ => no("different kinds"),
        },
        // 25 out of 100 are 25%.
        (Value::Ratio(r), Value::Scalar(x, Some(Unit::Percent)))
        | (Value::Scalar(x, Some(Unit::Percent)), Value::Ratio(r))
            if r.len() == 2 =>
        {
            let share = Expr::Mul(vec![divide(r[0].clone(), r[1].clone()), integer(100)]);
            decide(&share, x, steps).into()
        }
        // 1:30 is an hour and a half, or a minute and a half.
        (Value::Ratio(r), Value::Scalar(x, Some(u))) | (Value::Scalar(x, Some(u)), Value::Ratio(r))
            if clock::is_time(u) =>
        {
            let second = unit::named("s");
            let same = |d: &Expr| scalars(x, Some(u), d, second.as_ref(), steps).equal;
            outcome(clock::durations(r).iter().any(same), "the same duration", "different durations")
        }
        (Value::Time(a), Value::Time(b)) => outcome(a == b, "the same time", "different times"),
        (Value::Time(t), Value::Ratio(r)) | (Value::Ratio(r), Value::Time(t)) => match r.as_slice() {
            // The half of the day may be left out, or told by the hour.
            [h, m] => {
                let minutes =
                    |add: i64| Expr::Add(vec![Expr::Mul(vec![integer(60), h.clone()]), m.clone(), integer(add * 60)]);
                // Midnight and noon say which half they mean; 12:00 does not.
                let midday = *t % 720 == 0;
                let zero = decide(h, &integer(0), steps).is_equal();
                let is = |e: &Expr, n: i64| decide(e, &integer(n), steps).is_equal();
                let early = (1..12).any(|n| is(h, n));
                let halves: &[i64] = match (midday && zero, is(h, 12)) {
                    (false, true) => &[0, -12],
                    (false, false) if early => &[0, 12],
                    _ => &[0],
                };
                let hits = halves.iter().any(|&d| decide(&minutes(d), &integer(i64::from(*t)), steps).is_equal());
                outcome(hits, "the same time", "different times")
            }
            _ => no("different kinds"),
        },
        (Value::Residue(a, n), Value::Residue(b, m)) => {
            if !decide(n, m, steps).is_equal() {
                return no("different moduli");
            }
            match (&**a, &**b) {
                (Value::Scalar(x, None), Value::Scalar(y, None)) => {
                    let rest = Expr::Call("mod", vec![minus(x.clone(), y.clone()), n.clone()]);
                    let zero = exact(&rest, steps).is_some_and(|r| r == super::Rational::from_integer(0.into()));
                    outcome(zero, "the same residue", "different residues")
                }
                (x, y) => equal(x, y, steps),
            }
        }
        (Value::Residue(a, n), Value::Family(b, m)) | (Value::Family(b, m), Value::Residue(a, n)) => {
            let Value::Scalar(a, None) = &**a else { return no("different kinds") };
            let same = same_families(&[(a.clone(), n.clone())], &[(b.clone(), m.clone())], steps);
            outcome(same, "the same residue", "different residues")
        }
        (Value::Residue(a, n), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Residue(a, n))
            if counted(e, steps).is_some() =>
        {
            let (Value::Scalar(a, None), Some(f)) = (&**a, counted(e, steps)) else { return no("different kinds") };
            outcome(same_families(&[(a.clone(), n.clone())], &[f], steps), "the same residue", "different residues")
        }
        (Value::Residue(a, n), y) => remainder(a, n, y, steps),
        (x, Value::Residue(b, n)) => remainder(b, n, x, steps),
        // 2 to 5 is a range, too.
        (Value::Ratio(p), Value::Region(r)) | (Value::Region(r), Value::Ratio(p)) => {
            match (p.as_slice(), r.spans.as_slice()) {
                ([a, b], [s]) if s.low_closed && s.high_closed => outcome(
                    decide(a, &s.low, steps).is_equal() && decide(b, &s.high, steps).is_equal(),
                    "the same range of numbers",
                    "different ranges of numbers",
                ),
                _ => no("different kinds"),
            }
        }
        // [a; b] is a column as well as an interval.
        (Value::Matrix(m), Value::Region(r)) | (Value::Region(r), Value::Matrix(m)) => {
            match (m.as_slice(), r.spans.as_slice()) {
                ([a, b], [s]) if a.len() == 1 && b.len() == 1 && s.low_closed && s.high_closed => outcome(
                    decide(&a[0], &s.low, steps).is_equal() && decide(&b[0], &s.high, steps).is_equal(),
                    "equal entry by entry",
                    "different entries",
                ),
                _ => no("different kinds"),
            }
        }
        (Value::Text(t), Value::Tuple(p)) | (Value::Tuple(p), Value::Text(t)) => {
            let zero = |v: &Value| matches!(v, Value::Scalar(e, None) if decide(e, &integer(0), steps).is_equal());
            outcome(words::key(t) == "origin" && p.iter().all(zero), "the origin", "different kinds")
        }
        (Value::Cases(a), Value::Cases(b)) => outcome(a.same(b, steps), "equal piece by piece", "different pieces"),
        (Value::Cases(c), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Cases(c)) => {
            outcome(c.is(e, steps), "equal piece by piece", "different pieces")
        }
        (Value::Family(a, n), Value::Family(b, m)) => outcome(
            same_families(&[(a.clone(), n.clone())], &[(b.clone(), m.clone())], steps),
            "the same family",
            "different families",
        ),
        (Value::Family(a, n), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Family(a, n)) => {
            let same = counted(e, steps).is_some_and(|f| same_families(&[(a.clone(), n.clone())], &[f], steps));
            outcome(same, "the same family", "different families")
        }
        // The images of 1, 2, 3 ... below them.
        (Value::Matrix(m), Value::Cycles(c)) | (Value::Cycles(c), Value::Matrix(m)) => {
            outcome(images(m, steps).is_some_and(|i| i == *c), "the same permutation", "different permutations")
        }
        (Value::Cycles(a), Value::Cycles(b)) => outcome(a == b, "the same permutation", "different permutations"),
        (Value::Cycles(c), Value::Tuple(t)) | (Value::Tuple(t), Value::Cycles(c)) => match c.as_slice() {
            [c] => {
                ordered(&c.iter().map(|n| Value::Scalar(integer(i64::from(*n)), None)).collect::<Vec<_>>(), t, steps)
            }
            _ => no("different kinds"),
        },
        (Value::Date(y, m, d), Value::Date(z, n, e)) => {
            // The year may be left out.
            let years = y == z || y.is_none() || z.is_none();
            outcome(years && m == n && d == e, "the same day", "different days")
        }
        (Value::Equation(a, b), Value::Set(_) | Value::List(_)) => solved(a, b, answer, steps),
        (Value::Set(_) | Value::List(_), Value::Equation(a, b)) => solved(a, b, gold, steps),
        (Value::Text(a), Value::Text(b)) => {
            let words = words::in_words(a, b) && {
                if steps.spend(500 + 40 * (a.len() + b.len()) as u64).is_none() {
                    return no("too much work to compare");
                }
                words::same(a, b) || words::lists(a, b)
            };
            if words {
                return yes("equal words");
            }
            // Notation that is not understood is compared sign by sign.
            if is_notation(a) || is_notation(b) {
                let same = notation(a, steps) == notation(b, steps)
                    || operands(a, steps).is_some_and(|x| operands(b, steps).is_some_and(|y| x == y));
                return outcome(same, "the same notation", "different notation");
            }
            outcome(words::key(a) == words::key(b), "equal words", "different words")
        }
        // Sets that are also said in words.
        (Value::Text(t), Value::Set(s)) | (Value::Set(s), Value::Text(t)) if s.is_empty() => {
            outcome(words::key(t) == "no solution", "the empty set", "different kinds")
        }
        (Value::Text(t), Value::Region(r)) | (Value::Region(r), Value::Text(t)) => {
            let all = Region::new(vec![super::region::Span::all()]);
            let same = words::key(t) == "all real numbers" && r.same(&all, steps);
            outcome(same, "all real numbers", "different kinds")
        }
        _ => no("different kinds"),
    }
}

/// True for a function of something, or the size of it: what a question asks for.
fn asked(e: &Expr) -> bool {
    match e {
        Expr::Apply(..) => true,
        Expr::Call("abs", args) => args.iter().all(|e| asked(e) || matches!(e, Expr::Var(_)) || applied_letters(e)),
        _ => false,
    }
}

/// E(K_n), read as a product.
fn applied_letters(e: &Expr) -> bool {
    matches!(e, Expr::Mul(f) if f.len() == 2 && f.iter().all(|e| matches!(e, Expr::Var(n) if n.starts_with(|c: char| c.is_ascii_uppercase()))))
}

/// True for a family over all whole numbers, and what is all but one.
fn endless(v: &Value) -> bool {
    match v {
        Value::Family(..) | Value::Except(_) | Value::Residue(..) => true,
        Value::Assignment(_, v) => endless(v),
        Value::List(items) | Value::Set(items) => items.iter().any(endless),
        _ => false,
    }
}

fn regions(a: &Region, b: &Region, steps: &Steps) -> Comparison {
    if let (Some(x), Some(y)) = (&a.variable, &b.variable)
        && !same_name(x, y)
    {
        return no("different names");
    }
    outcome(a.same(b, steps), "the same range of numbers", "different ranges of numbers")
}

/// A residue beside one value: itself, or its remainder.
fn remainder(a: &Value, n: &Expr, other: &Value, steps: &Steps) -> Comparison {
    let plain = equal(a, other, steps);
    if let (Value::Scalar(x, None), Value::Scalar(y, None), false) = (a, other, plain.equal) {
        let rest = Expr::Call("mod", vec![x.clone(), n.clone()]);
        if let (Some(rest), Some(y)) = (exact(&rest, steps), exact(y, steps)) {
            return outcome(rest == y, "the remainder", "different numbers");
        }
    }
    plain
}

fn ratios(a: &[Expr], b: &[Expr], steps: &Steps) -> Comparison {
    if a.len() != b.len() {
        return no("different numbers of parts");
    }
    // Part for part, or in the same proportion; a part may be zero, as in 12:00.
    let same = a.iter().zip(b).all(|(x, y)| decide(x, y, steps).is_equal())
        || (1..a.len()).all(|i| {
            let cross = |x: &Expr, y: &Expr| Expr::Mul(vec![x.clone(), y.clone()]);
            let zero = |e: &Expr| decide(e, &integer(0), steps).is_equal();
            !zero(&a[0])
                && !zero(&b[0])
                && !zero(&a[i])
                && decide(&cross(&a[0], &b[i]), &cross(&b[0], &a[i]), steps).is_equal()
        });
    outcome(same, "the same ratio", "different ratios")
}
