//! Parses tokens to scalar expressions by recursive descent. The grammar is in the documentation of `parse`. This file
//! contains expressions, names, and functions of which only the name is known. Known functions are in `function`; sums,
//! integrals and matrices are in `binder`.

pub(crate) mod binder;
pub(crate) mod function;
pub(crate) mod numeral;
pub(crate) mod parser;
pub(crate) mod quantity;

use crate::steps::Steps;
use crate::value::expr::{Expr, divide, integer, is_constant, is_function, negate, power};
use crate::value::lex::{Tok, Token, is, shown};
use crate::value::scalar::parser::{Parser, product, signed};
use crate::value::unit::{Unit, trailing};

/// Parses all of `tokens` as one expression without a unit.
pub(crate) fn scalar(tokens: &[Token], steps: &Steps) -> Option<Expr> {
    let mut p = Parser::new(tokens, steps);
    let e = p.expr()?;
    (p.at == tokens.len() && p.unit.is_none()).then_some(e)
}

/// Parses all of `tokens` as one expression, and the unit around it.
pub(crate) fn scalar_with_unit(tokens: &[Token], steps: &Steps) -> Option<(Expr, Option<Unit>)> {
    let mut p = Parser { units: true, ..Parser::new(tokens, steps) };
    let e = p.expr()?;
    // Only a single number can count things: "2 x 3 matrices" does not mean six matrices.
    let counted = matches!(&e, Expr::Num { .. }) || !matches!(&p.unit, Some(u @ Unit::Thing(_)) if !u.is_silent());
    (p.at == tokens.len() && counted).then_some((e, p.unit))
}

impl Parser<'_> {
    /// Parses `expr := term (('+' | '-') term)*`.
    pub(crate) fn expr(&mut self) -> Option<Expr> {
        self.deeper(|p| {
            let mut terms = vec![p.term()?];
            while matches!(p.peek(), Some(Tok::Sym('+' | '-'))) {
                let negative = p.eat('-') || !p.eat('+');
                terms.push(signed(negative, p.term()?));
            }
            Some(if terms.len() == 1 { terms.remove(0) } else { Expr::Add(terms) })
        })
    }

    /// Parses `term := sign* factor (('*' | '/')? factor)*`. Factors side by side are a product. A unit may follow.
    pub(crate) fn term(&mut self) -> Option<Expr> {
        let mut negative = self.sign();
        self.currency();
        if self.unit.is_some() && self.eat('-') {
            negative = !negative;
        }
        let mut factors = vec![self.mixed()?];
        loop {
            self.steps.spend(1)?;
            if self.scaled(&mut factors) {
                continue;
            }
            if self.trailing_unit() {
                break;
            }
            // The multiplication sign of 5 x 10^3.
            let cross = matches!(self.token(0), Some(Token { tok: Tok::Word(w), spaced: true }) if w == "x" || w == "X")
                && matches!(self.token(1).map(|t| &t.tok), Some(Tok::Num(_)));
            self.at += usize::from(cross);
            if cross || self.eat('*') {
                let sign = self.sign();
                factors.push(signed(sign, self.mixed()?));
            } else if self.eat('/') {
                let sign = self.sign();
                let by = self.mixed()?;
                factors.push(signed(sign, power(by, integer(-1))));
            } else if self.begins_factor() {
                factors.push(self.power()?);
            } else {
                break;
            }
        }
        let value = product(factors);
        Some(if negative { negate(value) } else { value })
    }

    pub(crate) fn sign(&mut self) -> bool {
        let mut negative = false;
        loop {
            if self.eat('-') {
                negative = !negative;
            } else if !self.eat('+') {
                return negative;
            }
        }
    }

    fn begins_factor(&self) -> bool {
        match self.peek() {
            // Two numbers side by side are not a product, unless the first is a factorial or ends with a bracket.
            Some(Tok::Num(_)) if self.at > 0 => {
                let (before, spaced) = (self.tokens.get(self.at - 1), self.token(0).is_some_and(|t| t.spaced));
                is(before, '!') || (is(before, ')') && !spaced)
            }
            Some(Tok::Num(_)) => false,
            Some(Tok::Word(_)) => true,
            Some(Tok::Text(t)) => is_function(t.trim()),
            Some(Tok::Cmd(c)) if c == "Vert" => self.bars == 0,
            Some(Tok::Cmd(c)) => function::begins(c),
            Some(Tok::Sym('|')) => self.bars == 0,
            Some(Tok::Sym(c)) => matches!(c, '(' | '[' | '{'),
            None => false,
        }
    }

    /// Parses `power := postfix ('^' exponent)?`.
    pub(crate) fn power(&mut self) -> Option<Expr> {
        let base = self.postfix()?;
        if let Some(n) = self.degree() {
            if let Some(arc) = self.arc(base.clone(), n) {
                return Some(arc);
            }
            // A degree sign at the end of everything is the unit.
            let ends = self.depth <= 1 && self.at + n >= self.tokens.len();
            if self.units && (ends || trailing(&self.tokens[self.at..], true).is_some()) {
                return Some(base);
            }
            self.at += n;
            return Some(Expr::Call("degree", vec![base]));
        }
        if self.peek() != Some(&Tok::Sym('^')) {
            return Some(base);
        }
        self.at += 1;
        let exponent = self.deeper(Self::exponent)?;
        let mut base = power(base, exponent);
        while self.eat('!') {
            base = Expr::Call("factorial", vec![base]);
        }
        Some(base)
    }

    pub(crate) fn exponent(&mut self) -> Option<Expr> {
        if self.eat('{') {
            return self.bracket('}');
        }
        if self.eat('-') {
            return self.deeper(Self::exponent).map(negate);
        }
        self.power()
    }

    pub(crate) fn postfix(&mut self) -> Option<Expr> {
        let mut e = self.primary()?;
        loop {
            if self.eat('!') {
                e = Expr::Call("factorial", vec![e]);
            } else if self.peek() == Some(&Tok::Sym('%')) && !(self.units && self.at + 1 == self.tokens.len()) {
                self.at += 1;
                e = divide(e, integer(100));
            } else {
                return Some(e);
            }
        }
    }

    /// Parses the content of the brackets that open here.
    pub(crate) fn bracketed(&mut self) -> Option<Expr> {
        let close = [('(', ')'), ('[', ']'), ('{', '}')].into_iter().find(|b| self.eat(b.0))?.1;
        self.bracket(close)
    }

    pub(crate) fn bracket(&mut self, close: char) -> Option<Expr> {
        let bars = std::mem::take(&mut self.bars);
        let mut e = self.expr()?;
        // A comma after the first entry makes the brackets a vector.
        if close == ')' && is(self.token(0), ',') {
            let mut row = vec![e];
            while self.eat(',') {
                row.push(self.expr()?);
            }
            e = Expr::Matrix(vec![row]);
        }
        self.bars = bars;
        self.need(close)?;
        Some(e)
    }

    /// Parses the argument of a command: a group, or one digit or letter.
    pub(crate) fn argument(&mut self) -> Option<Expr> {
        match self.peek()? {
            Tok::Num(_) => self.number(),
            Tok::Word(w) if w.chars().count() == 1 => self.primary(),
            Tok::Sym('(' | '{') => self.bracketed(),
            Tok::Cmd(_) => self.primary(),
            _ => None,
        }
    }

    fn primary(&mut self) -> Option<Expr> {
        self.deeper(|p| match p.peek()? {
            Tok::Num(_) => p.number(),
            Tok::Word(w) => {
                p.at += 1;
                p.word(w)
            }
            Tok::Cmd(c) => {
                p.at += 1;
                p.command(c)
            }
            Tok::Text(t) if is_function(t.trim()) => {
                p.at += 1;
                p.word(t.trim())
            }
            Tok::Sym('{') if is(p.token(1), '}') => {
                p.at += 2;
                p.primary()
            }
            Tok::Sym('(' | '[' | '{') => p.bracketed(),
            Tok::Sym('|') => {
                p.at += 1;
                p.bars += 1;
                let e = p.expr()?;
                p.bars -= 1;
                p.need('|')?;
                Some(Expr::Call("abs", vec![e]))
            }
            _ => None,
        })
    }
}

