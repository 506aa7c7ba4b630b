//! Names that stand for functions, and what binds a variable: sums, products, integrals, limits, derivatives.

use super::Rational;
use super::expr::{Binder, Bound, Expr, divide, integer, invert, negate, number as rational, power, var};
use super::lex::{Tok, Token};
use super::scalar::{GREEK, Parser, is, is_cmd, number, product};

/// Functions of one argument, by their names in LaTeX and in plain text.
const FUNCTIONS: [&str; 33] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "arccot", "arcsec", "arccsc", "sinh",
    "cosh", "tanh", "coth", "sech", "csch", "arcsinh", "arccosh", "arctanh", "ln", "log", "lg", "exp", "abs", "floor",
    "ceil", "sign", "re", "im", "arg", "det",
];

/// Functions of several arguments in brackets.
const LISTED: [&str; 5] = ["max", "min", "gcd", "lcm", "binom"];

/// Other names of functions.
fn function(name: &str) -> Option<&'static str> {
    let known = match name {
        "asin" => "arcsin",
        "acos" => "arccos",
        "atan" | "arctg" => "arctan",
        "tg" => "tan",
        "ctg" => "cot",
        "cosec" => "csc",
        "asinh" | "arsinh" => "arcsinh",
        "acosh" | "arcosh" => "arccosh",
        "atanh" | "artanh" => "arctanh",
        "Re" => "re",
        "Im" => "im",
        "Arg" => "arg",
        "sgn" => "sign",
        "LCM" => "lcm",
        "GCD" | "hcf" | "HCF" => "gcd",
        "Log" => "log",
        "Ln" => "ln",
        n => n,
    };
    FUNCTIONS.iter().chain(&LISTED).find(|f| **f == known).copied()
}

/// True for the name of a function.
pub(super) fn is_function(name: &str) -> bool {
    function(name).is_some()
}

/// True when a command may begin a factor.
pub(super) fn begins(name: &str) -> bool {
    const OTHERS: [&str; 17] = [
        "frac", "binom", "sqrt", "pi", "infty", "lfloor", "lceil", "sum", "prod", "int", "lim", "Vert", "sqrt[",
        "iint", "partial", "nabla", "imath",
    ];
    OTHERS.contains(&name)
        || is_function(name)
        || GREEK.contains(&name)
        || name.starts_with("name ")
        || (name.starts_with("begin ") && name.ends_with("matrix"))
        || name == "begin array"
}

