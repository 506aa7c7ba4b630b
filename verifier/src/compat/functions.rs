//! Parses functions and their arguments, roots, sums, products, integrals and limits.

use super::number;
use super::terms::{Context, Reader, Term};
use super::token::Kind;
use super::tree::{Operator, Tree, integer, power};
use crate::steps::Rational;

impl Reader<'_> {
    /// Parses a function with its argument, a root, a sum, a product, an integral or a limit.
    pub(super) fn function(&self, at: usize, c: Context) -> Term {
        let token = self.tokens.get(at)?;
        match (token.kind, token.text.as_str()) {
            (Kind::Euler, _) => Some((Tree::Constant("e"), at + 1)),
            (Kind::Function, name) => {
                let (index, exponent, from) = self.scripts(at + 1, c.depth);
                let (argument, end) = self.argument(from, c)?;
                Some((self.called(name, argument, index, exponent)?, end))
            }
            (Kind::Several, name) => {
                let (_, exponent, from) = self.scripts(at + 1, c.depth);
                if !self.is(from, "(") {
                    return None;
                }
                let (arguments, end) = self.several(from + 1, ",", c.depth)?;
                let name = ["gcd", "lcm", "max", "min"].into_iter().find(|n| *n == name)?;
                let call = Tree::Call(name, arguments);
                self.is(end, ")").then(|| (exponent.into_iter().fold(call, power), end + 1))
            }
            (Kind::Sign, "sqrt") => {
                let (mut from, mut root) = (at + 1, None);
                if self.is(from, "[") {
                    let (e, end) = self.inside(from + 1, "]", c.depth)?;
                    (root, from) = (Some(e), end);
                }
                let (base, end) = self.braced(from, c.depth)?;
                let exponent = match root {
                    Some(r) => number::inverse(r),
                    None => Tree::Exact(Rational::new(1.into(), 2.into())),
                };
                Some((power(base, exponent), end))
            }
            (Kind::Sign, "sum" | "prod") => self.repeated(at, c),
            (Kind::Sign, "int") => self.integral(at, c),
            (Kind::Sign, "lim") => self.limit(at, c),
            (Kind::Letter | Kind::Greek | Kind::Other | Kind::Accent, _) => self.applied(at, c.depth),
            _ => None,
        }
    }

    /// Parses index and exponent in either order.
    fn scripts(&self, at: usize, depth: usize) -> (Option<Tree>, Option<Tree>, usize) {
        let (mut index, mut exponent, mut at) = (None, None, at);
        for _ in 0..2 {
            for (sign, slot) in [("_", &mut index), ("^", &mut exponent)] {
                if slot.is_none()
                    && self.is(at, sign)
                    && let Some((e, end)) = self.script(at + 1, depth)
                {
                    *slot = Some(e);
                    at = end;
                }
            }
        }
        (index, exponent, at)
    }

    /// Parses an argument: an expression in round brackets, or all factors up to the next function, sum or relation.
    fn argument(&self, at: usize, c: Context) -> Term {
        if self.is(at, "(")
            && let Some(found) = self.inside(at + 1, ")", c.depth)
        {
            return Some(found);
        }
        self.multiplicative(at, Context { functions: false, depth: c.depth + 1, ..c })
    }

    fn called(&self, name: &str, argument: Tree, index: Option<Tree>, exponent: Option<Tree>) -> Option<Tree> {
        let (name, base) = match name {
            "log" => ("log", Some(index.unwrap_or(integer(10)))),
            "ln" => ("log", index),
            name => (name, None),
        };
        let known = [
            "log", "exp", "sin", "cos", "tan", "csc", "sec", "cot", "arcsin", "arccos", "arctan", "arccsc", "arcsec",
            "arccot", "sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh", "floor", "ceil",
        ];
        let full = match name {
            "arsinh" => "arcsinh",
            "arcosh" => "arccosh",
            "artanh" => "arctanh",
            "Gamma" | "gamma" => return Some(exponent.into_iter().fold(Tree::Call("gamma", vec![argument]), power)),
            "det" => {
                let Tree::Matrix(rows) = argument else { return None };
                return number::determinant(&rows, self.steps);
            }
            n => n,
        };
        let full = known.into_iter().find(|k| *k == full)?;
        let minus = exponent.as_ref() == Some(&integer(-1));
        if minus && let Some(inverse) = known.into_iter().find(|k| k.strip_prefix("arc") == Some(full)) {
            return Some(Tree::Call(inverse, vec![argument]));
        }
        let call = Tree::Call(full, std::iter::once(argument).chain(base).collect());
        Some(exponent.into_iter().fold(call, power))
    }

    /// Parses `f(x)`: a letter before a single atom in brackets, or before several arguments.
    fn applied(&self, at: usize, depth: usize) -> Term {
        if !self.calls(at + 1) {
            return None;
        }
        let (arguments, end) = match self.atom(at + 2, depth + 1) {
            Some((a, end)) if self.is(end, ")") => (vec![a], end),
            _ => self.several(at + 2, ",", depth).filter(|(all, _)| all.len() > 1)?,
        };
        // The name of a function keeps its case.
        let call = Tree::Apply(self.spelled(at, at + 1), arguments);
        self.is(end, ")").then_some((call, end + 1))
    }

    /// Returns true if a round bracket with one atom or several parts opens here. Checking this first avoids parsing
    /// anything twice.
    fn calls(&self, open: usize) -> bool {
        if !self.is(open, "(") {
            return false;
        }
        let Some(close) = self.closes[open] else { return false };
        if self.steps.spend((close - open) as u64 / 4).is_none() {
            return false;
        }
        let (mut level, mut atom) = (0, true);
        for i in open + 1..close {
            match self.kind(i) {
                Some(Kind::Open) => level += 1,
                Some(Kind::Close) => level -= 1,
                Some(Kind::Sign) if level == 0 => match self.text(i) {
                    "," => return true,
                    // An atom contains no operator outside braces.
                    "+" | "-" | "*" | "/" | ":" => atom = false,
                    _ => {}
                },
                _ => {}
            }
        }
        atom
    }

    /// Parses a sum or a product over a range.
    fn repeated(&self, at: usize, c: Context) -> Term {
        let op = if self.is(at, "sum") { Operator::Sum } else { Operator::Product };
        let (mut from, mut start, mut upper) = (at + 1, None, None);
        for _ in 0..2 {
            if start.is_none() && self.is(from, "_") && self.is(from + 1, "{") {
                let (var, middle) = self.expr(from + 2, c.depth + 1)?;
                if !self.is(middle, "=") && !self.is(middle, "==") {
                    return None;
                }
                let (low, end) = self.inside(middle + 1, "}", c.depth)?;
                (start, from) = (Some((var, low)), end);
            } else if upper.is_none() && self.is(from, "^") {
                let (high, end) = self.script(from + 1, c.depth)?;
                (upper, from) = (Some(high), end);
            }
        }
        let ((var, low), high) = (start?, upper?);
        let (body, end) = self.multiplicative(from, Context { functions: true, depth: c.depth + 1, ..c })?;
        matches!(var, Tree::Symbol(..))
            .then(|| (Tree::Bound(op, Box::new(body), Box::new(var), Box::new([low, high])), end))
    }

    fn integral(&self, at: usize, c: Context) -> Term {
        let (low, high, from) = self.scripts(at + 1, c.depth);
        if low.is_some() != high.is_some() {
            return None;
        }
        let (body, end) =
            self.additive(from, Context { functions: true, depth: c.depth + 1, ..c }).unwrap_or((integer(1), from));
        // The differential is already parsed as a factor.
        let mut symbols = Vec::new();
        body.symbols(&mut symbols);
        let name = symbols.into_iter().map(|s| s.0).find(|n| n.len() > 1 && n.starts_with('d'));
        let body = match &name {
            Some(n) => number::replaced(&body, &Tree::Symbol(n.clone(), self.real), &integer(1)),
            None => body,
        };
        let var = Tree::Symbol(name.map_or("x".to_owned(), |n| n[1..].to_owned()), self.real);
        let bound = |op, ends| Tree::Bound(op, Box::new(body), Box::new(var), Box::new(ends));
        Some((
            match (low, high) {
                (Some(low), Some(high)) => bound(Operator::Integral, [low, high]),
                _ => bound(Operator::Primitive, [integer(0), integer(0)]),
            },
            end,
        ))
    }

    fn limit(&self, at: usize, c: Context) -> Term {
        let named = matches!(self.kind(at + 3), Some(Kind::Letter | Kind::Greek | Kind::Other));
        if !self.is(at + 1, "_") || !self.is(at + 2, "{") || !named || !self.is(at + 4, "to") {
            return None;
        }
        let var = Tree::Symbol(self.text(at + 3).to_owned(), self.real);
        let (place, end) = self.inside(at + 5, "}", c.depth)?;
        let (body, end) = self.multiplicative(end, Context { functions: true, depth: c.depth + 1, ..c })?;
        Some((Tree::Bound(Operator::Limit, Box::new(body), Box::new(var), Box::new([place, integer(0)])), end))
    }
}
