//! Continued fractions: `[2; 3, 1, 4]`, `[1; \overline{2}]`, `[1; 1, 2, 1, 2, \ldots]`.

use super::Rational;
use super::expr::{Expr, divide, integer, number, power};

/// Most partial quotients.
const MAX_TERMS: usize = 60;

/// The number that a continued fraction is; with dots at its end it goes on with the shortest period it shows twice.
pub(super) fn read(text: &str) -> Option<Expr> {
    let inner = text.trim().strip_prefix('[')?.strip_suffix(']')?;
    let (first, rest) = inner.split_once(';')?;
    let whole = |t: &str| t.trim().parse::<i64>().ok();
    let first = whole(first)?;
    let rest = rest.replace("\\,", "").replace("\\ ", "").replace("\\dots", "...").replace("\\ldots", "...");
    let rest = rest.replace('\u{2026}', "...").replace("\\cdots", "...");
    let list = |t: &str| t.split(',').map(str::trim).filter(|t| !t.is_empty()).map(whole).collect::<Option<Vec<i64>>>();
    let (before, period) = if let Some((before, over)) = rest.split_once("\\overline{").or(rest.split_once("\\bar{")) {
        (list(before)?, list(over.trim().strip_suffix('}')?)?)
    } else if let Some(shown) = rest.trim().strip_suffix("...") {
        let terms = list(shown)?;
        let length = (1..=terms.len() / 2).find(|&p| {
            let tail = &terms[terms.len() - 2 * p..];
            tail[..p] == tail[p..]
        })?;
        let (mut from, cut) = (terms.len() - length, terms.len() - length);
        let period = terms[cut..].to_vec();
        // As far back as the period goes.
        while from >= length && terms[from - length..from] == period[..] {
            from -= length;
        }
        (terms[..from].to_vec(), period)
    } else {
        (list(&rest)?, Vec::new())
    };
    // A column of two entries is written so, too.
    if before.len() + period.len() < 2 && period.is_empty() {
        return None;
    }
    if before.len() + period.len() > MAX_TERMS || before.iter().chain(&period).any(|n| *n < 1) {
        return None;
    }
    let over = |tail: Option<Expr>| {
        let step = |tail: Option<Expr>, n: &i64| {
            Some(match tail {
                Some(x) => Expr::Add(vec![integer(*n), divide(integer(1), x)]),
                None => integer(*n),
            })
        };
        std::iter::once(&first).chain(&before).rev().fold(tail, step)
    };
    if period.is_empty() {
        return over(None);
    }
    // x = (p x + q) / (r x + s)
    let one = || Rational::from_integer(1.into());
    let zero = || Rational::from_integer(0.into());
    let (mut p, mut q, mut r, mut s) = (one(), zero(), zero(), one());
    for n in &period {
        let n = Rational::from_integer((*n).into());
        (p, q) = (&p * &n + &q, p);
        (r, s) = (&r * &n + &s, r);
    }
    // r x^2 + (s - p) x - q = 0
    let b = &s - &p;
    let four = Rational::from_integer(4.into());
    let root = power(number(&b * &b + four * &r * &q), divide(integer(1), integer(2)));
    let x = divide(Expr::Add(vec![number(-b), root]), number(Rational::from_integer(2.into()) * r));
    over(Some(x))
}
