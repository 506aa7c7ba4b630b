//! Parses currencies, scales, units and angles around an expression.

use crate::steps::Rational;
use crate::value::exact::literal;
use crate::value::expr::{Expr, divide, integer, number};
use crate::value::lex::{Tok, Token, is, is_cmd};
use crate::value::scalar::parser::Parser;
use crate::value::unit::{Unit, trailing};
use crate::{lexicon, number_words};

impl Parser<'_> {
    /// Parses a currency before an amount: `$`, euro and so on.
    pub(crate) fn currency(&mut self) {
        let Some(Tok::Sym(c)) = self.peek() else { return };
        let Some(name) = lexicon::currency(c.encode_utf8(&mut [0; 4])) else { return };
        self.at += 1;
        if self.unit.is_none() {
            self.unit = Unit::money(name);
        }
    }

    /// Parses a word such as "million" or "dozen" after a number.
    pub(crate) fn scaled(&mut self, factors: &mut Vec<Expr>) -> bool {
        let (Some(Tok::Word(w) | Tok::Text(w)), [Expr::Num { .. }, ..]) = (self.peek(), factors.as_slice()) else {
            return false;
        };
        let Some(scale) = number_words::scale(&w.trim().to_lowercase()) else { return false };
        self.at += 1;
        let scale = number(Rational::from_integer(scale));
        factors[0] = literal(Expr::Mul(vec![factors[0].clone(), scale]), self.steps);
        true
    }

    /// Parses the words at the end of the complete expression as its unit.
    pub(crate) fn trailing_unit(&mut self) -> bool {
        if !self.units || self.depth > 1 || self.at == 0 || self.at >= self.tokens.len() {
            return false;
        }
        // A price per unit: $5 per hour, $5/h.
        let over = is(self.token(0), '/') || matches!(self.peek(), Some(Tok::Word(w)) if w == "per");
        if let Some(Unit::Measure(..) | Unit::Money(_)) = &self.unit
            && over
            && !matches!(self.token(1).map(|t| &t.tok), Some(Tok::Num(_)))
        {
            let name = match &self.unit {
                Some(Unit::Money(w)) => (*w).to_owned(),
                _ => "$".to_owned(),
            };
            let mut priced = vec![Token { tok: Tok::Text(name), spaced: true }];
            priced.extend_from_slice(&self.tokens[self.at..]);
            if let Some(unit) = trailing(&priced, true) {
                self.unit = Some(unit);
                self.at = self.tokens.len();
                return true;
            }
        }
        let found =
            trailing(&self.tokens[self.at..], self.tokens[..self.at].iter().any(|t| matches!(t.tok, Tok::Num(_))));
        if let Some(found) = found {
            // The unit after the amount replaces a currency before it, as in `$5 dollars`.
            self.unit = Some(found);
            self.at = self.tokens.len();
            return true;
        }
        false
    }

    /// Returns the number of tokens of a degree sign at this position, `^\circ` or similar.
    pub(crate) fn degree(&self) -> Option<usize> {
        if is_cmd(self.token(0), "circ") {
            return Some(1);
        }
        if !is(self.token(0), '^') {
            return None;
        }
        if is_cmd(self.token(1), "circ") {
            return Some(2);
        }
        (is(self.token(1), '{') && is_cmd(self.token(2), "circ") && is(self.token(3), '}')).then_some(4)
    }

    /// Parses the minutes and seconds of arc after a degree sign of `n` tokens.
    pub(crate) fn arc(&mut self, degrees: Expr, n: usize) -> Option<Expr> {
        let minutes =
            |p: &Self, at: usize| matches!(p.token(at).map(|t| &t.tok), Some(Tok::Num(_))) && is(p.token(at + 1), '\'');
        if !minutes(self, n) || is(self.token(n + 2), '\'') {
            return None;
        }
        self.at += n;
        let mut terms = vec![degrees];
        for part in [60, 3_600] {
            if minutes(self, 0) {
                terms.push(divide(self.number()?, integer(part)));
                while self.eat('\'') {}
            }
        }
        let sum = literal(Expr::Add(terms), self.steps);
        if self.units && self.at >= self.tokens.len() {
            self.unit = Some(Unit::Degree);
            return Some(sum);
        }
        Some(Expr::Call("degree", vec![sum]))
    }
}
