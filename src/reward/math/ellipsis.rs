//! Sums and products with dots between their terms: `1 + 2 + \cdots + n`, `1 + \frac12 + \frac14 + \cdots`.

use super::decide::decide;
use super::expr::{Binder, Bound, Expr, divide, integer, minus, number, power, var};
use super::lex::{Tok, Token};
use super::parse::{Reader, split};
use super::scalar::{is, is_cmd, scalar};
use super::{Rational, exact};

/// The counter of the sum that the dots stand for: no name that can be written.
const COUNTER: &str = "term number";

impl Reader<'_> {
    /// What the dots stand for, where the terms before them are an arithmetic or geometric progression, or powers of
    /// an arithmetic one.
    pub(super) fn ellipsis(&self, tokens: &[Token]) -> Option<Expr> {
        let dots = tokens.iter().position(|t| is_cmd(Some(t), "dots"))?;
        let sign = match tokens.get(dots.checked_sub(1)?)?.tok {
            Tok::Sym('+') => '+',
            _ => '*',
        };
        let before =
            tokens[..dots].strip_suffix(&[tokens[dots - 1].clone()][..]).filter(|_| is(tokens.get(dots - 1), sign));
        let before = before.unwrap_or(&tokens[..dots]);
        let mut behind = &tokens[dots + 1..];
        if let [first, rest @ ..] = behind
            && is(Some(first), sign)
        {
            behind = rest;
        }
        let heads = split(before, |t| *t == Tok::Sym(sign))?;
        let heads: Vec<Expr> = heads.into_iter().map(|p| scalar(p, self.steps)).collect::<Option<_>>()?;
        if !(2..=8).contains(&heads.len()) || behind.iter().any(|t| is_cmd(Some(t), "dots") || is(Some(t), '+')) {
            return None;
        }
        let last = if behind.is_empty() { None } else { Some(scalar(behind, self.steps)?) };
        // Powers with one exponent: their bases count.
        let split_power = |e: &Expr| match e {
            Expr::Pow(b, p) => Some(((**b).clone(), (**p).clone())),
            _ => None,
        };
        let powers: Option<Vec<(Expr, Expr)>> = heads.iter().chain(&last).map(split_power).collect();
        if let Some(powers) = powers.filter(|p| p.iter().all(|x| x.1 == p[0].1)) {
            let exponent = powers[0].1.clone();
            let bases: Vec<Expr> = powers.into_iter().map(|p| p.0).collect();
            let (heads, end) = bases.split_at(heads.len());
            return self.progression(heads, end.first(), sign == '+', Some(exponent));
        }
        self.progression(&heads, last.as_ref(), sign == '+', None)
    }

    fn progression(&self, heads: &[Expr], last: Option<&Expr>, sum: bool, exponent: Option<Expr>) -> Option<Expr> {
        if heads.iter().any(Expr::has_variables) {
            return last.filter(|_| sum && exponent.is_none()).and_then(|last| self.geometric(heads, last));
        }
        let values: Vec<Rational> = heads.iter().map(|e| exact::exact(e, self.steps)).collect::<Option<_>>()?;
        let step = &values[1] - &values[0];
        let none = Rational::from_integer(0.into());
        if values.windows(2).all(|w| &w[1] - &w[0] == step) && step != none {
            let first = number(values[0].clone());
            let to = match last {
                Some(last) => {
                    // Rounded down from half a term above, so that a quotient within an error is a whole number.
                    let count = divide(minus(last.clone(), first.clone()), number(step.clone()));
                    let half = number(Rational::new(3.into(), 2.into()));
                    Expr::Call("floor", vec![Expr::Add(vec![count, half])])
                }
                None => var("infty"),
            };
            let k = Expr::Mul(vec![number(step), Expr::Add(vec![var(COUNTER), integer(-1)])]);
            let term = Expr::Add(vec![first, k]);
            let body = exponent.map_or(term.clone(), |p| power(term.clone(), p));
            let binder = if sum { Binder::Sum } else { Binder::Product };
            return Some(Expr::Bound(Box::new(Bound { binder, var: COUNTER.to_owned(), from: integer(1), to, body })));
        }
        if !sum || exponent.is_some() || values.len() < 3 || values.contains(&none) {
            return None;
        }
        let ratio = &values[1] / &values[0];
        let one = Rational::from_integer(1.into());
        if !values.windows(2).all(|w| &w[1] / &w[0] == ratio) {
            return None;
        }
        let under = number(&one - &ratio);
        let over = match last {
            Some(last) => minus(number(values[0].clone()), Expr::Mul(vec![number(ratio), last.clone()])),
            None if ratio < one && ratio > -one => number(values[0].clone()),
            None => return None,
        };
        Some(divide(over, under))
    }

    /// 1 + x + x^2 + ... + x^n: the last term closes the sum of three or more with one quotient.
    fn geometric(&self, heads: &[Expr], last: &Expr) -> Option<Expr> {
        let ratio = divide(heads.get(1)?.clone(), heads[0].clone());
        let next = |e: &Expr| Expr::Mul(vec![e.clone(), ratio.clone()]);
        let steady = heads.windows(2).all(|w| decide(&w[1], &next(&w[0]), self.steps).is_equal());
        let moves = !decide(&ratio, &integer(1), self.steps).is_equal();
        (heads.len() >= 3 && steady && moves)
            .then(|| divide(minus(heads[0].clone(), next(last)), minus(integer(1), ratio.clone())))
    }
}
