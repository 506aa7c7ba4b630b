//! Names with their primes and indices, and functions that are only named.

use super::expr::Expr;
use super::growth::ORDERS;
use super::lex::Tok;
use super::scalar::{Parser, is, shown};

impl Parser<'_> {
    /// A name with its primes and index: `x`, `x_1`, `f'`, `a_{n+1}`.
    pub(super) fn name(&mut self, letter: &str) -> Option<String> {
        let mut name = letter.to_owned();
        loop {
            if self.eat('\'') {
                name.push('\'');
            } else if is(self.token(0), '_') {
                self.at += 1;
                name.push('_');
                name += &self.index()?;
            } else if is(self.token(0), '^') && (is(self.token(1), '\'') || is(self.token(1), '*')) {
                self.at += 2;
                name.push('\'');
            } else if is(self.token(0), '^') && is(self.token(1), '{') && is(self.token(2), '\'') {
                self.at += 2;
                while self.eat('\'') {
                    name.push('\'');
                }
                self.need('}')?;
            } else {
                return Some(name);
            }
        }
    }

    pub(super) fn index(&mut self) -> Option<String> {
        let from = self.at;
        if self.eat('{') {
            self.pass_brace()?;
        } else {
            self.peek()?;
            self.at += 1;
        }
        Some(self.tokens[from..self.at].iter().map(|t| shown(&t.tok)).filter(|t| t != "{" && t != "}").collect())
    }

    /// A variable, or a named function of what follows in brackets.
    pub(super) fn named(&mut self, letter: &str) -> Option<Expr> {
        let name = self.name(letter)?;
        // f^{-1}(x) is the inverse function.
        let inverse = [Tok::Sym('^'), Tok::Sym('{'), Tok::Sym('-'), Tok::Num("1".into()), Tok::Sym('}'), Tok::Sym('(')];
        if ORDERS.contains(&letter) && is(self.token(0), '(') {
            return self.applied(name);
        }
        let functional = matches!(letter, "f" | "g" | "h" | "F" | "G" | "H" | "P" | "Q");
        let ahead = |n: usize| self.token(n).map(|t| &t.tok);
        if functional && (0..inverse.len()).all(|n| ahead(n) == Some(&inverse[n])) {
            self.at += 5;
            return self.applied(format!("{name}^-1"));
        }
        // h(a + b) may be a product; f(...), g(...) and h(x) are not.
        let single = is(self.token(2), ')') || is(self.token(2), ',');
        if is(self.token(0), '(') && (matches!(letter, "f" | "g") || name.ends_with('\'') || (functional && single)) {
            return self.applied(name);
        }
        Some(Expr::Var(name))
    }

    pub(super) fn applied(&mut self, name: String) -> Option<Expr> {
        let args = self.arguments()?;
        Some(Expr::Apply(name, args))
    }

    /// `(a, b, ...)`
    pub(super) fn arguments(&mut self) -> Option<Vec<Expr>> {
        let close = if self.eat('(') { ')' } else { self.need('{').map(|()| '}')? };
        let mut args = vec![self.expr()?];
        while self.eat(',') || self.eat(';') {
            args.push(self.expr()?);
        }
        self.need(close)?;
        Some(args)
    }
}
