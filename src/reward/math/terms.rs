//! Infinite series by their first terms: `1 + x + \frac{x^2}{2} + \cdots`.

use super::Rational;
use super::Steps;
use super::ball::Ball;
use super::compare::{Comparison, no, outcome};
use super::complex::Complex;
use super::decide::decide;
use super::domain::Domain;
use super::eval::Scope;
use super::exact::exact;
use super::expr::{Binder, Expr, integer, number, power, var};
use super::lex::{Tok, Token};
use super::parse::{Reader, Value, nesting};
use super::scalar::{is_cmd, scalar};

/// Fewest terms that tell a series.
const FEWEST: usize = 3;
/// The counter of numbers that go on: no name that can be written.
const COUNTER: &str = "member number";
/// Most numbers that dots between stand for.
const MOST_MEMBERS: u32 = 300;
/// Terms of a sum that may vanish among those compared.
const MAX_SKIPPED: i64 = 40;

impl Reader<'_> {
    /// The first terms of a series that goes on without end; a general term among the dots is left aside.
    pub(super) fn first_terms(&self, tokens: &[Token]) -> Option<Value> {
        let (last, _) = tokens.split_last()?;
        if !is_cmd(Some(last), "dots") {
            return None;
        }
        let mut level = 0;
        let at = tokens.iter().position(|t| {
            level += nesting(&t.tok);
            level == 0 && is_cmd(Some(t), "dots")
        })?;
        let [heads @ .., sign] = &tokens[..at] else { return None };
        if !matches!(sign.tok, Tok::Sym('+' | '-')) {
            return None;
        }
        let Expr::Add(terms) = scalar(heads, self.steps)? else { return None };
        // One term more is no series: x + y + \cdots.
        (terms.len() >= 2).then_some(Value::Terms(terms))
    }
}

/// Numbers that go on with dots, in steps or by one factor: at one end, at both, or up to a last one.
pub(super) fn progression(parts: &[&[Token]], steps: &Steps) -> Option<Value> {
    let dots = |p: &[Token]| matches!(p, [t] if is_cmd(Some(t), "dots"));
    let all: Vec<&[Token]> = parts.iter().copied().filter(|p| !p.is_empty()).collect();
    let gaps: Vec<usize> = (0..all.len()).filter(|&n| dots(all[n])).collect();
    let last = all.len().checked_sub(1)?;
    let (shown, both, end) = match gaps.as_slice() {
        [n] if *n == last => (&all[..last], false, None),
        [0, n] if *n == last => (&all[1..last], true, None),
        [n] if *n + 1 == last => (&all[..*n], false, Some(all[last])),
        _ => return None,
    };
    let value = |p: &&[Token]| exact(&scalar(p, steps)?, steps);
    let shown = shown.iter().map(value).collect::<Option<Vec<Rational>>>()?;
    if shown.len() < if end.is_some() { 2 } else { 3 } {
        return None;
    }
    let first = number(shown[0].clone());
    let step = &shown[1] - &shown[0];
    let none = Rational::from_integer(0.into());
    let counter = || var(COUNTER);
    let from = |e: Expr| Value::Over(Box::new(Value::Scalar(e, None)), vec![(COUNTER.to_owned(), Domain::From(0))]);
    if step != none && shown.windows(2).all(|w| &w[1] - &w[0] == step) {
        if let Some(end) = end {
            let count = (exact(&scalar(end, steps)?, steps)? - &shown[0]) / &step;
            let count = exact_count(&count)?;
            let member = |k: u32| number(&shown[0] + &step * Rational::from_integer(k.into()));
            return Some(Value::List((0..=count).map(|k| Value::Scalar(member(k), None)).collect()));
        }
        if both {
            return Some(Value::Family(first, number(step)));
        }
        return Some(from(Expr::Add(vec![first, Expr::Mul(vec![number(step), counter()])])));
    }
    if both || end.is_some() || shown.contains(&none) {
        return None;
    }
    let ratio = &shown[1] / &shown[0];
    let steady = shown.windows(2).all(|w| &w[1] / &w[0] == ratio);
    steady.then(|| from(Expr::Mul(vec![first, power(number(ratio), counter())])))
}

/// A count of steps that can be written out.
fn exact_count(n: &Rational) -> Option<u32> {
    super::exact::to_u32(n).filter(|n| (2..=MOST_MEMBERS).contains(n))
}

/// Two series by their first terms.
pub(super) fn series(a: &[Expr], b: &[Expr], steps: &Steps) -> Comparison {
    let n = a.len().min(b.len());
    let same = n >= FEWEST && a.iter().zip(b).all(|(x, y)| decide(x, y, steps).is_equal());
    outcome(same, "equal term by term", "different terms")
}

/// A series by its first terms beside a sum or a function.
pub(super) fn summed(terms: &[Expr], e: &Expr, steps: &Steps) -> Comparison {
    if terms.len() < FEWEST {
        return no("too few terms to tell a series");
    }
    if let Expr::Bound(b) = e
        && b.binder == Binder::Sum
        && b.to.is_infinite() == Some(1)
        && let Some(from) = super::family::whole(&b.from, steps)
    {
        let mut k = from;
        let each = terms.iter().all(|t| {
            let mut term = b.body.replace(&b.var, &integer(k));
            while k < from + MAX_SKIPPED && decide(&term, &integer(0), steps).is_equal() {
                k += 1;
                term = b.body.replace(&b.var, &integer(k));
            }
            k += 1;
            decide(&term, t, steps).is_equal()
        });
        return outcome(each, "equal term by term", "different terms");
    }
    outcome(near_zero(terms, e, steps) == Some(true), "the series of the function", "no series of the function")
}

/// Whether the terms are those of the function's power series at 0: near 0 each is far smaller than the one before,
/// and what is left of the function than the last.
fn near_zero(terms: &[Expr], e: &Expr, steps: &Steps) -> Option<bool> {
    /// Bits of the place, and those between two terms.
    const NEAR: i64 = 64;
    const GAP: i64 = 32;
    /// More than eight terms fall.
    const PRECISION: i64 = 768;
    let [x] = &e.variables()[..] else { return None };
    let own = |t: &Expr| t.variables().iter().all(|n| n == x);
    if !terms.iter().all(own) {
        return None;
    }
    let place = Complex::real(Ball::two_to(-NEAR));
    let mut scope = Scope { vars: vec![(x.clone(), place)], prec: PRECISION, steps };
    let mut rest = scope.eval(e).ok()?;
    let mut last: Option<i64> = None;
    for t in terms {
        let value = scope.eval(t).ok()?;
        if value.may_be_zero() || last.is_some_and(|l| value.top() > l - GAP) {
            return None;
        }
        last = Some(value.top());
        rest = rest.sub(&value, PRECISION);
    }
    Some(rest.top() < last? - GAP)
}
