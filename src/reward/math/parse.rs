//! Tokens to values: scalars with a unit, lists, sets, tuples, intervals, relations, words.

use num_bigint::BigInt;

use super::expr::{BigRational, Expr, integer, invert, negate};
use super::lex::{Tok, Token, lex};

/// Deepest nesting of brackets and functions.
const MAX_DEPTH: usize = 40;
/// Longest run of digits.
const MAX_DIGITS: usize = 1_000;
/// Largest power of ten in `1e5`.
const MAX_POWER_OF_TEN: u32 = 400;

/// One end of an interval.
#[derive(Clone, PartialEq, Debug)]
pub struct Bound {
    /// Where.
    pub at: Expr,
    /// Whether the end belongs to it.
    pub closed: bool,
}

/// What an answer says.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A number or expression, and the words after it.
    Scalar(Expr, Option<String>),
    /// `a, b and c`: order does not matter.
    List(Vec<Value>),
    /// `\{a, b\}`.
    Set(Vec<Value>),
    /// `(a, b)` and longer: order matters. With two parts it may be an open interval as well.
    Tuple(Vec<Value>),
    /// An interval.
    Interval(Bound, Bound),
    /// A union of intervals or sets.
    Union(Vec<Value>),
    /// `name = value`.
    Assignment(String, Box<Value>),
    /// Another equation: both sides.
    Equation(Expr, Expr),
    /// Words.
    Text(String),
}

/// Reads `text`; what is no mathematics is words.
pub fn parse(text: &str) -> Value {
    lex(text).and_then(|tokens| value(&tokens, 0)).unwrap_or_else(|| Value::Text(text.trim().to_owned()))
}

fn is(token: Option<&Token>, sign: char) -> bool {
    token.is_some_and(|t| t.tok == Tok::Sym(sign))
}

/// Change of nesting at a token.
fn nesting(tok: &Tok) -> i32 {
    match tok {
        Tok::Sym('(' | '[' | '{') | Tok::Brace(true) => 1,
        Tok::Sym(')' | ']' | '}') | Tok::Brace(false) => -1,
        _ => 0,
    }
}

/// Parts between separators outside brackets. `None` when brackets do not balance.
fn split(tokens: &[Token], separates: impl Fn(&Tok) -> bool) -> Option<Vec<&[Token]>> {
    let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
    for (i, t) in tokens.iter().enumerate() {
        depth += nesting(&t.tok);
        if depth < 0 {
            return None;
        }
        if depth == 0 && separates(&t.tok) {
            parts.push(&tokens[from..i]);
            from = i + 1;
        }
    }
    parts.push(&tokens[from..]);
    (depth == 0).then_some(parts)
}

fn is_word(tok: &Tok, words: &[&str]) -> bool {
    match tok {
        Tok::Word(w) | Tok::Text(w) => words.contains(&w.trim().to_lowercase().as_str()),
        _ => false,
    }
}

fn value(tokens: &[Token], depth: usize) -> Option<Value> {
    if tokens.is_empty() || depth > MAX_DEPTH {
        return None;
    }
    if let [Token { tok: Tok::Cmd(c), .. }] = tokens
        && matches!(c.as_str(), "emptyset" | "varnothing")
    {
        return Some(Value::Set(Vec::new()));
    }
    let comma = |t: &Tok| matches!(t, Tok::Sym(',' | ';')) || is_word(t, &["and", "or"]);
    let parts = split(tokens, comma)?;
    if parts.len() > 1 {
        // "a, b, and c" has an empty part before its "and".
        let filled: Vec<&[Token]> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        let items: Vec<Value> = filled.into_iter().map(|p| value(p, depth + 1)).collect::<Option<_>>()?;
        return if items.len() > 1 { Some(Value::List(items)) } else { items.into_iter().next() };
    }
    let unions = split(tokens, |t| *t == Tok::Sym('U') || matches!(t, Tok::Cmd(c) if c == "bigcup"))?;
    if unions.len() > 1 {
        return unions.into_iter().map(|p| value(p, depth + 1)).collect::<Option<_>>().map(Value::Union);
    }
    let member = split(tokens, |t| *t == Tok::Sym('i'))?;
    if let [name, set] = member.as_slice() {
        return if name.len() == 1 { value(set, depth + 1) } else { None };
    }
    if let Some(v) = relation(tokens, depth) {
        return v;
    }
    if let Some(v) = bracketed(tokens, depth) {
        return v;
    }
    plus_minus(tokens, depth)
}

const RELATIONS: [char; 7] = ['=', '<', '>', 'l', 'g', 'n', '~'];

