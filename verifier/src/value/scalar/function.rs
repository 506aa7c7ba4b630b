//! Parses function names and their arguments, square roots and other roots, and fractions.

use crate::steps::Rational;
use crate::value::expr::{
    Binder, Expr, LISTED, divide, function, integer, invert, is_function, number as rational, power, var,
};
use crate::value::lex::{Tok, is_greek};
use crate::value::scalar::numeral::number;
use crate::value::scalar::parser::{Parser, product};

/// Returns true if a command can begin a factor.
pub(crate) fn begins(name: &str) -> bool {
    const OTHERS: [&str; 17] = [
        "frac", "binom", "sqrt", "pi", "infty", "lfloor", "lceil", "sum", "prod", "int", "lim", "Vert", "sqrt[",
        "iint", "partial", "nabla", "imath",
    ];
    OTHERS.contains(&name)
        || is_function(name)
        || is_greek(name)
        || name.starts_with("name ")
        || (name.starts_with("begin ") && name.ends_with("matrix"))
        || name == "begin array"
}

impl Parser<'_> {
    /// Parses a run of letters: a function, a constant, or variables side by side.
    pub(crate) fn word(&mut self, word: &str) -> Option<Expr> {
        match word {
            "pi" => return Some(var("pi")),
            "inf" | "infinity" | "infty" | "oo" => return Some(var("infty")),
            "sqrt" => return self.root(),
            _ => {}
        }
        if let Some(f) = function(word) {
            return self.function(f);
        }
        if is_greek(word) && word.len() > 2 {
            return self.named(word);
        }
        let letters: Vec<char> = word.chars().collect();
        if letters.len() == 1 {
            return self.named(word);
        }
        if letters.len() > 3 {
            return None;
        }
        let factors = letters[..letters.len() - 1].iter().map(|c| var(&c.to_string())).collect::<Vec<_>>();
        let last = self.named(&letters[letters.len() - 1].to_string())?;
        // ab^2 squares only b.
        let last = self.powered(last)?;
        Some(product(factors.into_iter().chain([last]).collect()))
    }

    fn powered(&mut self, base: Expr) -> Option<Expr> {
        if self.degree().is_none() && self.eat('^') {
            Some(power(base, self.deeper(Self::exponent)?))
        } else {
            Some(base)
        }
    }

    fn root(&mut self) -> Option<Expr> {
        let degree = if self.eat('[') { self.bracket(']')? } else { integer(2) };
        let x = match (self.peek()?, self.token(1)) {
            // In \sqrt(x)(y), only the first bracket is the argument.
            (Tok::Num(_), _) => self.number()?,
            _ => self.argument()?,
        };
        Some(power(x, invert(degree)))
    }

    /// Parses a command that stands for a value.
    pub(crate) fn command(&mut self, name: &str) -> Option<Expr> {
        match name {
            "frac" => self.fraction(),
            "binom" => {
                let n = self.argument()?;
                Some(Expr::Call("binom", vec![n, self.argument()?]))
            }
            "sqrt" => self.root(),
            "pi" => Some(var("pi")),
            "infty" => Some(var("infty")),
            "imath" => Some(var("i")),
            "lfloor" => self.enclosed("rfloor", "floor"),
            "lceil" => self.enclosed("rceil", "ceil"),
            "sum" | "prod" => self.series(if name == "sum" { Binder::Sum } else { Binder::Product }),
            "int" => self.integral(),
            "lim" => self.limit(),
            n if is_greek(n) => self.named(n),
            n if n.starts_with("name ") => self.named(&n[5..]),
            n if n.starts_with("begin ") => self.matrix(&n[6..]),
            n => self.function(function(n)?),
        }
    }

    /// Parses `\frac{a}{b}`, `\frac12`, `\frac1{2}`, `\frac{d}{dx} f`.
    fn fraction(&mut self) -> Option<Expr> {
        if let Some(d) = self.differential_quotient() {
            return d;
        }
        if let Some(Tok::Num(text)) = self.peek() {
            let digit = |i: usize| text.get(i..i + 1).and_then(number);
            self.at += 1;
            return match text.len() {
                1 => Some(divide(digit(0)?, self.argument()?)),
                2 => Some(divide(digit(0)?, digit(1)?)),
                _ => None,
            };
        }
        let n = self.argument()?;
        // Rejects \frac{a}12, whose second argument would be only the 1.
        if let Some(Tok::Num(text)) = self.peek()
            && text.len() > 1
        {
            return None;
        }
        Some(divide(n, self.argument()?))
    }

    fn enclosed(&mut self, close: &str, function: &'static str) -> Option<Expr> {
        let e = self.expr()?;
        self.eat_cmd(close).then_some(Expr::Call(function, vec![e]))
    }

    /// Parses `\sin x`, `\sin^2(x)`, `\log_2 8`, `\ln 3x`, `\max(1, 2)`.
    fn function(&mut self, name: &'static str) -> Option<Expr> {
        if LISTED.contains(&name) {
            return Some(Expr::Call(name, self.arguments()?));
        }
        let base = if self.eat('_') { Some(self.argument()?) } else { None };
        let exponent = if self.degree().is_none() && self.eat('^') { Some(self.deeper(Self::exponent)?) } else { None };
        let base = if base.is_none() && self.eat('_') { Some(self.argument()?) } else { base };
        let argument = self.operand()?;
        let argument = match self.degree() {
            Some(n) => {
                self.at += n;
                Expr::Call("degree", vec![argument])
            }
            None => argument,
        };
        let value = match (name, base) {
            ("log" | "lg", base) => Expr::Call("log", vec![base.unwrap_or(integer(10)), argument]),
            ("ln", Some(_)) | (_, Some(_)) => return None,
            (name, None) => call(name, argument),
        };
        Some(match exponent {
            // sin^{-1} is the inverse function.
            Some(Expr::Num { value: n, .. }) if n == Rational::from_integer((-1).into()) => match value {
                Expr::Call(f, a) => match (inverse(f), a.as_slice()) {
                    (Some(arc), [x]) => call(arc, x.clone()),
                    _ => power(Expr::Call(f, a), rational(n)),
                },
                value => power(value, rational(n)),
            },
            Some(e) => power(value, e),
            None => value,
        })
    }

    /// Parses the argument of a function: brackets, or a product of letters and constants.
    fn operand(&mut self) -> Option<Expr> {
        Some(match self.peek()? {
            Tok::Sym('(' | '[' | '{') => self.bracketed()?,
            _ => {
                let mut factors = vec![self.power()?];
                while matches!(self.peek(), Some(Tok::Word(w)) if w.chars().count() == 1)
                    || matches!(self.peek(), Some(Tok::Cmd(c)) if matches!(c.as_str(), "pi" | "sqrt" | "frac") || is_greek(c))
                {
                    factors.push(self.power()?);
                }
                product(factors)
            }
        })
    }
}

/// Returns the inverse of a circular or hyperbolic function.
fn inverse(name: &str) -> Option<&'static str> {
    const CIRCULAR: [&str; 9] = ["sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"];
    CIRCULAR.contains(&name).then(|| function(&format!("arc{name}")))?
}

fn call(name: &'static str, argument: Expr) -> Expr {
    match name {
        "exp" => power(var("e"), argument),
        "log" | "lg" => Expr::Call("log", vec![integer(10), argument]),
        name => Expr::Call(name, vec![argument]),
    }
}
