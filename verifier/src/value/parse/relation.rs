//! Parses equations, inequalities, residues and ratios.

use crate::steps::Rational;
use crate::value::expr::{Expr, divide, integer, is_function, minus, negate, number};
use crate::value::lex::{Tok, Token, is, is_cmd, is_greek, shown};
use crate::value::parse::{Reader, is_comma, is_word, one_or_list, outside, split};
use crate::value::region::{Region, Span, infinity};
use crate::value::scalar::{scalar, scalar_with_unit};
use crate::value::{Value, exact};

/// Returns the relation that a token stands for, as one letter.
pub(crate) fn relation_sign(tok: &Tok) -> Option<char> {
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

/// Assigns a value to a name. `(x, y) = (1, 2)` becomes `x = 1, y = 2`.
pub(crate) fn assign(tokens: &[Token], name: String, value: Value) -> Value {
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
        // x = \pm 3 assigns two values to x.
        Value::List(items) => {
            Value::List(items.into_iter().map(|v| Value::Assignment(name.clone(), Box::new(v))).collect())
        }
        value => Value::Assignment(name, Box::new(value)),
    }
}

/// Returns true for tokens that only name a value: words, or an operation that the parser does not compute.
fn named(tokens: &[Token]) -> bool {
    let word = |t: &Token| matches!(&t.tok, Tok::Word(w) | Tok::Text(w) if w.chars().count() > 1 || w == "a");
    let operation = matches!(&tokens[0].tok, Tok::Cmd(c) if matches!(c.as_str(), "int" | "iint" | "sum" | "prod" | "lim" | "nabla" | "angle" | "triangle"));
    operation || tokens.iter().all(word)
}

/// Returns the name of a probability or a mean: `P(X = 2)`, `E[X]`.
fn probability(tokens: &[Token]) -> Option<String> {
    let [Token { tok: Tok::Word(w) | Tok::Cmd(w), .. }, open, inner @ .., close] = tokens else { return None };
    let bracketed = (is(Some(open), '(') && is(Some(close), ')')) || (is(Some(open), '[') && is(Some(close), ']'));
    let known = matches!(w.as_str(), "P" | "Pr" | "E" | "mathbbE" | "mathbbP" | "Var");
    (known && bracketed && !inner.is_empty()).then(|| tokens.iter().map(|t| shown(&t.tok)).collect())
}

/// Returns the name if `tokens` are a single variable.
pub(crate) fn variable_of(tokens: &[Token]) -> Option<String> {
    match tokens {
        [Token { tok: Tok::Word(w), .. }] if w.chars().count() == 1 => Some(w.clone()),
        [Token { tok: Tok::Cmd(c), .. }] if is_greek(c) => Some(c.clone()),
        _ => None,
    }
}

/// Returns true for a number before a name, as in the middle of "a = 1 b = 2".
fn ends_in_name(part: &[Token]) -> bool {
    let plain = |c: &str| matches!(c, "\\" | "cr" | "frac");
    let unnamed = |t: &Token| matches!(&t.tok, Tok::Cmd(c) if plain(c)) || matches!(t.tok, Tok::Num(_) | Tok::Sym(_));
    matches!(part, [number @ .., name] if name.spaced && !unnamed(name) && !number.is_empty() && number.iter().all(unnamed))
}

