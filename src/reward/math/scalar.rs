//! Tokens to scalar expressions, by recursive descent.

use num_bigint::BigInt;

use super::expr::{BigRational, Expr, integer, invert, negate};
use super::lex::{Tok, Token};
use super::parse::{MAX_DEPTH, Value};
use super::unit;

/// Longest run of digits.
const MAX_DIGITS: usize = 1_000;
/// Largest power of ten in `1e5`.
const MAX_POWER_OF_TEN: u32 = 400;

/// Commands that write a fraction.
const FRACTIONS: [&str; 4] = ["frac", "dfrac", "tfrac", "cfrac"];

/// Names that stand for themselves.
pub(super) const GREEK: [&str; 26] = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "varepsilon",
    "zeta",
    "eta",
    "theta",
    "vartheta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "varphi",
    "chi",
    "psi",
    "omega",
    "Delta",
    "Omega",
];

/// Functions of one argument, by their names in LaTeX and in plain text.
pub(super) const FUNCTIONS: [&str; 17] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "lg",
    "exp", "abs",
];

/// Whether a token is this sign.
pub(super) fn is(token: Option<&Token>, sign: char) -> bool {
    token.is_some_and(|t| t.tok == Tok::Sym(sign))
}

/// All of `tokens` as one expression.
pub(super) fn scalar(tokens: &[Token]) -> Option<Expr> {
    let mut p = Parser { tokens, at: 0, depth: 0, units: false, unit: None };
    let e = p.expr()?;
    (p.at == tokens.len()).then_some(e)
}

/// All of `tokens` as one expression and the words after it.
pub(super) fn scalar_with_unit(tokens: &[Token]) -> Option<Value> {
    let mut p = Parser { tokens, at: 0, depth: 0, units: true, unit: None };
    let e = p.expr()?;
    (p.at == tokens.len()).then_some(Value::Scalar(e, p.unit))
}

fn times(a: Expr, b: Expr) -> Expr {
    Expr::Mul(vec![a, b])
}