/// Relations outside brackets; `Some(None)` when there is one that cannot be read.
fn relation(tokens: &[Token], depth: usize) -> Option<Option<Value>> {
    let mut signs = Vec::new();
    let mut level = 0;
    for t in tokens {
        level += nesting(&t.tok);
        match t.tok {
            Tok::Sym(c) if level == 0 && RELATIONS.contains(&c) => signs.push(c),
            _ => {}
        }
    }
    if signs.is_empty() {
        return None;
    }
    let parts = split(tokens, |t| matches!(t, Tok::Sym(c) if RELATIONS.contains(c)))?;
    if signs.iter().all(|&s| s == '=' || s == '~') {
        return Some(equation(&parts, depth));
    }
    Some(inequality(&parts, &signs))
}

/// `x = 5`, `f(x) = 2x + 1`, `a = 2 + 3 = 5`, `x + y = 1`.
fn equation(parts: &[&[Token]], depth: usize) -> Option<Value> {
    let (first, last) = (parts.first()?, parts.last()?);
    if last.is_empty() {
        return None;
    }
    if first.is_empty() {
        // "= 5", as a line of a calculation.
        return value(last, depth + 1);
    }
    if let Some(name) = name_of(first) {
        return value(last, depth + 1).map(|v| Value::Assignment(name, Box::new(v)));
    }
    let sides: Vec<Option<Expr>> = parts.iter().map(|p| scalar(p)).collect();
    match sides.as_slice() {
        [Some(a), Some(b)] if a.has_variables() || b.has_variables() => {
            // 5 = x says the same as x = 5.
            match (a, b) {
                (a, Expr::Var(name)) if !a.has_variables() => {
                    let v = Value::Scalar(a.clone(), None);
                    Some(Value::Assignment(name.clone(), Box::new(v)))
                }
                _ => Some(Value::Equation(a.clone(), b.clone())),
            }
        }
        // A calculation: its result.
        [.., Some(Expr::Num { .. })] if sides.iter().all(Option::is_some) => value(last, depth + 1),
        _ => None,
    }
}

/// The name on the left of an assignment: `x`, `x_1`, `f(x)`, `f^{-1}(x)`, `(x, y)`, a word or two.
fn name_of(tokens: &[Token]) -> Option<String> {
    let short = tokens.len() <= 12;
    let plain = tokens.iter().all(|t| match &t.tok {
        Tok::Word(_) | Tok::Text(_) => true,
        Tok::Cmd(c) => GREEK.contains(&c.as_str()) || matches!(c.as_str(), "angle" | "triangle" | "overline"),
        Tok::Sym(c) => matches!(c, '_' | '(' | ')' | ',' | '{' | '}' | '^' | '-'),
        Tok::Num(_) => true,
        Tok::Brace(_) => false,
    });
    let starts = match tokens.first().map(|t| &t.tok) {
        Some(Tok::Word(_) | Tok::Text(_) | Tok::Cmd(_)) => true,
        Some(Tok::Sym('(')) => tokens.len() > 3 && tokens.iter().any(|t| matches!(t.tok, Tok::Word(_))),
        _ => false,
    };
    let product = tokens.windows(2).any(|w| matches!((&w[0].tok, &w[1].tok), (Tok::Num(_), Tok::Word(_))));
    let sum = tokens
        .iter()
        .enumerate()
        .any(|(i, t)| t.tok == Tok::Sym('-') && !(i > 0 && matches!(tokens[i - 1].tok, Tok::Sym('^' | '{'))));
    // x^2 = 4 is an equation, f^{-1}(x) = ... a name.
    let power = tokens.iter().any(|t| t.tok == Tok::Sym('^')) && !is(tokens.last(), ')');
    if !(short && plain && starts) || product || sum || power {
        return None;
    }
    let text: Vec<String> = tokens
        .iter()
        .filter(|t| !matches!(t.tok, Tok::Sym('{' | '}')))
        .map(|t| match &t.tok {
            Tok::Word(w) | Tok::Text(w) | Tok::Cmd(w) | Tok::Num(w) => w.clone(),
            Tok::Sym(c) => c.to_string(),
            Tok::Brace(_) => String::new(),
        })
        .collect();
    Some(text.concat())
}

