//! Tokens to scalar expressions, by recursive descent. The grammar stands at the head of `parse`; functions,
//! sums, integrals and matrices are read in `function`.

use num_bigint::BigInt;

use super::expr::{Expr, divide, integer, negate, number as rational, power};
use super::lex::{Tok, Token};
use super::parse::MAX_DEPTH;
use super::unit::{self, Part, Unit};
use super::{Rational, Steps, number_words};

/// Longest run of digits.
const MAX_DIGITS: usize = 1_500;
/// Largest power of ten in `1e5`.
const MAX_POWER_OF_TEN: i32 = 2_000;

/// Names that stand for themselves.
pub(super) const GREEK: [&str; 29] = [
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi",
    "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Delta", "Omega", "Sigma", "Gamma", "Lambda",
    "Phi", "ell",
];

/// Whether a token is this sign.
pub(super) fn is(token: Option<&Token>, sign: char) -> bool {
    token.is_some_and(|t| t.tok == Tok::Sym(sign))
}

/// Whether a token is this command.
pub(super) fn is_cmd(token: Option<&Token>, name: &str) -> bool {
    token.is_some_and(|t| matches!(&t.tok, Tok::Cmd(c) if c == name))
}

/// All of `tokens` as one expression without a unit.
pub(super) fn scalar(tokens: &[Token], steps: &Steps) -> Option<Expr> {
    let mut p = Parser::new(tokens, steps);
    let e = p.expr()?;
    (p.at == tokens.len() && p.unit.is_none()).then_some(e)
}

/// All of `tokens` as one expression and the unit around it.
pub(super) fn scalar_with_unit(tokens: &[Token], steps: &Steps) -> Option<(Expr, Option<Unit>)> {
    let mut p = Parser { units: true, ..Parser::new(tokens, steps) };
    let e = p.expr()?;
    (p.at == tokens.len()).then_some((e, p.unit))
}

