//! Equations, inequalities, residues and ratios.

use super::expr::{Expr, integer};
use super::lex::{Tok, Token};
use super::parse::{Reader, Value, is_comma, is_word, nesting, split};
use super::scalar::{GREEK, is, is_cmd, scalar, shown};

/// Signs of relations: each as one letter.
pub(super) fn relation_sign(tok: &Tok) -> Option<char> {
    Some(match tok {
        Tok::Sym(c @ ('=' | '<' | '>')) => *c,
        Tok::Cmd(c) => match c.as_str() {
            "le" => 'l',
            "ge" => 'g',
            "ne" => 'n',
            "approx" => '~',
            "equiv" | "cong" => '=',
            _ => return None,
        },
        _ => return None,
    })
}

/// `(x, y) = (1, 2)` says `x = 1, y = 2`.
pub(super) fn assign(tokens: &[Token], name: String, value: Value) -> Value {
    if is(tokens.first(), '(')
        && let Some(parts) = split(&tokens[1..tokens.len().saturating_sub(1)], is_comma)
        && let Value::Tuple(items) = &value
        && parts.len() == items.len()
        && let Some(names) = parts.iter().map(|p| name_of(p)).collect::<Option<Vec<_>>>()
    {
        let each = names.into_iter().zip(items).map(|(n, v)| Value::Assignment(n, Box::new(v.clone())));
        return Value::List(each.collect());
    }
    match value {
        // x = \pm 3 gives two values of x.
        Value::List(items) => {
            Value::List(items.into_iter().map(|v| Value::Assignment(name.clone(), Box::new(v))).collect())
        }
        value => Value::Assignment(name, Box::new(value)),
    }
}

/// A row of values without units.
fn row(items: &[Value]) -> Option<Vec<Vec<Expr>>> {
    let plain = |v: &Value| if let Value::Scalar(e, None) = v { Some(e.clone()) } else { None };
    Some(vec![items.iter().map(plain).collect::<Option<Vec<_>>>()?])
}

/// A column of names beside one of values.
fn columns(names: &[Vec<Expr>], rows: &[Vec<Expr>]) -> Option<Value> {
    let (names, values): (Vec<&Expr>, Vec<&Expr>) = (names.iter().flatten().collect(), rows.iter().flatten().collect());
    if names.len() != values.len() {
        return None;
    }
    let each = names
        .into_iter()
        .zip(values)
        .map(|(n, v)| Some(Value::Assignment(n.as_variable()?.to_owned(), Box::new(Value::Scalar(v.clone(), None)))));
    each.collect::<Option<Vec<_>>>().map(Value::List)
}

/// The one variable that `tokens` are.
pub(super) fn variable_of(tokens: &[Token]) -> Option<String> {
    match tokens {
        [Token { tok: Tok::Word(w), .. }] if w.chars().count() == 1 => Some(w.clone()),
        [Token { tok: Tok::Cmd(c), .. }] if GREEK.contains(&c.as_str()) => Some(c.clone()),
        _ => None,
    }
}