/// `x < 3`, `2 \le x < 5`: the interval of the one variable; anything else is not read.
fn inequality(parts: &[&[Token]], signs: &[char]) -> Option<Value> {
    let exprs: Vec<Expr> = parts.iter().map(|p| scalar(p)).collect::<Option<_>>()?;
    let up = |s: char| matches!(s, '<' | 'l');
    let down = |s: char| matches!(s, '>' | 'g');
    let infinite = |sign: i64| Bound { at: times(integer(sign), Expr::Var("infty".into())), closed: false };
    let bound = |at: &Expr, s: char| Bound { at: at.clone(), closed: matches!(s, 'l' | 'g') };
    match (exprs.as_slice(), signs) {
        ([a, b], &[s]) if up(s) || down(s) => {
            let (low, high) = if up(s) { (a, b) } else { (b, a) };
            match (low.is_var(), high.is_var()) {
                (true, false) if !high.has_variables() => Some(Value::Interval(infinite(-1), bound(high, s))),
                (false, true) if !low.has_variables() => Some(Value::Interval(bound(low, s), infinite(1))),
                _ => None,
            }
        }
        ([a, x, b], &[s, t]) if x.is_var() && up(s) && up(t) => Some(Value::Interval(bound(a, s), bound(b, t))),
        ([a, x, b], &[s, t]) if x.is_var() && down(s) && down(t) => Some(Value::Interval(bound(b, t), bound(a, s))),
        _ => None,
    }
}

fn times(a: Expr, b: Expr) -> Expr {
    Expr::Mul(vec![a, b])
}

/// A set, tuple or interval that is the whole of `tokens`.
fn bracketed(tokens: &[Token], depth: usize) -> Option<Option<Value>> {
    let (open, close) = (&tokens.first()?.tok, &tokens.last()?.tok);
    let set = *open == Tok::Brace(true) && *close == Tok::Brace(false);
    let round = matches!(open, Tok::Sym('(' | '[')) && matches!(close, Tok::Sym(')' | ']'));
    let grouped = *open == Tok::Sym('{') && *close == Tok::Sym('}');
    if tokens.len() < 2 || !(set || round || grouped) {
        return None;
    }
    let mut level = 0;
    for (i, t) in tokens.iter().enumerate() {
        level += nesting(&t.tok);
        if level == 0 && i + 1 < tokens.len() {
            return None;
        }
    }
    let inside = &tokens[1..tokens.len() - 1];
    if inside.is_empty() {
        return Some(set.then(|| Value::Set(Vec::new())));
    }
    let Some(parts) = split(inside, |t| matches!(t, Tok::Sym(',' | ';'))) else { return Some(None) };
    if grouped && parts.len() == 1 {
        return Some(value(inside, depth + 1));
    }
    if round && parts.len() == 1 {
        return None;
    }
    let items: Option<Vec<Value>> = parts.into_iter().map(|p| value(p, depth + 1)).collect();
    Some(items.map(|items| match (set || grouped, open, close, items.as_slice()) {
        (true, ..) => Value::Set(items),
        (_, Tok::Sym(o), Tok::Sym(c), [Value::Scalar(a, None), Value::Scalar(b, None)])
            if *o == '[' || *c == ']' || [a, b].iter().any(|e| is_infinite(e)) =>
        {
            let bound = |at: &Expr, closed| Bound { at: at.clone(), closed };
            Value::Interval(bound(a, *o == '['), bound(b, *c == ']'))
        }
        _ => Value::Tuple(items),
    }))
}

fn is_infinite(e: &Expr) -> bool {
    e.at(0).0.is_infinite()
}

/// A scalar, or the two of `a \pm b`.
fn plus_minus(tokens: &[Token], depth: usize) -> Option<Value> {
    if !tokens.iter().any(|t| matches!(t.tok, Tok::Sym('p' | 'm'))) {
        return scalar_with_unit(tokens);
    }
    let signed = |plus: char, minus: char| {
        let swap = |t: &Token| match t.tok {
            Tok::Sym('p') => Token { tok: Tok::Sym(plus), spaced: t.spaced },
            Tok::Sym('m') => Token { tok: Tok::Sym(minus), spaced: t.spaced },
            _ => t.clone(),
        };
        value(&tokens.iter().map(swap).collect::<Vec<_>>(), depth + 1)
    };
    Some(Value::Set(vec![signed('+', '-')?, signed('-', '+')?]))
}

fn scalar(tokens: &[Token]) -> Option<Expr> {
    let mut p = Parser { tokens, at: 0, depth: 0, units: false, unit: None };
    let e = p.expr()?;
    (p.at == tokens.len()).then_some(e)
}

fn scalar_with_unit(tokens: &[Token]) -> Option<Value> {
    let mut p = Parser { tokens, at: 0, depth: 0, units: true, unit: None };
    let e = p.expr()?;
    (p.at == tokens.len()).then_some(Value::Scalar(e, p.unit))
}

