//! Parses numbers: decimals, repeating digits, mixed numbers, other bases.

use crate::number_words;
use crate::steps::Rational;
use crate::value::exact::literal;
use crate::value::expr::{Expr, divide, integer, number as rational, power};
use crate::value::lex::{Tok, Token, is, is_cmd};
use crate::value::scalar::parser::Parser;
use crate::value::unit::Unit;
use num_bigint::BigInt;

/// Maximum number of digits.
const MAX_DIGITS: usize = 1_500;
/// Largest power of ten in `1e5`.
const MAX_POWER_OF_TEN: i32 = 2_000;

impl Parser<'_> {
    /// Parses a factor. `3 1/2` is a mixed number.
    pub(crate) fn mixed(&mut self) -> Option<Expr> {
        let whole = |t: Option<&Token>| matches!(t, Some(Token { tok: Tok::Num(n), .. }) if n.bytes().all(|b| b.is_ascii_digit()));
        if whole(self.token(0)) && !is(self.token(1), '^') {
            let digits =
                |at: usize| is(self.token(at), '{') && whole(self.token(at + 1)) && is(self.token(at + 2), '}');
            let two = |n: Option<&Token>| matches!(n, Some(Token { tok: Tok::Num(n), .. }) if n.len() == 2);
            let framed = is_cmd(self.token(1), "frac")
                && ((digits(2) && digits(5)) || (two(self.token(2)) && whole(self.token(2))));
            let plain = whole(self.token(1))
                && self.token(1).is_some_and(|t| t.spaced)
                && is(self.token(2), '/')
                && whole(self.token(3));
            if framed || plain {
                let n = self.number()?;
                let part = if framed {
                    self.power()?
                } else {
                    let over = self.number()?;
                    self.need('/')?;
                    divide(over, self.number()?)
                };
                return Some(literal(Expr::Add(vec![n, part]), self.steps));
            }
        }
        self.power()
    }

    /// Parses a number, with its base if one is given.
    pub(crate) fn number(&mut self) -> Option<Expr> {
        let Some(Tok::Num(text)) = self.peek() else { return None };
        self.at += 1;
        // Reducing the fraction of a long decimal takes quadratic time.
        let length = text.len() as u64;
        self.steps.spend(2 + if length > 40 { length * length / 16 } else { 0 })?;
        // Digits and letters before a base: 1A_{16}.
        let mut digits = text.clone();
        let mut n = 0;
        while let Some(Token { tok: Tok::Num(t) | Tok::Word(t), spaced: false }) = self.token(n) {
            digits += t;
            n += 1;
        }
        if (n > 0 || text.bytes().all(|b| b.is_ascii_digit())) && is(self.token(n), '_') {
            let from = self.at;
            self.at += n + 1;
            if let Some(e) = self.based(&digits) {
                return Some(e);
            }
            self.at = from;
        }
        number(text)
    }

    /// Parses the base after `_`: a number or its name.
    pub(crate) fn based(&mut self, digits: &str) -> Option<Expr> {
        let braced = self.eat('{');
        self.eat('(');
        let base = match self.peek()? {
            Tok::Num(n) => n.parse::<u32>().ok()?,
            Tok::Text(t) | Tok::Word(t) => {
                let name = t.trim().trim_start_matches("base").trim();
                let short = [("bin", 2), ("oct", 8), ("hex", 16)].iter().find(|n| n.0 == name).map(|n| n.1);
                short.or_else(|| number_words::small(name)).map_or_else(|| name.parse().ok(), |n| n.try_into().ok())?
            }
            _ => return None,
        };
        self.at += 1;
        self.eat(')');
        if braced {
            self.need('}')?;
        }
        if !(2..=36).contains(&base) {
            return None;
        }
        let value = BigInt::parse_bytes(digits.as_bytes(), base)?;
        self.in_base(value, digits.to_owned(), base)
    }

    pub(crate) fn in_base(&mut self, value: BigInt, digits: String, base: u32) -> Option<Expr> {
        if digits.len() > MAX_DIGITS {
            return None;
        }
        self.steps.spend(digits.len() as u64)?;
        if self.units && self.at == self.tokens.len() {
            self.unit = Some(Unit::Base(digits, base));
        }
        Some(rational(Rational::from_integer(value)))
    }
}

/// Returns the number of a token: digits, a point, `(` before repeating digits, an exponent.
pub(crate) fn number(text: &str) -> Option<Expr> {
    let (mantissa, exponent) = text.split_once('e').map_or((text, None), |(m, e)| (m, Some(e)));
    if mantissa.len() > MAX_DIGITS {
        return None;
    }
    let (mantissa, period) = mantissa.split_once('(').map_or((mantissa, None), |(m, p)| (m, Some(p)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let digits = format!("{whole}{}", fraction.unwrap_or(""));
    let decimals = fraction.map_or(0, |f| f.len() as u32);
    let ten = |n: u32| BigInt::from(10).pow(n);
    let mut value =
        Rational::new(if digits.is_empty() { BigInt::from(0) } else { digits.parse().ok()? }, ten(decimals));
    if let Some(period) = period {
        let length = period.len() as u32;
        value += Rational::new(period.parse::<BigInt>().ok()?, ten(decimals) * (ten(length) - 1));
        return Some(rational(value));
    }
    if let Some(e) = exponent {
        let e: i32 = e.parse().ok()?;
        if e.abs() > MAX_POWER_OF_TEN {
            return Some(Expr::Mul(vec![rational(value), power(integer(10), integer(i64::from(e)))]));
        }
        value *= Rational::from_integer(10.into()).pow(e);
        let left = (i64::from(decimals) - i64::from(e)).max(0) as u32;
        return Some(Expr::Num { value, decimals: Some(left).filter(|&d| d > 0) });
    }
    Some(Expr::Num { value, decimals: fraction.map(|_| decimals) })
}