impl Parser<'_> {
    /// Reads a name with its primes and index: `x`, `x_1`, `f'`, `a_{n+1}`.
    pub(crate) fn name(&mut self, letter: &str) -> Option<String> {
        let mut name = letter.to_owned();
        loop {
            if self.eat('\'') {
                name.push('\'');
            } else if is(self.token(0), '_') {
                self.at += 1;
                name.push('_');
                let index = self.tokens_of_argument()?;
                name.extend(index.iter().map(|t| shown(&t.tok)).filter(|t| t != "{" && t != "}"));
            } else {
                return Some(name);
            }
        }
    }

    /// Parses a variable, or a named function of the arguments in brackets.
    pub(crate) fn named(&mut self, letter: &str) -> Option<Expr> {
        let name = self.name(letter)?;
        let functional = matches!(letter, "f" | "g" | "h" | "F" | "G" | "H" | "P" | "Q");
        // h(a + b) and \pi(16) may be products. f(...), g(...), h(x) and y(0) are function calls.
        let number = matches!(self.token(1).map(|t| &t.tok), Some(Tok::Num(_))) && !is_constant(&name);
        let single = (functional && is(self.token(2), ',')) || ((functional || number) && is(self.token(2), ')'));
        if is(self.token(0), '(') && (matches!(letter, "f" | "g") || name.ends_with('\'') || single) {
            return Some(Expr::Apply(name, self.arguments()?));
        }
        Some(Expr::Var(name))
    }

    /// Parses `(a, b, ...)`.
    pub(crate) fn arguments(&mut self) -> Option<Vec<Expr>> {
        let close = if self.eat('(') { ')' } else { self.need('{').map(|()| '}')? };
        let mut args = vec![self.expr()?];
        while self.eat(',') || self.eat(';') {
            args.push(self.expr()?);
        }
        self.need(close)?;
        Some(args)
    }
}