/// Names that stand for themselves.
const GREEK: [&str; 26] = [
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
const FUNCTIONS: [&str; 17] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "lg",
    "exp", "abs",
];

/// Short words that are units after a number.
const UNITS: [&str; 32] = [
    "mm", "cm", "dm", "km", "mg", "kg", "ml", "cl", "dl", "kl", "ft", "yd", "mi", "lb", "oz", "hr", "ms", "kN", "kW",
    "mA", "mV", "kV", "Hz", "Pa", "am", "pm", "AM", "PM", "th", "st", "nd", "rd",
];

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
            Some(Tok::Word(_) | Tok::Cmd(_) | Tok::Sym('(' | '{' | '[')) => true,
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
    fn mixed_fraction(&mut self, factors: &[Expr]) -> bool {
        let whole = matches!(factors, [Expr::Num { value, decimals: None }] if value.is_integer());
        if !whole {
            return false;
        }
        let command =
            matches!(self.peek(), Some(Tok::Cmd(c)) if matches!(c.as_str(), "frac" | "dfrac" | "tfrac" | "cfrac"));
        if command {
            let digits =
                |i: usize| matches!(self.tokens.get(i).map(|t| &t.tok), Some(Tok::Sym('{' | '}') | Tok::Num(_)));
            let braced = is(self.tokens.get(self.at + 1), '{');
            return if braced { (1..=6).all(|k| digits(self.at + k)) } else { digits(self.at + 1) };
        }
        if self.plain_mixed() {
            // The division belongs to the fraction, so it is taken here as one bracketed factor.
            return true;
        }
        false
    }

    /// Takes the words at the end of the expression as its unit.
    fn trailing_unit(&mut self) -> bool {
        if !self.units || self.depth > 1 {
            return false;
        }
        let rest = &self.tokens[self.at..];
        let Some(first) = rest.first() else { return false };
        let percent = is(Some(first), '%');
        let degree = |t: &[Token]| match t {
            [a, b] => is(Some(a), '^') && is(Some(b), 'o'),
            [a, b, c, d] => is(Some(a), '^') && is(Some(b), '{') && is(Some(c), 'o') && is(Some(d), '}'),
            [a] => is(Some(a), 'o'),
            _ => false,
        };
        if degree(rest) {
            self.unit = Some("degree".to_owned());
            self.at = self.tokens.len();
            return true;
        }
        let wordy = match &first.tok {
            Tok::Text(_) => true,
            Tok::Word(w) => {
                let name = w.as_str();
                let known =
                    FUNCTIONS.contains(&name) || matches!(name, "sqrt" | "pi" | "infinity") || GREEK.contains(&name);
                !known
                    && (UNITS.contains(&name)
                        || w.chars().count() >= 3
                        || (first.spaced && rest.len() > 1 && w.chars().count() > 1)
                        || (first.spaced
                            && rest.len() == 1
                            && matches!(name, "m" | "g" | "s" | "h" | "L" | "l" | "N" | "J" | "W" | "V" | "K" | "in")))
            }
            _ => percent,
        };
        let ends = rest.iter().all(|t| {
            matches!(
                t.tok,
                Tok::Word(_)
                    | Tok::Text(_)
                    | Tok::Num(_)
                    | Tok::Sym('^' | '{' | '}' | '/' | '%' | '(' | ')' | '-' | '*' | 'o')
            )
        });
        if !wordy || !ends {
            return false;
        }
        let text: Vec<String> = rest
            .iter()
            .filter_map(|t| match &t.tok {
                Tok::Word(w) | Tok::Text(w) | Tok::Num(w) => Some(w.trim().to_lowercase()),
                Tok::Sym(c @ ('/' | '%')) => Some(c.to_string()),
                _ => None,
            })
            .collect();
        self.unit = Some(unit_name(&text.concat()));
        self.at = self.tokens.len();
        true
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
            "frac" | "dfrac" | "tfrac" | "cfrac" => {
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

/// A unit under one name: no plural, no spaces, common names as signs.
fn unit_name(text: &str) -> String {
    let name = text.trim().trim_end_matches('.');
    match name {
        "percent" | "percentage" | "pct" | "%" => return "%".to_owned(),
        "degrees" | "deg" => return "degree".to_owned(),
        "feet" | "foot" => return "ft".to_owned(),
        "inches" | "inch" => return "in".to_owned(),
        _ => {}
    }
    let single = if name.chars().count() > 3 { name.strip_suffix('s').unwrap_or(name) } else { name };
    single.replace(' ', "")
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