struct Parser<'a> {
    tokens: &'a [Token],
    at: usize,
    depth: usize,
    /// Words after the expression are its unit.
    units: bool,
    unit: Option<String>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Tok> {
        self.tokens.get(self.at).map(|t| &t.tok)
    }

    fn eat(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(&Tok::Sym(sign));
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, sign: char) -> Option<()> {
        self.eat(sign).then_some(())
    }

    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let out = f(self);
        self.depth -= 1;
        out
    }

    fn expr(&mut self) -> Option<Expr> {
        self.deeper(|p| {
            let mut terms = vec![p.term()?];
            loop {
                if p.eat('+') {
                    terms.push(p.term()?);
                } else if p.eat('-') {
                    terms.push(negate(p.term()?));
                } else {
                    break;
                }
            }
            Some(if terms.len() == 1 { terms.remove(0) } else { Expr::Add(terms) })
        })
    }

    fn term(&mut self) -> Option<Expr> {
        if self.eat('-') {
            return self.deeper(Self::term).map(negate);
        }
        if self.eat('+') {
            return self.deeper(Self::term);
        }
        let mut factors = vec![self.power()?];
        loop {
            if self.eat('*') {
                factors.push(self.signed_power()?);
            } else if self.eat('/') || self.eat(':') {
                factors.push(invert(self.signed_power()?));
            } else if factors.iter().any(Expr::has_numbers) && self.trailing_unit() {
                break;
            } else if self.begins_factor() {
                let mixed = self.mixed_fraction(&factors);
                let f = self.power()?;
                match mixed {
                    true => factors = vec![Expr::Add(vec![factors.remove(0), f])],
                    false => factors.push(f),
                }
            } else {
                break;
            }
        }
        Some(if factors.len() == 1 { factors.remove(0) } else { Expr::Mul(factors) })
    }

    fn signed_power(&mut self) -> Option<Expr> {
        if self.eat('-') { self.deeper(Self::signed_power).map(negate) } else { self.power() }
    }

    /// Whether a factor without a sign before it follows.
    fn begins_factor(&self) -> bool {
        match self.peek() {
            Some(Tok::Cmd(c)) => !matches!(c.as_str(), "rfloor" | "rceil" | "rangle" | "end"),
            Some(Tok::Word(_) | Tok::Sym('(' | '{' | '[')) => true,
            // Two numbers side by side are no product; 1 1/2 is a mixed number.
            Some(Tok::Num(_)) => {
                self.plain_mixed()
                    || !matches!(self.tokens.get(self.at.wrapping_sub(1)).map(|t| &t.tok), Some(Tok::Num(_)))
            }
            _ => false,
        }
    }

    fn number_at(&self, at: usize) -> Option<&'a str> {
        match self.tokens.get(at).map(|t| &t.tok) {
            Some(Tok::Num(n)) if n.bytes().all(|b| b.is_ascii_digit()) => Some(n),
            _ => None,
        }
    }

    /// `1 1/2` at the second number.
    fn plain_mixed(&self) -> bool {
        let spaced = self.tokens.get(self.at).is_some_and(|t| t.spaced);
        let parts = [self.at.wrapping_sub(1), self.at, self.at + 2].map(|i| self.number_at(i).is_some());
        spaced && parts == [true; 3] && is(self.tokens.get(self.at + 1), '/') && self.at == 1 + self.sign_before()
    }

    /// Tokens of a sign before the number that a mixed number begins with.
    fn sign_before(&self) -> usize {
        usize::from(matches!(self.tokens.first().map(|t| &t.tok), Some(Tok::Sym('-' | '+'))))
    }

    /// `1\frac{1}{2}` at its fraction, or `1 1/2` at its second number: a sum, not a product.
    fn mixed_fraction(&self, factors: &[Expr]) -> bool {
        let whole = matches!(factors, [Expr::Num { value, decimals: None }] if value.is_integer());
        let tok = |k: usize| self.tokens.get(self.at + k).map(|t| &t.tok);
        let of_digits =
            |from: usize, to: usize| (from..=to).all(|k| matches!(tok(k), Some(Tok::Sym('{' | '}') | Tok::Num(_))));
        match tok(0) {
            Some(Tok::Cmd(c)) if FRACTIONS.contains(&c.as_str()) => {
                whole && if tok(1) == Some(&Tok::Sym('{')) { of_digits(1, 6) } else { of_digits(1, 1) }
            }
            _ => whole && self.plain_mixed(),
        }
    }

    /// Takes the words at the end of the expression as its unit.
    fn trailing_unit(&mut self) -> bool {
        if self.units && self.depth <= 1 {
            self.unit = unit::read(&self.tokens[self.at..]);
        }
        if self.unit.is_some() {
            self.at = self.tokens.len();
        }
        self.unit.is_some()
    }

    fn power(&mut self) -> Option<Expr> {
        let base = self.postfix()?;
        let degree = |p: &Self| match p.tokens.get(p.at + 1).map(|t| &t.tok) {
            Some(Tok::Sym('o')) => true,
            Some(Tok::Sym('{')) => is(p.tokens.get(p.at + 2), 'o'),
            _ => false,
        };
        if self.peek() != Some(&Tok::Sym('^')) || degree(self) {
            return Some(base);
        }
        self.at += 1;
        let exponent = self.deeper(Self::exponent)?;
        Some(Expr::Pow(Box::new(base), Box::new(exponent)))
    }

    fn exponent(&mut self) -> Option<Expr> {
        if self.eat('{') {
            let e = self.expr()?;
            self.need('}')?;
            return Some(e);
        }
        if self.eat('-') {
            return self.deeper(Self::exponent).map(negate);
        }
        self.power()
    }

    fn postfix(&mut self) -> Option<Expr> {
        let mut e = self.primary()?;
        loop {
            if self.eat('!') {
                e = Expr::Call("factorial", vec![e]);
            } else if self.peek() == Some(&Tok::Sym('%')) && self.at + 1 < self.tokens.len() {
                self.at += 1;
                e = Expr::Mul(vec![e, invert(integer(100))]);
            } else {
                return Some(e);
            }
        }
    }

    fn bracket(&mut self, close: char) -> Option<Expr> {
        let e = self.expr()?;
        self.need(close)?;
        Some(e)
    }

    /// The argument of a command: a group, or one digit or letter.
    fn argument(&mut self) -> Option<Expr> {
        if self.eat('{') {
            return self.bracket('}');
        }
        match self.peek()? {
            Tok::Num(_) => self.number(),
            Tok::Word(w) if w.chars().count() == 1 => {
                self.at += 1;
                Some(Expr::Var(w.clone()))
            }
            Tok::Sym('(') => {
                self.at += 1;
                self.bracket(')')
            }
            Tok::Cmd(_) => self.primary(),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Expr> {
        let Some(Tok::Num(text)) = self.peek() else { return None };
        self.at += 1;
        let n = number(text)?;
        if self.eat('_') {
            let base = match self.tokens.get(self.at..self.at + 3) {
                Some([a, Token { tok: Tok::Text(t), .. }, b]) if is(Some(a), '{') && is(Some(b), '}') => {
                    let base = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
                        .iter()
                        .position(|w| w == t)?;
                    self.at += 3;
                    integer(base as i64 + 2)
                }
                _ => self.argument()?,
            };
            return Some(Expr::Call("base", vec![n, base]));
        }
        Some(n)
    }

    fn primary(&mut self) -> Option<Expr> {
        self.deeper(|p| match p.peek()? {
            Tok::Num(_) => {
                let mixed = p.at > 0 && p.plain_mixed();
                let n = p.number()?;
                if mixed && p.eat('/') {
                    return Some(times(n, invert(p.number()?)));
                }
                Some(n)
            }
            Tok::Word(w) => {
                p.at += 1;
                p.word(w)
            }
            Tok::Cmd(c) => {
                p.at += 1;
                p.command(c)
            }
            Tok::Sym('(') => {
                p.at += 1;
                p.bracket(')')
            }
            Tok::Sym('[') => {
                p.at += 1;
                p.bracket(']')
            }
            Tok::Sym('{') => {
                p.at += 1;
                p.bracket('}')
            }
            Tok::Sym('|') => {
                p.at += 1;
                let e = p.bracket('|')?;
                Some(Expr::Call("abs", vec![e]))
            }
            _ => None,
        })
    }

    /// A run of letters: a function, a constant, or variables side by side.
    fn word(&mut self, word: &str) -> Option<Expr> {
        if FUNCTIONS.contains(&word)
            || matches!(word, "sqrt" | "pi" | "infinity" | "infty" | "inf")
            || GREEK.contains(&word)
        {
            return self.command(if word.starts_with("inf") { "infty" } else { word });
        }
        let letters: Vec<char> = word.chars().collect();
        if letters.len() > 3 {
            return None;
        }
        let mut factors: Vec<Expr> = letters.iter().map(|c| Expr::Var(c.to_string())).collect();
        if self.eat('_') {
            let index = self.subscript()?;
            let last = factors.pop()?;
            let Expr::Var(name) = last else { return None };
            factors.push(Expr::Var(format!("{name}_{index}")));
        }
        // x(y) and f(x) are products here: the same on both sides, so equality is not touched.
        let last = factors.pop()?;
        if factors.is_empty() {
            return Some(last);
        }
        // ab^2 squares b alone.
        let last = match self.eat('^') {
            true => Expr::Pow(Box::new(last), Box::new(self.deeper(Self::exponent)?)),
            false => last,
        };
        factors.push(last);
        Some(Expr::Mul(factors))
    }

    fn subscript(&mut self) -> Option<String> {
        let from = self.at;
        if self.eat('{') {
            while !self.eat('}') {
                self.peek()?;
                self.at += 1;
            }
        } else {
            self.peek()?;
            self.at += 1;
        }
        Some(format!(
            "{:?}",
            self.tokens[from..self.at]
                .iter()
                .map(|t| &t.tok)
                .filter(|t| !matches!(t, Tok::Sym('{' | '}')))
                .collect::<Vec<_>>()
        ))
    }

    fn command(&mut self, name: &str) -> Option<Expr> {
        match name {
            name if FRACTIONS.contains(&name) => {
                if let Some((n, d)) = self.digit_fraction() {
                    return Some(times(n, invert(d)));
                }
                let n = self.argument()?;
                Some(times(n, invert(self.argument()?)))
            }
            "binom" | "dbinom" | "tbinom" => {
                let n = self.argument()?;
                Some(Expr::Call("binom", vec![n, self.argument()?]))
            }
            "sqrt" => {
                let degree = if self.eat('[') { self.bracket(']')? } else { integer(2) };
                let x = self.argument()?;
                Some(Expr::Pow(Box::new(x), Box::new(invert(degree))))
            }
            "pi" => Some(Expr::Var("pi".into())),
            "infty" => Some(Expr::Var("infty".into())),
            "lfloor" => self.enclosed("rfloor", "floor"),
            "lceil" => self.enclosed("rceil", "ceil"),
            "max" | "min" => {
                self.need('(')?;
                let mut args = vec![self.expr()?];
                while self.eat(',') {
                    args.push(self.expr()?);
                }
                self.need(')')?;
                Some(Expr::Call(if name == "max" { "max" } else { "min" }, args))
            }
            n if GREEK.contains(&n) => Some(Expr::Var(n.to_owned())),
            n => self.function(FUNCTIONS.iter().find(|f| **f == n)?),
        }
    }

    /// `\frac12`, `\frac1{2}`: a digit is an argument of its own.
    fn digit_fraction(&mut self) -> Option<(Expr, Expr)> {
        let text = self.number_at(self.at)?;
        let mut digits = text.chars().map(|c| integer(i64::from(c.to_digit(10).unwrap_or(0))));
        match text.len() {
            1 => {
                self.at += 1;
                Some((digits.next()?, self.argument()?))
            }
            2 => {
                self.at += 1;
                Some((digits.next()?, digits.next()?))
            }
            _ => None,
        }
    }

    fn enclosed(&mut self, close: &str, function: &'static str) -> Option<Expr> {
        let e = self.expr()?;
        match self.peek() {
            Some(Tok::Cmd(c)) if c == close => {
                self.at += 1;
                Some(Expr::Call(function, vec![e]))
            }
            _ => None,
        }
    }

    /// `\sin x`, `\sin^2(x)`, `\log_2 8`, `\ln 3x`.
    fn function(&mut self, name: &'static str) -> Option<Expr> {
        let base = if self.eat('_') { Some(self.argument()?) } else { None };
        let exponent = if self.eat('^') { Some(self.deeper(Self::exponent)?) } else { None };
        let argument = match self.peek()? {
            Tok::Sym('(') => {
                self.at += 1;
                self.bracket(')')?
            }
            Tok::Sym('{') => {
                self.at += 1;
                self.bracket('}')?
            }
            _ => {
                let mut factors = vec![self.power()?];
                while matches!(self.peek(), Some(Tok::Word(w)) if w.chars().count() == 1)
                    || matches!(self.peek(), Some(Tok::Cmd(c)) if c == "pi" || GREEK.contains(&c.as_str()))
                {
                    factors.push(self.power()?);
                }
                if factors.len() == 1 { factors.remove(0) } else { Expr::Mul(factors) }
            }
        };
        let degrees = self.peek() == Some(&Tok::Sym('^')) || self.peek() == Some(&Tok::Sym('o'));
        let argument = match degrees {
            true => {
                self.eat('^');
                let braced = self.eat('{');
                self.need('o')?;
                if braced {
                    self.need('}')?;
                }
                Expr::Call("degree", vec![argument])
            }
            false => argument,
        };
        let call = match (name, base) {
            ("exp", None) => Expr::Pow(Box::new(Expr::Var("e".into())), Box::new(argument)),
            ("log" | "lg", base) => Expr::Call("log", vec![base.unwrap_or(integer(10)), argument]),
            (_, Some(_)) => return None,
            (name, None) => Expr::Call(name, vec![argument]),
        };
        Some(match exponent {
            // sin^{-1} is the inverse function.
            Some(Expr::Num { value, .. }) if value == BigRational::from_integer((-1).into()) => match call {
                Expr::Call("sin", a) => Expr::Call("arcsin", a),
                Expr::Call("cos", a) => Expr::Call("arccos", a),
                Expr::Call("tan", a) => Expr::Call("arctan", a),
                _ => return None,
            },
            Some(e) => Expr::Pow(Box::new(call), Box::new(e)),
            None => call,
        })
    }
}

/// The number a token writes.
fn number(text: &str) -> Option<Expr> {
    let (mantissa, exponent) = text.split_once('e').map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    if mantissa.len() > MAX_DIGITS {
        return None;
    }
    let digits = format!("{whole}{}", fraction.unwrap_or(""));
    let decimals = fraction.map(|f| f.len() as u32);
    let mut value = BigRational::new(digits.parse::<BigInt>().ok()?, BigInt::from(10).pow(decimals.unwrap_or(0)));
    if let Some(e) = exponent {
        let e: i32 = e.parse().ok()?;
        if e.unsigned_abs() > MAX_POWER_OF_TEN {
            return None;
        }
        value *= BigRational::from_integer(10.into()).pow(e);
        return Some(Expr::Num { value, decimals: None });
    }
    Some(Expr::Num { value, decimals })
}