/// The name on the left of an assignment: `x`, `x_1`, `f(x)`, `f^{-1}(x)`, `(x, y)`, a word or two.
pub(super) fn name_of(tokens: &[Token]) -> Option<String> {
    // (f \circ g)(x)
    if let [open, f, circ, g, close, rest @ ..] = tokens
        && is(Some(open), '(')
        && is_cmd(Some(circ), "circ")
        && is(Some(close), ')')
        && let (Some(f), Some(g)) = (variable_of(std::slice::from_ref(f)), variable_of(std::slice::from_ref(g)))
        && let [open, Token { tok: Tok::Word(x), .. }, close] = rest
        && is(Some(open), '(')
        && is(Some(close), ')')
    {
        return Some(format!("{f}({g}({x}))"));
    }
    // P(X > 2), P(A \mid B)
    if let [Token { tok: Tok::Word(p), .. }, open, inner @ .., close] = tokens
        && matches!(p.as_str(), "P" | "Pr")
        && is(Some(open), '(')
        && is(Some(close), ')')
        && !inner.is_empty()
        && split(inner, |_| false).is_some()
    {
        return Some(tokens.iter().map(|t| shown(&t.tok)).collect());
    }
    let words = tokens.iter().filter(|t| matches!(t.tok, Tok::Word(_))).count();
    let plain = tokens.iter().all(|t| match &t.tok {
        Tok::Word(_) | Tok::Text(_) | Tok::Num(_) => true,
        Tok::Cmd(c) => {
            GREEK.contains(&c.as_str()) || matches!(c.as_str(), "angle" | "triangle") || c.starts_with("name ")
        }
        Tok::Sym(c) => matches!(c, '_' | '(' | ')' | ',' | '{' | '}' | '^' | '-' | '\'' | '|'),
    });
    let starts = match tokens.first().map(|t| &t.tok) {
        Some(Tok::Word(w)) => !super::function::is_function(w) && !matches!(w.as_str(), "sqrt" | "pi"),
        Some(Tok::Text(_) | Tok::Cmd(_)) => true,
        Some(Tok::Sym('(')) => tokens.len() > 3 && words > 1 && tokens.iter().any(|t| is(Some(t), ',')),
        _ => false,
    };
    let long = tokens.iter().filter(|t| matches!(&t.tok, Tok::Word(w) if w.chars().count() > 2)).count();
    if tokens.len() > 14 || words > 5 || long > 2 || !plain || !starts {
        return None;
    }
    // e = ... and i = ... are names of variables only where nothing else can be meant.
    for (i, t) in tokens.iter().enumerate() {
        let behind = |sign: char| i > 0 && is(tokens.get(i - 1), sign);
        match &t.tok {
            // 2x, x^2, a - b and x(x + 1) are expressions; f^{-1}(x) and x_{n-1} are names.
            // Q1
            Tok::Num(_) if i == 1 && tokens.len() == 2 && !t.spaced => {}
            Tok::Num(n) if !(behind('_') || behind('{') || behind('(') || (behind('-') && n == "1")) => return None,
            Tok::Sym('-') if !(behind('{') || behind('(') || tokens[..i].iter().any(|t| is(Some(t), '_'))) => {
                return None;
            }
            Tok::Sym('^') if !is(tokens.last(), ')') && !is(tokens.get(i + 1), '\'') => return None,
            Tok::Sym('|') => return None,
            _ => {}
        }
    }
    // x(x) reads as a function; x(a)(b) and (x)(y) as products.
    if tokens.iter().filter(|t| is(Some(t), '(')).count() > 1 {
        return None;
    }
    let text: String = tokens
        .iter()
        .filter(|t| !matches!(t.tok, Tok::Sym('{' | '}')))
        .map(|t| shown(&t.tok).trim_start_matches("name ").to_owned())
        .collect();
    Some(text)
}

/// What joins the names that are given one value.
pub(super) const SAME: &str = " = ";

/// A letter, with or without an index.
fn letter(tokens: &[Token]) -> Option<String> {
    let (first, rest) = tokens.split_first()?;
    variable_of(std::slice::from_ref(first))?;
    if rest.is_empty() || is(rest.first(), '_') { name_of(tokens) } else { None }
}

/// Words that say what an equation is of.
const LABELS: [&str; 39] = [
    "arithmetic",
    "geometric",
    "progression",
    "sequence",
    "series",
    "vertical",
    "horizontal",
    "oblique",
    "slant",
    "asymptote",
    "asymptotes",
    "line",
    "lines",
    "curve",
    "equation",
    "equations",
    "tangent",
    "normal",
    "axis",
    "symmetry",
    "of",
    "the",
    "directrix",
    "plane",
    "parabola",
    "circle",
    "ellipse",
    "hyperbola",
    "is",
    "are",
    "at",
    "solution",
    "solutions",
    "root",
    "roots",
    "general",
    "particular",
    "function",
    "inverse",
];

/// What stands behind such words, also behind a colon: the left side of an equation.
fn behind_labels(tokens: &[Token]) -> &[Token] {
    let words = tokens.iter().take_while(|t| is_word(&t.tok, &LABELS)).count();
    let colon = usize::from(words > 0 && is(tokens.get(words), ':'));
    &tokens[words + colon..]
}