/// Returns the name on the left of an assignment: `x`, `x_1`, `f(x)`, `f^{-1}(x)`, `(x, y)`, or a few words.
pub(crate) fn name_of(tokens: &[Token]) -> Option<String> {
    let words = tokens.iter().filter(|t| matches!(t.tok, Tok::Word(_))).count();
    let plain = tokens.iter().all(|t| match &t.tok {
        Tok::Word(_) | Tok::Text(_) | Tok::Num(_) => true,
        Tok::Cmd(c) => is_greek(c) || matches!(c.as_str(), "angle" | "triangle") || c.starts_with("name "),
        Tok::Sym(c) => matches!(c, '_' | '(' | ')' | ',' | '{' | '}' | '^' | '-' | '\'' | '|'),
    });
    let starts = match tokens.first().map(|t| &t.tok) {
        Some(Tok::Word(w)) => !is_function(w) && !matches!(w.as_str(), "sqrt" | "pi"),
        Some(Tok::Text(_) | Tok::Cmd(_)) => true,
        Some(Tok::Sym('(')) => tokens.len() > 3 && words > 1 && tokens.iter().any(|t| is(Some(t), ',')),
        _ => false,
    };
    let long = tokens.iter().filter(|t| matches!(&t.tok, Tok::Word(w) if w.chars().count() > 2)).count();
    if tokens.len() > 14 || words > 5 || long > 2 || !plain || !starts {
        return None;
    }
    // The loop rejects expressions that are not names.
    for (i, t) in tokens.iter().enumerate() {
        let behind = |sign: char| i > 0 && is(tokens.get(i - 1), sign);
        match &t.tok {
            // 2x, x^2, a - b and x(x + 1) are expressions. Q1, f^{-1}(x) and x_{n-1} are names.
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
    // x(x) is a function. x(a)(b) and (x)(y) are products.
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

impl Reader<'_> {
    /// Parses `x \equiv 3 \pmod 7`, `3 (mod 7)` and `10 \bmod 7`.
    pub(crate) fn residue(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let at = tokens.iter().position(|t| match &t.tok {
            Tok::Cmd(c) => matches!(c.as_str(), "pmod" | "mod" | "bmod"),
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

    /// Parses the relations outside brackets. Returns `Some(None)` if a relation exists but cannot be parsed.
    pub(crate) fn relation(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let signs: Vec<char> = outside(tokens).filter_map(relation_sign).collect();
        if signs.is_empty() {
            return None;
        }
        let parts = split(tokens, |t| relation_sign(t).is_some())?;
        if signs.iter().all(|&s| s == '=' || s == '~') {
            return Some(self.equation(&parts, &signs, depth));
        }
        Some(self.inequality(&parts, &signs))
    }

    /// Parses `x = 5`, `f(x) = 2x + 1`, `a = 2 + 3 = 5`, `x + y = 1`.
    pub(crate) fn equation(&self, parts: &[&[Token]], signs: &[char], depth: usize) -> Option<Value> {
        // The value before "about" is exact.
        let parts = match signs.iter().position(|&s| s == '~') {
            // "about 7" has no exact value before it.
            Some(0) if parts[0].is_empty() => parts,
            Some(n) if n > 0 || name_of(parts[0]).is_none() => &parts[..=n],
            _ => parts,
        };
        let (first, last) = (parts.first()?, parts.last()?);
        if last.is_empty() {
            return None;
        }
        // "= 5" as a line of a calculation has an empty first part.
        if parts.len() == 1 || first.is_empty() {
            return self.value(last, depth + 1);
        }
        if let Some(name) = name_of(first) {
            if parts[1..parts.len() - 1].iter().any(|part| ends_in_name(part)) {
                return None;
            }
            let value = self.value(last, depth + 1)?;
            return Some(assign(first, name, value));
        }
        let sides: Vec<Option<Expr>> = parts.iter().map(|p| scalar(p, self.steps)).collect();
        match sides.as_slice() {
            [Some(a), Some(b)] if a.has_variables() || b.has_variables() => {
                // The left side names a matrix or a column of variables.
                if b.any(|p| matches!(p, Expr::Matrix(_))) {
                    return self.value(last, depth + 1);
                }
                if let Some(name) = a.as_variable() {
                    return Some(Value::Assignment(name.to_owned(), Box::new(Value::Scalar(b.clone(), None))));
                }
                // 5 = x means the same as x = 5.
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
            // Sides with different letters are several equations and not one calculation.
            [Some(first), _, .., Some(b)]
                if first.has_variables() && b.variables().iter().any(|v| !first.variables().contains(v)) =>
            {
                None
            }
            // A calculation is replaced by its result and unit.
            [Some(_), ..] | [.., Some(_)] => {
                if let Some(name) = probability(first) {
                    return Some(Value::Assignment(name, Box::new(self.value(last, depth + 1)?)));
                }
                if sides[0].is_none() && !named(first) && scalar_with_unit(first, self.steps).is_none() {
                    return None;
                }
                // The name may be on the right: 8 = k.
                if let Some(name) = name_of(last).filter(|_| parts.len() == 2) {
                    return Some(Value::Assignment(name, Box::new(self.value(first, depth + 1)?)));
                }
                self.value(last, depth + 1)
            }
            // The left side names a set or a vector: A \cap B = \{2\}.
            _ => self
                .value(last, depth + 1)
                .filter(|v| matches!(v, Value::Set(_) | Value::Region(_) | Value::Tuple(_) | Value::Matrix(_))),
        }
    }

    /// Parses a chain of inequalities. The result is the region of its only variable, if it can be solved.
    pub(crate) fn inequality(&self, parts: &[&[Token]], signs: &[char]) -> Option<Value> {
        let exprs: Vec<Expr> = parts.iter().map(|p| scalar(p, self.steps)).collect::<Option<_>>()?;
        let mut variables: Vec<String> = exprs.iter().flat_map(Expr::variables).collect();
        variables.sort();
        variables.dedup();
        let mut solved: Option<Region> = None;
        let mut open: Vec<Value> = Vec::new();
        for (pair, &sign) in exprs.windows(2).zip(signs) {
            let (a, b) = (&pair[0], &pair[1]);
            let region = match variables.as_slice() {
                [name] => self.solve(name, a, b, sign),
                _ => None,
            };
            match region {
                Some(r) => {
                    solved = Some(match solved {
                        Some(s) => s.intersection(&r, self.steps)?,
                        None => r,
                    });
                }
                None => open.push(match sign {
                    '<' | 'l' => Value::Positive(minus(b.clone(), a.clone()), sign == '<'),
                    '>' | 'g' => Value::Positive(minus(a.clone(), b.clone()), sign == '>'),
                    '=' => Value::Equation(a.clone(), b.clone()),
                    _ => return None,
                }),
            }
        }
        if let Some(mut region) = solved.filter(|_| open.is_empty()) {
            region.variable = variables.pop();
            return Some(Value::Region(region));
        }
        if open.len() + 1 < exprs.len() {
            return None;
        }
        one_or_list(open)
    }

    /// Solves `a < b` if one side is linear in the variable, or is the absolute value of a linear expression.
    pub(crate) fn solve(&self, name: &str, a: &Expr, b: &Expr, sign: char) -> Option<Region> {
        let up = matches!(sign, '<' | 'l');
        let strict = matches!(sign, '<' | '>' | 'n');
        for (x, c, below) in [(a, b, up), (b, a, !up)] {
            if c.variables().iter().any(|n| n == name) {
                continue;
            }
            if let Expr::Call("abs", inner) = x
                && !matches!(sign, '=' | 'n')
            {
                // |x| >= c is the complement of |x| < c.
                let span = Span::between(negate(c.clone()), c.clone(), strict != below);
                let region = self.preimage(name, &inner[0], Region::new(vec![span]))?;
                return if below { Some(region) } else { region.complement(self.steps) };
            }
            let region = Region::new(vec![match sign {
                'n' | '=' => Span::point(c.clone()),
                _ if below => Span { high: c.clone(), high_closed: !strict, ..Span::all() },
                _ => Span { low: c.clone(), low_closed: !strict, ..Span::all() },
            }]);
            let region = if sign == 'n' { region.complement(self.steps)? } else { region };
            if let Some(r) = self.preimage(name, x, region) {
                return Some(r);
            }
        }
        None
    }

    /// Returns the values of the variable for which a linear expression lies in a region.
    pub(crate) fn preimage(&self, name: &str, x: &Expr, region: Region) -> Option<Region> {
        if x.as_variable() == Some(name) {
            return Some(region);
        }
        let at = |n: i64| exact::exact(&x.replace(name, &integer(n)), self.steps);
        let (zero, one, two) = (at(0)?, at(1)?, at(2)?);
        let slope = &one - &zero;
        let none = Rational::from_integer(0.into());
        if two - one != slope || slope == none {
            return None;
        }
        let back = |e: &Expr| match e.is_infinite() {
            Some(s) => infinity((s < 0) != (slope < none)),
            None => divide(minus(e.clone(), number(zero.clone())), number(slope.clone())),
        };
        let spans = region.spans.iter().map(|s| {
            let (low, high) = (back(&s.low), back(&s.high));
            if slope < none {
                Span { low: high, low_closed: s.high_closed, high: low, high_closed: s.low_closed }
            } else {
                Span { low, high, ..s.clone() }
            }
        });
        Some(Region::new(spans.collect()))
    }

    /// Parses `2 to 3`, `from -1 to 1`, `0% to 5%`.
    pub(crate) fn range(&self, tokens: &[Token]) -> Option<Value> {
        let from = usize::from(is_word(&tokens.first()?.tok, &["from"]));
        let to = tokens.iter().position(|t| is_word(&t.tok, &["to"])).filter(|at| *at > from)?;
        let (low, unit) = scalar_with_unit(&tokens[from..to], self.steps)?;
        let (high, other) = scalar_with_unit(&tokens[to + 1..], self.steps)?;
        let number = |e: &Expr| matches!(e, Expr::Num { .. });
        let alike = unit.is_none() || unit == other;
        (number(&low) && number(&high) && alike).then_some(Value::Range(low, high, other))
    }

    /// Parses `2 : 3` and `6:45 PM`.
    pub(crate) fn ratio(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        // Proportions: 1 in 4, 1 out of 4.
        let word = |n: usize, w: &str| matches!(tokens.get(n).map(|t| &t.tok), Some(Tok::Word(t)) if t == w);
        let number = |n: usize| matches!(tokens.get(n).map(|t| &t.tok), Some(Tok::Num(_)));
        let between = usize::from(word(1, "in")) + 2 * usize::from(word(1, "out") && word(2, "of"));
        if between > 0 && number(0) && number(1 + between) && tokens.len() == 2 + between {
            let both = (scalar(&tokens[..1], self.steps)?, scalar(&tokens[1 + between..], self.steps)?);
            return Some(Some(Value::Ratio(vec![both.0, both.1])));
        }
        let parts = split(tokens, |t| *t == Tok::Sym(':'))?;
        if parts.len() < 2 {
            return None;
        }
        // A label before the value: "median: 4".
        if let [name, value] = parts.as_slice()
            && let Some(name) = name_of(name).filter(|n| n.len() > 2 && n.chars().all(|c| c.is_alphabetic()))
        {
            return Some(self.value(value, depth + 1).map(|v| Value::Assignment(name, Box::new(v))));
        }
        let last = parts.last()?;
        let behind: String = last[1.min(last.len())..].iter().map(|t| shown(&t.tok).to_lowercase()).collect();
        let half = match behind.replace(['.', ' '], "").as_str() {
            "am" => Some(0),
            "pm" => Some(12),
            _ => None,
        };
        if let ([[Token { tok: Tok::Num(h), .. }], [Token { tok: Tok::Num(m), .. }, ..]], Some(half)) =
            (parts.as_slice(), half)
        {
            let (h, m) = (h.parse::<u32>().ok()?, m.parse::<u32>().ok()?);
            return Some((h <= 12 && m < 60).then_some(Value::Time((h % 12 + half) * 60 + m)));
        }
        let exprs: Option<Vec<Expr>> = parts.iter().map(|p| scalar(p, self.steps)).collect();
        Some(exprs.map(Value::Ratio))
    }
}