pub(super) struct Parser<'a> {
    pub(super) tokens: &'a [Token],
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) steps: &'a Steps,
    /// Words at the end are the unit.
    units: bool,
    unit: Option<Unit>,
    /// Inside bars: the next bar closes.
    pub(super) bars: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(tokens: &'a [Token], steps: &'a Steps) -> Self {
        Parser { tokens, at: 0, depth: 0, steps, units: false, unit: None, bars: 0 }
    }

    pub(super) fn peek(&self) -> Option<&'a Tok> {
        self.tokens.get(self.at).map(|t| &t.tok)
    }

    pub(super) fn token(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead)
    }

    pub(super) fn eat(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(&Tok::Sym(sign));
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_cmd(&mut self, name: &str) -> bool {
        let found = is_cmd(self.token(0), name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn need(&mut self, sign: char) -> Option<()> {
        self.eat(sign).then_some(())
    }

    pub(super) fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.steps.spend(2)?;
        if self.depth > MAX_DEPTH {
            return None;
        }
        self.depth += 1;
        let out = f(self);
        self.depth -= 1;
        out
    }

    /// `expr := term (('+' | '-') term)*`
    pub(super) fn expr(&mut self) -> Option<Expr> {
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

    /// `term := sign* factor (('*' | '/')? factor)*`, juxtaposition is a product; the unit may follow.
    pub(super) fn term(&mut self) -> Option<Expr> {
        if self.eat('-') {
            return self.deeper(Self::term).map(negate);
        }
        if self.eat('+') {
            return self.deeper(Self::term);
        }
        self.currency();
        let mut negative = false;
        if self.unit.is_some() && self.eat('-') {
            negative = true;
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
            if self.eat('*') {
                let sign = self.sign();
                factors.push(signed(sign, self.mixed()?));
            } else if self.eat('/') {
                let sign = self.sign();
                let by = self.mixed()?;
                factors.push(signed(sign, power(by, integer(-1))));
            } else if self.eat_cmd("bmod") || self.eat_cmd("mod") {
                let a = product(std::mem::take(&mut factors));
                let n = self.power()?;
                factors.push(Expr::Call("mod", vec![a, n]));
            } else if self.begins_factor() {
                factors.push(self.power()?);
            } else {
                break;
            }
        }
        let value = product(factors);
        Some(if negative { negate(value) } else { value })
    }

    fn sign(&mut self) -> bool {
        let mut negative = false;
        loop {
            if self.eat('-') {
                negative = !negative;
            } else if !self.eat('+') {
                return negative;
            }
        }
    }

    /// `$`, euro and so on before an amount.
    fn currency(&mut self) {
        let Some(Tok::Sym(c)) = self.peek() else { return };
        let name = match c {
            '$' => "$",
            '\u{20ac}' => "euro",
            '\u{a3}' => "pound sterling",
            '\u{a5}' => "yen",
            '\u{20b9}' => "rupee",
            _ => return,
        };
        self.at += 1;
        if self.unit.is_none() {
            self.unit = unit::unit(&[Part { name: name.to_owned(), power: 1 }]);
        }
    }

    /// A number and words such as "million" or "dozen".
    fn scaled(&mut self, factors: &mut Vec<Expr>) -> bool {
        let (Some(Tok::Word(w) | Tok::Text(w)), [Expr::Num { .. }, ..]) = (self.peek(), factors.as_slice()) else {
            return false;
        };
        let lower = w.trim().to_lowercase();
        let (first, rest) = lower.split_once(' ').unwrap_or((&lower, ""));
        match number_words::scale(first).filter(|_| rest.is_empty()) {
            Some(n) => {
                self.at += 1;
                factors.push(integer(n));
                true
            }
            None => false,
        }
    }

    /// A factor; an integer before a fraction of digits is a mixed number.
    fn mixed(&mut self) -> Option<Expr> {
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
                return Some(Expr::Add(vec![n, part]));
            }
        }
        self.power()
    }

    fn begins_factor(&self) -> bool {
        match self.peek() {
            // Two numbers side by side are no product, unless the second has an exponent's sign of its own.
            Some(Tok::Num(_)) => false,
            Some(Tok::Word(_)) => true,
            Some(Tok::Text(t)) => super::function::is_function(t.trim()),
            Some(Tok::Cmd(c)) => super::function::begins(c),
            Some(Tok::Sym('|')) => self.bars == 0,
            Some(Tok::Sym(c)) => matches!(c, '(' | '[' | '{'),
            None => false,
        }
    }

    /// Takes the words at the end of the whole expression as its unit.
    fn trailing_unit(&mut self) -> bool {
        if !self.units || self.depth > 1 || self.at == 0 || self.at >= self.tokens.len() {
            return false;
        }
        let found =
            trailing(&self.tokens[self.at..], self.tokens[..self.at].iter().any(|t| matches!(t.tok, Tok::Num(_))));
        if let Some(found) = found {
            // Dollars said twice are dollars.
            self.unit = Some(found);
            self.at = self.tokens.len();
            return true;
        }
        false
    }

    /// True when `^\circ` stands here.
    pub(super) fn degree(&self) -> Option<usize> {
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

    /// `power := postfix ('^' exponent)?`
    pub(super) fn power(&mut self) -> Option<Expr> {
        let base = self.postfix()?;
        if let Some(n) = self.degree() {
            // At the end of everything it is the unit.
            if self.units && self.depth <= 1 && self.at + n >= self.tokens.len() {
                return Some(base);
            }
            if self.units && trailing(&self.tokens[self.at..], true).is_some() {
                return Some(base);
            }
            self.at += n;
            return Some(Expr::Call("degree", vec![base]));
        }
        if self.peek() != Some(&Tok::Sym('^')) {
            return Some(base);
        }
        self.at += 1;
        // The transpose of a matrix.
        let transposed = matches!(base, Expr::Matrix(_)) && {
            let t =
                |t: Option<&Token>| matches!(t, Some(Token { tok: Tok::Word(w), .. }) if w == "T") || is_cmd(t, "top");
            if t(self.token(0)) {
                self.at += 1;
                true
            } else if is(self.token(0), '{') && t(self.token(1)) && is(self.token(2), '}') {
                self.at += 3;
                true
            } else {
                false
            }
        };
        if transposed {
            return Some(Expr::Call("transpose", vec![base]));
        }
        let exponent = self.deeper(Self::exponent)?;
        let mut base = power(base, exponent);
        while self.eat('!') {
            base = Expr::Call("factorial", vec![base]);
        }
        Some(base)
    }

    pub(super) fn exponent(&mut self) -> Option<Expr> {
        if self.eat('{') {
            return self.bracket('}');
        }
        if self.eat('-') {
            return self.deeper(Self::exponent).map(negate);
        }
        if self.eat('+') {
            return self.deeper(Self::exponent);
        }
        self.power()
    }

    fn postfix(&mut self) -> Option<Expr> {
        let mut e = self.primary()?;
        loop {
            if is(self.token(0), '!') && is(self.token(1), '!') && !self.token(1)?.spaced {
                self.at += 2;
                e = Expr::Call("factorial2", vec![e]);
            } else if self.eat('!') {
                e = Expr::Call("factorial", vec![e]);
            } else if self.peek() == Some(&Tok::Sym('%')) && !(self.units && self.at + 1 == self.tokens.len()) {
                self.at += 1;
                e = divide(e, integer(100));
            } else if self.peek() == Some(&Tok::Sym('_')) && matches!(e, Expr::Num { .. } | Expr::Add(_)) {
                // (101)_2
                let Expr::Num { value, .. } = &e else { return None };
                let text = value.is_integer().then(|| value.numer().to_string())?;
                self.at += 1;
                e = self.based(&text)?;
            } else {
                return Some(e);
            }
        }
    }

    pub(super) fn bracket(&mut self, close: char) -> Option<Expr> {
        let bars = std::mem::take(&mut self.bars);
        let mut e = self.expr()?;
        if self.eat_cmd("choose") {
            e = Expr::Call("binom", vec![e, self.expr()?]);
        }
        self.bars = bars;
        self.need(close)?;
        Some(e)
    }

    /// The argument of a command: a group, or one digit or letter.
    pub(super) fn argument(&mut self) -> Option<Expr> {
        if self.eat('{') {
            return self.bracket('}');
        }
        match self.peek()? {
            Tok::Num(_) => self.number(),
            Tok::Word(w) if w.chars().count() == 1 => self.primary(),
            Tok::Sym('(') => {
                self.at += 1;
                self.bracket(')')
            }
            Tok::Sym('-') => {
                self.at += 1;
                self.deeper(Self::argument).map(negate)
            }
            Tok::Cmd(_) => self.primary(),
            _ => None,
        }
    }

    /// A number, with its base when one is given.
    pub(super) fn number(&mut self) -> Option<Expr> {
        let Some(Tok::Num(text)) = self.peek() else { return None };
        self.at += 1;
        // Long decimals are cancelled down, which is quadratic.
        let length = text.len() as u64;
        self.steps.spend(2 + if length > 40 { length * length / 16 } else { 0 })?;
        if let Some(e) = self.prefixed(text) {
            return Some(e);
        }
        // 1A_{16}: digits and letters up to a base.
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

    /// `0x1F`, `0b101`, `0o17`.
    fn prefixed(&mut self, text: &str) -> Option<Expr> {
        let Some(Token { tok: Tok::Word(w), spaced: false }) = self.token(0).filter(|_| text == "0") else {
            return None;
        };
        let base = match w.chars().next()? {
            'b' | 'B' => 2,
            'o' => 8,
            'x' | 'X' => 16,
            _ => return None,
        };
        let mut digits = w[1..].to_owned();
        let mut n = 1;
        while let Some(Token { tok: Tok::Num(t) | Tok::Word(t), spaced: false }) = self.token(n) {
            digits += t;
            n += 1;
        }
        let value = BigInt::parse_bytes(digits.as_bytes(), base)?;
        self.at += n;
        self.in_base(value, digits, base)
    }

    /// The base behind `_`: a number or its name.
    pub(super) fn based(&mut self, digits: &str) -> Option<Expr> {
        const NAMES: [(&str, i64); 14] = [
            ("two", 2),
            ("three", 3),
            ("four", 4),
            ("five", 5),
            ("six", 6),
            ("seven", 7),
            ("eight", 8),
            ("nine", 9),
            ("ten", 10),
            ("twelve", 12),
            ("sixteen", 16),
            ("hex", 16),
            ("bin", 2),
            ("oct", 8),
        ];
        let braced = self.eat('{');
        self.eat('(');
        let base = match self.peek()? {
            Tok::Num(n) => n.parse::<u32>().ok()?,
            Tok::Text(t) | Tok::Word(t) => {
                let name = t.trim().trim_start_matches("base").trim();
                NAMES.iter().find(|(n, _)| *n == name).map(|n| n.1 as u32).or_else(|| name.parse().ok())?
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

    fn in_base(&mut self, value: BigInt, digits: String, base: u32) -> Option<Expr> {
        if digits.len() > MAX_DIGITS {
            return None;
        }
        self.steps.spend(digits.len() as u64)?;
        if self.units && self.at == self.tokens.len() {
            self.unit = Some(Unit::Base(digits, base));
        }
        Some(rational(Rational::from_integer(value)))
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
            Tok::Text(t) if super::function::is_function(t.trim()) => {
                p.at += 1;
                p.word(t.trim())
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
                p.bars += 1;
                let e = p.expr()?;
                p.bars -= 1;
                p.need('|')?;
                Some(match e {
                    Expr::Matrix(_) => Expr::Call("det", vec![e]),
                    e => Expr::Call("abs", vec![e]),
                })
            }
            _ => None,
        })
    }

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

    fn index(&mut self) -> Option<String> {
        let from = self.at;
        if self.eat('{') {
            let mut level = 1;
            while level > 0 {
                level += match self.peek()? {
                    Tok::Sym('{') => 1,
                    Tok::Sym('}') => -1,
                    _ => 0,
                };
                self.at += 1;
            }
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

    fn applied(&mut self, name: String) -> Option<Expr> {
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

fn signed(negative: bool, e: Expr) -> Expr {
    if negative { negate(e) } else { e }
}

/// A product of factors.
pub(super) fn product(mut factors: Vec<Expr>) -> Expr {
    if factors.len() == 1 { factors.remove(0) } else { Expr::Mul(factors) }
}

/// A token as text.
pub(super) fn shown(tok: &Tok) -> String {
    match tok {
        Tok::Num(t) | Tok::Word(t) | Tok::Cmd(t) | Tok::Text(t) => t.trim().to_owned(),
        Tok::Sym(c) => c.to_string(),
    }
}

/// The number a token writes: digits, a point, `(` before digits that repeat, an exponent.
pub(super) fn number(text: &str) -> Option<Expr> {
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

/// The unit that `rest`, all that follows, says; `None` when it says something else. Without a number before it
/// only words in `\text` are a unit.
fn trailing(rest: &[Token], after_number: bool) -> Option<Unit> {
    let first = rest.first()?;
    let begins = match &first.tok {
        Tok::Text(t) => !super::function::is_function(t.trim()) || t.trim() == "min",
        Tok::Word(w) => after_number && begins_unit(w, first.spaced, rest.len()),
        Tok::Cmd(c) => c == "circ" || (matches!(c.as_str(), "mu" | "Omega") && after_number),
        Tok::Sym(c) => {
            matches!(c, '%' | '^' | '\u{20ac}' | '\u{a3}' | '\u{a5}' | '$')
                || (*c == '*' && matches!(rest.get(1).map(|t| &t.tok), Some(Tok::Text(_))))
        }
        Tok::Num(_) => false,
    };
    if !begins {
        return None;
    }
    let mut words: Vec<(String, i32)> = Vec::new();
    let (mut at, mut over) = (0, 1);
    let name = |words: &mut Vec<(String, i32)>, text: &str, over: i32| {
        // "square" and "cubic" belong to the next word; unknown words to each other.
        let joined = words.last_mut().filter(|(w, _)| {
            let last = w.to_lowercase();
            matches!(last.as_str(), "square" | "sq" | "sq." | "cubic" | "cu" | "cu." | "u")
                || (unit::word(w).is_none() && unit::word(text).is_none())
        });
        match joined {
            Some((w, _)) if w == "u" => w.push_str(text),
            Some((w, _)) => {
                w.push(' ');
                w.push_str(text);
            }
            None => words.push((text.to_owned(), over)),
        }
    };
    while let Some(t) = rest.get(at) {
        at += 1;
        match &t.tok {
            Tok::Word(w) if w == "per" => over = -1,
            Tok::Word(w) => name(&mut words, w, over),
            Tok::Text(text) => {
                for word in text.replace('/', " / ").replace(['^', '*', '\u{b7}', '{', '}'], " ^ ").split_whitespace() {
                    match word {
                        "per" | "/" | "an" | "a" if word.len() > 2 || word == "/" => over = -1,
                        "^" => {}
                        "(" | ")" => {}
                        w if w.parse::<i32>().is_ok() => words.last_mut()?.1 *= w.parse::<i32>().ok()?,
                        w => {
                            // m2, m^2, s-1.
                            let letters = w.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
                            let power: i32 = w[letters.len()..].parse().unwrap_or(1);
                            if letters.is_empty() {
                                return None;
                            }
                            name(&mut words, letters.trim_matches(['(', ')', ',']), over);
                            words.last_mut()?.1 *= power;
                        }
                    }
                }
            }
            Tok::Cmd(c) if c == "circ" => {
                // Degrees Celsius, in Unicode or after the sign.
                match rest.get(at).map(|t| &t.tok) {
                    Some(Tok::Word(w) | Tok::Text(w)) if matches!(w.trim(), "C" | "F" | "Celsius" | "Fahrenheit") => {
                        at += 1;
                        words.push((if w.trim().starts_with('C') { "celsius" } else { "fahrenheit" }.to_owned(), 1));
                    }
                    _ => words.push(("degree".to_owned(), 1)),
                }
            }
            Tok::Cmd(c) if c == "mu" => words.push(("u".to_owned(), over)),
            Tok::Cmd(c) if c == "Omega" => name(&mut words, "Omega", over),
            Tok::Sym('/') => over = -1,
            Tok::Sym('*' | '{' | '}' | '(' | ')') => {}
            Tok::Sym('%') => words.push(("%".to_owned(), 1)),
            Tok::Sym('$') => words.push(("$".to_owned(), 1)),
            Tok::Sym('\u{20ac}') => words.push(("euro".to_owned(), 1)),
            Tok::Sym('^') if is_cmd(rest.get(at), "circ") || is_cmd(rest.get(at + 1), "circ") => {}
            Tok::Sym('^') => {
                while is(rest.get(at), '{') || is(rest.get(at), '(') {
                    at += 1;
                }
                let negative = is(rest.get(at), '-');
                at += usize::from(negative);
                let Some(Tok::Num(n)) = rest.get(at).map(|t| &t.tok) else { return None };
                at += 1;
                let n: i32 = n.parse().ok().filter(|n| *n < 10)?;
                words.last_mut()?.1 *= if negative { -n } else { n };
            }
            Tok::Num(n) if !t.spaced && !words.is_empty() => {
                words.last_mut()?.1 *= n.parse::<i32>().ok().filter(|n| *n < 10)?
            }
            Tok::Sym('-') => {}
            _ => return None,
        }
    }
    let parts: Vec<Part> = words.into_iter().map(|(name, power)| Part { name, power }).collect();
    if parts.is_empty() { None } else { unit::unit(&parts) }
}

/// Whether a word after a number begins its unit, and is no variable or function.
fn begins_unit(word: &str, spaced: bool, words: usize) -> bool {
    if (super::function::is_function(word) && word != "min")
        || GREEK.contains(&word)
        || matches!(word, "sqrt" | "pi" | "infinity" | "and" | "or")
    {
        return false;
    }
    let letters = word.chars().count();
    if letters == 1 {
        // 5 m, but not 5 x, and not 5m.
        return spaced
            && (words == 1 || words <= 6)
            && matches!(word, "m" | "g" | "s" | "h" | "L" | "l" | "N" | "J" | "W" | "V" | "K" | "A" | "C" | "F" | "T")
            && words != 2;
    }
    unit::is_sign(word)
        || letters >= 4
        || (letters == 3 && (spaced || unit::word(word).is_some()))
        || (spaced && (unit::word(word).is_some() || words > 1 || matches!(word, "th" | "st" | "nd" | "rd")))
        || matches!(word, "th" | "st" | "nd" | "rd" | "am" | "pm" | "AM" | "PM")
}