/// A letter without the words that say what it is the equation of: "vertical asymptote x".
fn unlabelled(tokens: &[Token]) -> &[Token] {
    let words = tokens.iter().take_while(|t| is_word(&t.tok, &LABELS)).count();
    match &tokens[words..] {
        [Token { tok: Tok::Word(_), .. }] if words > 0 => &tokens[words..],
        [letter, under, ..]
            if words > 0 && variable_of(std::slice::from_ref(letter)).is_some() && is(Some(under), '_') =>
        {
            &tokens[words..]
        }
        [letter, open, .., close]
            if words > 0
                && variable_of(std::slice::from_ref(letter)).is_some()
                && is(Some(open), '(')
                && is(Some(close), ')') =>
        {
            &tokens[words..]
        }
        _ => tokens,
    }
}

impl Reader<'_> {
    /// `\frac{x - 1}{2} = \frac{y}{3} = z`: a line by its symmetric equations.
    fn symmetric(&self, parts: &[&[Token]], signs: &[char]) -> Option<Value> {
        if parts.len() < 3 || signs.iter().any(|s| *s != '=') {
            return None;
        }
        let sides: Vec<Expr> = parts.iter().map(|p| scalar(p, self.steps)).collect::<Option<_>>()?;
        let letters: Vec<Vec<String>> = sides.iter().map(Expr::variables).collect();
        let axis = |v: &Vec<String>| matches!(v.as_slice(), [n] if matches!(n.as_str(), "x" | "y" | "z" | "x_1" | "x_2" | "x_3"));
        let distinct = (1..letters.len()).all(|n| !letters[..n].contains(&letters[n]));
        let each = sides.windows(2).map(|w| Value::Equation(w[0].clone(), w[1].clone())).collect();
        (distinct && letters.iter().all(axis)).then_some(Value::List(each))
    }

    /// `x \equiv 3 \pmod 7`, `3 (mod 7)`.
    pub(super) fn residue(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let at = tokens.iter().position(|t| match &t.tok {
            Tok::Cmd(c) => matches!(c.as_str(), "pmod" | "mod"),
            t => is_word(t, &["mod", "modulo"]),
        })?;
        let unbracketed = at > 0 && is(tokens.get(at - 1), '(');
        let mut left = &tokens[..at - usize::from(unbracketed)];
        let mut right = &tokens[at + 1..];
        if unbracketed {
            right = right.strip_suffix(&[Token { tok: Tok::Sym(')'), spaced: right.last()?.spaced }]).unwrap_or(right);
        }
        let modulus = scalar(right, self.steps)?;
        if let Some(equals) = left.iter().rposition(|t| relation_sign(&t.tok) == Some('=')) {
            left = &left[equals + 1..];
        } else if is_cmd(tokens.get(at), "mod") && !unbracketed {
            return None;
        }
        Some(self.value(left, depth + 1).map(|v| Value::Residue(Box::new(v), modulus)))
    }

    /// Relations outside brackets; `Some(None)` when there is one that cannot be read.
    pub(super) fn relation(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let mut signs = Vec::new();
        let mut level = 0;
        for t in tokens {
            level += nesting(&t.tok);
            if level == 0 {
                signs.extend(relation_sign(&t.tok));
            }
        }
        if signs.is_empty() {
            return None;
        }
        // H_0: \mu = 50
        if let [Token { tok: Tok::Word(h), .. }, rest @ ..] = tokens
            && h.starts_with('H')
            && let Some(colon) = rest.iter().take(6).position(|t| is(Some(t), ':'))
            && let Some(name) = name_of(&tokens[..=colon])
        {
            let value = self.value(&rest[colon + 1..], depth + 1)?;
            return Some(Some(Value::Assignment(name, Box::new(value))));
        }
        let parts = split(tokens, |t| relation_sign(t).is_some())?;
        if signs.iter().all(|&s| s == '=' || s == '~') {
            return Some(self.equation(&parts, &signs, depth));
        }
        Some(self.inequality(&parts, &signs))
    }

    /// `x = 5`, `f(x) = 2x + 1`, `a = 2 + 3 = 5`, `x + y = 1`.
    pub(super) fn equation(&self, parts: &[&[Token]], signs: &[char], depth: usize) -> Option<Value> {
        // What stands before "about" is exact.
        let all = parts;
        let about = signs.iter().position(|&s| s == '~');
        let parts = match about {
            Some(n) if n > 0 || name_of(parts[0]).is_none() => &parts[..=n],
            _ => parts,
        };
        let parts = match about {
            // "about 7"
            Some(0) if parts[0].is_empty() => all,
            _ => parts,
        };
        if let Some(v) = self.symmetric(parts, signs).or_else(|| self.named_ratio(parts, depth)) {
            return Some(v);
        }
        let (first, last) = (parts.first()?, parts.last()?);
        let first = &unlabelled(first);
        if last.is_empty() {
            return None;
        }
        if parts.len() == 1 {
            return self.value(last, depth + 1);
        }
        if first.is_empty() {
            // "= 5", as a line of a calculation.
            return self.value(last, depth + 1);
        }
        // f(g(x)) = ...
        if let Some(Expr::Apply(f, outer)) = scalar(first, self.steps)
            && let [Expr::Apply(g, inner)] = outer.as_slice()
            && let [Expr::Var(x)] = inner.as_slice()
        {
            let value = self.value(last, depth + 1)?;
            return Some(Value::Assignment(format!("{f}({g}({x}))"), Box::new(value)));
        }
        if let Some(name) = name_of(first) {
            let value = self.value(last, depth + 1)?;
            // x_1 = x_2 = 3: each has the value.
            let names = || parts[..parts.len() - 1].iter().map(|p| letter(p)).collect::<Option<Vec<_>>>();
            let constant = matches!(&value, Value::Scalar(e, _) if !e.has_variables());
            return Some(match names().filter(|n| n.len() > 1 && constant) {
                Some(names) => Value::Assignment(names.join(SAME), Box::new(value)),
                None => assign(first, name, value),
            });
        }
        let side = |p: &&[Token]| scalar(p, self.steps).or_else(|| scalar(behind_labels(p), self.steps));
        let sides: Vec<Option<Expr>> = parts.iter().map(side).collect();
        match sides.as_slice() {
            [Some(a), Some(b)] if a.has_variables() || b.has_variables() => {
                // The name of a matrix, or a column of names.
                if b.any(|p| matches!(p, Expr::Matrix(_))) {
                    let value = self.value(last, depth + 1)?;
                    return Some(match (a, &value) {
                        (Expr::Matrix(names), Value::Matrix(rows)) => columns(names, rows)?,
                        (Expr::Matrix(names), Value::Tuple(items)) => columns(names, &row(items)?)?,
                        _ => value,
                    });
                }
                // What a sum or a derivative comes to.
                let operated = |e: &Expr| e.any(|p| matches!(p, Expr::Bound(_)));
                if operated(a) && !operated(b) {
                    return Some(Value::Scalar(b.clone(), None));
                }
                if let Some(name) = a.as_variable() {
                    return Some(Value::Assignment(name.to_owned(), Box::new(Value::Scalar(b.clone(), None))));
                }
                // 5 = x says the same as x = 5.
                match b.as_variable() {
                    Some(name) if !a.has_variables() => {
                        Some(Value::Assignment(name.to_owned(), Box::new(Value::Scalar(a.clone(), None))))
                    }
                    _ => Some(Value::Equation(a.clone(), b.clone())),
                }
            }
            [Some(first), .., Some(b)] if first.has_variables() && !b.has_variables() => {
                Some(Value::Equation(first.clone(), b.clone()))
            }
            // An equation that is not understood comes to nothing.
            [None, Some(b)] if *b == integer(0) => None,
            // A calculation: its result, with its unit.
            [Some(_), ..] | [.., Some(_)] => {
                // 8 = k, with the name behind.
                if let Some(name) = name_of(last).filter(|_| parts.len() == 2) {
                    return Some(Value::Assignment(name, Box::new(self.value(first, depth + 1)?)));
                }
                self.value(last, depth + 1)
            }
            // A \cap B = \{2\}: the name of a set or a vector.
            _ => self.value(last, depth + 1).filter(|v| {
                matches!(v, Value::Set(_) | Value::Region(_) | Value::Tuple(_) | Value::Matrix(_) | Value::Named(_))
            }),
        }
    }
}