impl Parser<'_> {
    /// A run of letters: a function, a constant, or variables side by side.
    pub(super) fn word(&mut self, word: &str) -> Option<Expr> {
        match word {
            "pi" => return Some(var("pi")),
            "inf" | "infinity" | "infty" | "oo" => return Some(var("infty")),
            "sqrt" => return self.root(),
            "cbrt" => return self.argument().map(|x| power(x, invert(integer(3)))),
            _ => {}
        }
        if let Some(f) = function(word) {
            return self.function(f);
        }
        if GREEK.contains(&word) && word.len() > 2 {
            return self.named(word);
        }
        if let Some(e) = self.hexadecimal(word) {
            return Some(e);
        }
        let letters: Vec<char> = word.chars().collect();
        if letters.len() == 1 {
            if matches!(word, "C" | "P")
                && is(self.token(0), '(')
                && let Some(e) = self.choice(if word == "C" { "binom" } else { "permutations" })
            {
                return Some(e);
            }
            return self.named(word);
        }
        // sinx, 2pir, nCr.
        let split = (1..letters.len()).rev().filter(|&n| letters[..n].len() >= 2).find_map(|n| {
            let (head, tail): (String, String) = (letters[..n].iter().collect(), letters[n..].iter().collect());
            let known =
                (is_function(&head) && head != "re" && head != "im" && head != "lg") || head == "pi" || head == "sqrt";
            (known && letters.len() - n <= 2).then_some((head, tail))
        });
        if let Some((head, tail)) = split.filter(|(h, _)| letters.len() >= 4 || h == "pi") {
            let rest: Vec<Expr> = tail.chars().map(|c| var(&c.to_string())).collect();
            let inner = self.raised(rest)?;
            return Some(match head.as_str() {
                "pi" => Expr::Mul(vec![var("pi"), inner]),
                "sqrt" => power(inner, invert(integer(2))),
                h => call(function(h)?, inner),
            });
        }
        if letters.len() > 3 {
            return None;
        }
        let factors = letters[..letters.len() - 1].iter().map(|c| var(&c.to_string())).collect::<Vec<_>>();
        let last = self.named(&letters[letters.len() - 1].to_string())?;
        // ab^2 squares b alone.
        let last = self.powered(last)?;
        Some(product(factors.into_iter().chain([last]).collect()))
    }

    /// `FF_{16}`: letters that are digits, with their base.
    fn hexadecimal(&mut self, word: &str) -> Option<Expr> {
        if !word.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let mut digits = word.to_owned();
        let mut n = 0;
        while let Some(Token { tok: Tok::Num(t) | Tok::Word(t), spaced: false }) = self.token(n) {
            digits += t;
            n += 1;
        }
        let base = |t: Option<&Token>| matches!(t, Some(Token { tok: Tok::Num(b), .. }) if b == "16" || b == "12");
        if !is(self.token(n), '_') || !(base(self.token(n + 1)) || base(self.token(n + 2))) {
            return None;
        }
        self.at += n + 1;
        self.based(&digits)
    }

    fn powered(&mut self, base: Expr) -> Option<Expr> {
        if self.degree().is_none() && self.eat('^') {
            Some(power(base, self.deeper(Self::exponent)?))
        } else {
            Some(base)
        }
    }

    fn raised(&mut self, mut factors: Vec<Expr>) -> Option<Expr> {
        let last = factors.pop()?;
        let last = self.powered(last)?;
        factors.push(last);
        Some(product(factors))
    }

    /// `C(5, 2)`; `None`, with nothing taken, where the brackets hold anything else.
    fn choice(&mut self, name: &'static str) -> Option<Expr> {
        let from = self.at;
        match self.arguments() {
            Some(args) if args.len() == 2 => Some(Expr::Call(name, args)),
            _ => {
                self.at = from;
                None
            }
        }
    }

    fn root(&mut self) -> Option<Expr> {
        let degree = if self.eat('[') { self.bracket(']')? } else { integer(2) };
        let x = match (self.peek()?, self.token(1)) {
            // The bracket of \sqrt(x)(y) is the argument.
            (Tok::Num(_), _) => self.number()?,
            _ => self.argument()?,
        };
        Some(power(x, invert(degree)))
    }

    /// A command that stands for a value.
    pub(super) fn command(&mut self, name: &str) -> Option<Expr> {
        match name {
            "frac" => self.fraction(),
            "binom" => {
                if is(self.token(0), '(') {
                    return Some(Expr::Call("binom", self.arguments().filter(|a| a.len() == 2)?));
                }
                let n = self.argument()?;
                Some(Expr::Call("binom", vec![n, self.argument()?]))
            }
            "sqrt" => self.root(),
            "pi" => Some(var("pi")),
            "infty" => Some(var("infty")),
            "imath" => Some(var("i")),
            "lfloor" => self.enclosed("rfloor", "floor"),
            "lceil" => self.enclosed("rceil", "ceil"),
            "Vert" => {
                let e = self.expr()?;
                self.eat_cmd("Vert").then_some(Expr::Call("abs", vec![e]))
            }
            "sum" | "prod" => self.series(if name == "sum" { Binder::Sum } else { Binder::Product }),
            "int" => self.integral(),
            "lim" => self.limit(),
            n if GREEK.contains(&n) => self.named(n),
            n if n.starts_with("name ") => self.named(&n[5..]),
            n if n.starts_with("begin ") => self.matrix(&n[6..]),
            n => self.function(function(n)?),
        }
    }

    /// `\frac{a}{b}`, `\frac12`, `\frac1{2}`, `\frac{d}{dx} f`.
    fn fraction(&mut self) -> Option<Expr> {
        if let Some(d) = self.differential_quotient() {
            return d;
        }
        if let Some(Tok::Num(text)) = self.peek() {
            let digit = |i: usize| text.get(i..i + 1).and_then(number);
            match text.len() {
                1 => {
                    self.at += 1;
                    return Some(divide(digit(0)?, self.argument()?));
                }
                2 => {
                    self.at += 1;
                    return Some(divide(digit(0)?, digit(1)?));
                }
                _ => return None,
            }
        }
        let n = self.argument()?;
        // The second argument of \frac{a}12 is one digit.
        if let Some(Tok::Num(text)) = self.peek()
            && text.len() > 1
        {
            return None;
        }
        Some(divide(n, self.argument()?))
    }

    /// `\frac{d}{dx} f`, `\frac{d^2}{dx^2} f`; `\frac{dy}{dx}` is a name.
    fn differential_quotient(&mut self) -> Option<Option<Expr>> {
        let text = |n: usize| self.token(n).map(|t| super::scalar::shown(&t.tok)).unwrap_or_default();
        let group = |from: usize| {
            let mut n = from;
            let mut inner = String::new();
            if text(n) != "{" {
                return None;
            }
            n += 1;
            while text(n) != "}" {
                if n > from + 12 || text(n).is_empty() {
                    return None;
                }
                inner += &text(n);
                n += 1;
            }
            Some((inner.replace("partial", "d"), n + 1))
        };
        let (over, middle) = group(0)?;
        let (under, end) = group(middle)?;
        let order = |t: &str| match t.split_once('^') {
            Some((_, n)) => n.trim_matches(['{', '}']).parse::<usize>().ok(),
            None => Some(1),
        };
        let bare = |t: &str| t.split('^').next().unwrap_or_default().to_owned();
        let var_name = bare(under.strip_prefix('d')?);
        if var_name.is_empty() || var_name.len() > 7 || !var_name.chars().all(char::is_alphabetic) {
            return None;
        }
        let over_name = over.strip_prefix('d')?;
        if !over_name.is_empty() && !over_name.starts_with('^') {
            // dy/dx
            let simple = over_name.chars().count() == 1 && var_name.chars().count() == 1 && under.len() == 2;
            if !simple {
                return None;
            }
            self.at += end;
            return Some(Some(Expr::Var(format!("d{over_name}/d{var_name}"))));
        }
        let n = order(&over).filter(|&n| Some(n) == order(&under) && (1..=4).contains(&n))?;
        self.at += end;
        Some(self.term().map(|mut body| {
            for _ in 0..n {
                body = Expr::Bound(Box::new(Bound {
                    binder: Binder::Derivative,
                    var: var_name.clone(),
                    from: integer(0),
                    to: integer(0),
                    body,
                }));
            }
            body
        }))
    }

    fn enclosed(&mut self, close: &str, function: &'static str) -> Option<Expr> {
        let e = self.expr()?;
        self.eat_cmd(close).then_some(Expr::Call(function, vec![e]))
    }

    /// Ends of a sum or integral: `_a^b` in either order.
    fn ends(&mut self) -> Option<(Option<Vec<Token>>, Option<Expr>)> {
        let (mut low, mut high) = (None, None);
        for _ in 0..2 {
            if self.eat('_') {
                low = Some(self.tokens_of_argument()?);
            } else if self.eat('^') {
                high = Some(self.deeper(Self::exponent)?);
            }
        }
        Some((low, high))
    }

    fn tokens_of_argument(&mut self) -> Option<Vec<Token>> {
        if !self.eat('{') {
            let one = self.at + 1 + usize::from(is(self.token(0), '-'));
            let tokens = self.tokens.get(self.at..one)?.to_vec();
            self.at = one;
            return Some(tokens);
        }
        let (from, mut level) = (self.at, 1);
        while level > 0 {
            level += match self.peek()? {
                Tok::Sym('{') => 1,
                Tok::Sym('}') => -1,
                _ => 0,
            };
            self.at += 1;
        }
        Some(self.tokens[from..self.at - 1].to_vec())
    }

    /// A part of the tokens as one expression, at this depth.
    fn inner(&self, tokens: &[Token]) -> Option<Expr> {
        let mut p = Parser::new(tokens, self.steps);
        p.depth = self.depth;
        let e = p.expr()?;
        (p.at == tokens.len()).then_some(e)
    }

    fn series(&mut self, binder: Binder) -> Option<Expr> {
        let (low, to) = self.ends()?;
        let (low, to) = (low?, to?);
        let equals = low.iter().position(|t| t.tok == Tok::Sym('='))?;
        let name = match &low[..equals] {
            [Token { tok: Tok::Word(w), .. }] => w.clone(),
            [Token { tok: Tok::Cmd(c), .. }] if GREEK.contains(&c.as_str()) => c.clone(),
            _ => return None,
        };
        let from = self.inner(&low[equals + 1..])?;
        let body = self.term()?;
        Some(Expr::Bound(Box::new(Bound { binder, var: name, from, to, body })))
    }

    fn limit(&mut self) -> Option<Expr> {
        let (low, _) = self.ends()?;
        let low = low?;
        let arrow = low.iter().position(|t| is_cmd(Some(t), "rightarrow"))?;
        let [Token { tok: Tok::Word(name) | Tok::Cmd(name), .. }] = &low[..arrow] else { return None };
        let mut place = &low[arrow + 1..];
        let mut side = 0;
        // 0^+ and 0^{-}
        let bare: Vec<Token> = place.iter().filter(|t| !is(Some(t), '{') && !is(Some(t), '}')).cloned().collect();
        if let [head @ .., hat, sign] = bare.as_slice()
            && is(Some(hat), '^')
            && (is(Some(sign), '+') || is(Some(sign), '-'))
        {
            side = if is(Some(sign), '+') { 1 } else { -1 };
            place = &place[..head.len()];
        }
        let from = self.inner(place)?;
        let body = self.term()?;
        Some(Expr::Bound(Box::new(Bound { binder: Binder::Limit, var: name.clone(), from, to: integer(side), body })))
    }

    /// `\int_a^b f dx`: what stands before the first `dx` at this level.
    fn integral(&mut self) -> Option<Expr> {
        let (low, to) = self.ends()?;
        let from = self.inner(&low?)?;
        let to = to?;
        let (mut level, mut end) = (0i32, self.at);
        let (name, next, tail) = loop {
            self.steps.spend(1)?;
            match &self.tokens.get(end)?.tok {
                Tok::Sym('(' | '[' | '{') => level += 1,
                Tok::Sym(')' | ']' | '}') => level -= 1,
                Tok::Word(w) if level == 0 => {
                    let letters: Vec<char> = w.chars().collect();
                    match (letters.as_slice(), self.tokens.get(end + 1).map(|t| &t.tok)) {
                        (['d'], Some(Tok::Word(x))) if x.chars().count() == 1 => break (x.clone(), end + 2, None),
                        (['d'], Some(Tok::Cmd(x))) if GREEK.contains(&x.as_str()) => break (x.clone(), end + 2, None),
                        ([head @ .., 'd', x], _) if head.len() <= 2 => {
                            let head: String = head.iter().collect();
                            break (x.to_string(), end + 1, Some(head).filter(|h| !h.is_empty()));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
            if level < 0 {
                return None;
            }
            end += 1;
        };
        let mut body = self.tokens[self.at..end].to_vec();
        body.extend(tail.map(|t| Token { tok: Tok::Word(t), spaced: false }));
        let body = if body.is_empty() { integer(1) } else { self.inner(&body)? };
        self.at = next;
        Some(Expr::Bound(Box::new(Bound { binder: Binder::Integral, var: name, from, to, body })))
    }

    /// Rows of a matrix up to its end.
    fn matrix(&mut self, kind: &str) -> Option<Expr> {
        if !kind.ends_with("matrix") && kind != "array" {
            return None;
        }
        let end = format!("end {kind}");
        let (mut rows, mut row, mut from, mut level) = (Vec::new(), Vec::new(), self.at, 0i32);
        loop {
            self.steps.spend(1)?;
            let t = self.token(0)?;
            let done = level == 0 && is_cmd(Some(t), &end);
            let line = level == 0 && (is_cmd(Some(t), "\\") || is_cmd(Some(t), "cr"));
            if done || line || (level == 0 && is(Some(t), '&')) {
                let cell = &self.tokens[from..self.at];
                if !cell.is_empty() {
                    row.push(self.inner(cell)?);
                } else if !(row.is_empty() && (done || line)) {
                    return None;
                }
                from = self.at + 1;
            }
            if (done || line) && !row.is_empty() {
                rows.push(std::mem::take(&mut row));
            }
            match &t.tok {
                Tok::Cmd(c) if c.starts_with("begin ") => level += 1,
                Tok::Cmd(c) if c.starts_with("end ") => level -= 1,
                Tok::Sym('(' | '{') => level += 1,
                Tok::Sym(')' | '}') => level -= 1,
                _ => {}
            }
            self.at += 1;
            if done {
                break;
            }
        }
        let width = rows.first()?.len();
        if rows.iter().any(|r| r.len() != width) {
            return None;
        }
        let matrix = Expr::Matrix(rows);
        Some(if kind.starts_with('v') { Expr::Call("det", vec![matrix]) } else { matrix })
    }

    /// `\sin x`, `\sin^2(x)`, `\log_2 8`, `\ln 3x`, `\max(1, 2)`.
    fn function(&mut self, name: &'static str) -> Option<Expr> {
        if LISTED.contains(&name) {
            if is(self.token(0), '{') || self.eat_cmd("{") {
                // \max\{a, b\}
                if is(self.token(0), '{') {
                    return Some(Expr::Call(name, self.arguments()?));
                }
                let mut args = vec![self.expr()?];
                while self.eat(',') {
                    args.push(self.expr()?);
                }
                return self.eat_cmd("}").then_some(Expr::Call(name, args));
            }
            return Some(Expr::Call(name, self.arguments()?));
        }
        // log2 8: the digits at the name are the base.
        let glued = matches!(self.token(0), Some(Token { tok: Tok::Num(_), spaced: false }))
            && name == "log"
            && is(self.token(1), '(');
        let base = if self.eat('_') {
            Some(self.argument()?)
        } else if glued {
            Some(self.number()?)
        } else {
            None
        };
        let exponent = if self.degree().is_none() && self.eat('^') { Some(self.deeper(Self::exponent)?) } else { None };
        let base = if base.is_none() && self.eat('_') { Some(self.argument()?) } else { base };
        let argument = match self.peek()? {
            Tok::Sym('(') => {
                self.at += 1;
                self.bracket(')')?
            }
            Tok::Sym('[') => {
                self.at += 1;
                self.bracket(']')?
            }
            Tok::Sym('{') => {
                self.at += 1;
                self.bracket('}')?
            }
            Tok::Sym('-') => {
                self.at += 1;
                negate(self.power()?)
            }
            _ => {
                let mut factors = vec![self.power()?];
                while matches!(self.peek(), Some(Tok::Word(w)) if w.chars().count() == 1)
                    || matches!(self.peek(), Some(Tok::Cmd(c)) if matches!(c.as_str(), "pi" | "sqrt" | "frac") || GREEK.contains(&c.as_str()))
                {
                    factors.push(self.power()?);
                }
                product(factors)
            }
        };
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
                Expr::Call("sin", a) => Expr::Call("arcsin", a),
                Expr::Call("cos", a) => Expr::Call("arccos", a),
                Expr::Call("tan", a) => Expr::Call("arctan", a),
                Expr::Call("sinh", a) => Expr::Call("arcsinh", a),
                Expr::Call("cosh", a) => Expr::Call("arccosh", a),
                Expr::Call("tanh", a) => Expr::Call("arctanh", a),
                value => power(value, rational(n)),
            },
            Some(e) => power(value, e),
            None => value,
        })
    }
}

fn call(name: &'static str, argument: Expr) -> Expr {
    match name {
        "exp" => power(var("e"), argument),
        "log" | "lg" => Expr::Call("log", vec![integer(10), argument]),
        name => Expr::Call(name, vec![argument]),
    }
}
