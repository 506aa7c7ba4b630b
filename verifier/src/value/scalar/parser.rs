//! The state of the scalar parser: its position among the tokens.

use crate::steps::Steps;
use crate::value::expr::{Expr, negate};
use crate::value::lex::{MAX_DEPTH, Tok, Token, is_cmd};
use crate::value::unit::Unit;

/// Recursive-descent parser for scalars. Its methods are the rules of the grammar. They are in the other files of this
/// folder.
pub(crate) struct Parser<'a> {
    pub(crate) tokens: &'a [Token],
    pub(crate) at: usize,
    pub(crate) depth: usize,
    pub(crate) steps: &'a Steps,
    /// True if words at the end are parsed as the unit.
    pub(crate) units: bool,
    pub(crate) unit: Option<Unit>,
    /// Number of open bars. If it is not zero, the next bar closes one.
    pub(crate) bars: usize,
}

impl<'a> Parser<'a> {
    pub(crate) fn new(tokens: &'a [Token], steps: &'a Steps) -> Self {
        Parser { tokens, at: 0, depth: 0, steps, units: false, unit: None, bars: 0 }
    }

    pub(crate) fn peek(&self) -> Option<&'a Tok> {
        self.tokens.get(self.at).map(|t| &t.tok)
    }

    pub(crate) fn token(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead)
    }

    pub(crate) fn eat(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(&Tok::Sym(sign));
        self.at += usize::from(found);
        found
    }

    pub(crate) fn eat_cmd(&mut self, name: &str) -> bool {
        let found = is_cmd(self.token(0), name);
        self.at += usize::from(found);
        found
    }

    pub(crate) fn need(&mut self, sign: char) -> Option<()> {
        self.eat(sign).then_some(())
    }

    pub(crate) fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.steps.spend(2)?;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let out = f(self);
        self.depth -= 1;
        out
    }
}

pub(crate) fn signed(negative: bool, e: Expr) -> Expr {
    if negative { negate(e) } else { e }
}

/// Returns the product of the factors.
pub(crate) fn product(mut factors: Vec<Expr>) -> Expr {
    if factors.len() == 1 { factors.remove(0) } else { Expr::Mul(factors) }
}
