//! Tokens to values: scalars with a unit, lists, sets, tuples, intervals, relations, words.

use super::expr::{Expr, integer};
use super::lex::{Tok, Token, lex};
use super::scalar::{GREEK, is, scalar, scalar_with_unit};

/// Deepest nesting of brackets and functions.
pub(super) const MAX_DEPTH: usize = 40;

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
    let short = tokens.len() <= 12 && tokens.iter().filter(|t| matches!(t.tok, Tok::Word(_))).count() <= 3;
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
    let infinite = |sign: i64| Bound { at: Expr::Mul(vec![integer(sign), Expr::Var("infty".into())]), closed: false };
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
