//! Tokens to values. The grammar, from the outside in; LaTeX and plain text are one language here.
//!
//! ```text
//! answer     := item ((',' | ';' | 'and' | 'or') item)*          a list; of inequalities: both, or either
//! item       := name '=' answer | expr ('=' expr)+               an assignment, an equation, a chain of results
//!             | expr (('<' | '<=' | '!=' ...) expr)+             an inequality: a region where it can be solved
//!             | name 'in' set | set (('cup' | 'cap' | '\') set)+
//!             | expr 'equiv' expr 'pmod' expr | expr (':' expr)+ a residue, a ratio or a time of day
//!             | bracketed | expr 'pm' expr | quantity | words
//! bracketed  := '(' list ')' | '[' list ']' | '\{' list '\}' | '\langle' list '\rangle'
//!             | ('(' | '[') expr ',' expr (')' | ']')            an interval, where the brackets say so
//!             | '\{' name ('|' | ':') answer '\}' | environment of rows
//! quantity   := currency? expr ('million' | 'dozen' | ...)? unit?
//! unit       := '%' | 'degrees' | (word ('^' digit)?) (('/' | 'per' | '*') word ('^' digit)?)* | '_' base
//! expr       := term (('+' | '-') term)*
//! term       := sign* factor (('*' | '/' | 'mod')? factor)*      side by side is a product
//! factor     := digits frac | primary ('!' | '%' | '^' exponent | degree sign)*
//! primary    := number | name | function argument | '(' expr ')' | '|' expr '|' | frac | root | binomial
//!             | floor | sum | product | integral | limit | derivative | matrix
//! number     := digits with thousands separators, a point, repeating digits, an exponent, a base; or words
//! ```

use super::expr::{Expr, divide, integer, minus, negate};
use super::lex::{Tok, Token, lex};
use super::matrix::{Folded, Rows, fold};
use super::region::{Region, Span, infinity};
use super::scalar::{GREEK, is, is_cmd, scalar, scalar_with_unit, shown};
use super::unit::{self, Part, Unit};
use super::{Rational, Steps, exact, number_words};

/// Deepest nesting of brackets and functions.
pub(super) const MAX_DEPTH: usize = 60;
/// Most members of a list.
const MAX_ITEMS: usize = 400;

/// What an answer says.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A number or expression, and its unit.
    Scalar(Expr, Option<Unit>),
    /// `a, b and c`: order does not matter.
    List(Vec<Value>),
    /// `\{a, b\}`: neither order nor repetition matter.
    Set(Vec<Value>),
    /// `(a, b)` and longer: order matters. With two parts it may be an open interval as well.
    Tuple(Vec<Value>),
    /// A set of real numbers.
    Region(Region),
    /// Whole, natural, rational or complex numbers.
    Named(String),
    /// Rows.
    Matrix(Rows),
    /// `name = value`.
    Assignment(String, Box<Value>),
    /// Another equation: both sides.
    Equation(Expr, Expr),
    /// `expr > 0`, or `>= 0`.
    Positive(Expr, bool),
    /// A residue and its modulus.
    Residue(Box<Value>, Expr),
    /// `a : b : c`.
    Ratio(Vec<Expr>),
    /// A time of day in minutes.
    Time(u32),
    /// Words.
    Text(String),
}

/// Reads `text`; what is no mathematics is words.
pub fn parse(text: &str, grouped: bool, steps: &Steps) -> Value {
    lex(text, grouped, steps)
        .and_then(|tokens| Reader { steps }.value(&tokens, 0))
        .unwrap_or_else(|| Value::Text(text.trim().to_owned()))
}

/// Change of nesting at a token.
fn nesting(tok: &Tok) -> i32 {
    match tok {
        Tok::Sym('(' | '[' | '{') => 1,
        Tok::Sym(')' | ']' | '}') => -1,
        Tok::Cmd(c) => match c.as_str() {
            "{" | "langle" | "lfloor" | "lceil" => 1,
            "}" | "rangle" | "rfloor" | "rceil" => -1,
            c if c.starts_with("begin ") => 1,
            c if c.starts_with("end ") => -1,
            _ => 0,
        },
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
        Tok::Word(w) | Tok::Text(w) => words.contains(&w.trim().to_lowercase().trim_matches([',', ' '])),
        _ => false,
    }
}

fn is_comma(tok: &Tok) -> bool {
    matches!(tok, Tok::Sym(',' | ';'))
}

fn names(cmd: &'static str) -> impl Fn(&Tok) -> bool {
    move |t: &Tok| matches!(t, Tok::Cmd(c) if c == cmd)
}

/// Signs of relations: each as one letter.
fn relation_sign(tok: &Tok) -> Option<char> {
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

struct Reader<'a> {
    steps: &'a Steps,
}

impl Reader<'_> {
    fn value(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        self.steps.spend(1 + tokens.len() as u64)?;
        let tokens = trimmed(tokens);
        if tokens.is_empty() || depth > MAX_DEPTH {
            return None;
        }
        if let Some(v) = self.environment(tokens, depth) {
            return v;
        }
        let listed = |t: &Tok| is_comma(t) || is_word(t, &["and", "or", "&"]);
        let parts = split(tokens, listed)?;
        if parts.len() > 1 {
            if let Some(number) = self.in_words(tokens) {
                return Some(number);
            }
            return self.list(tokens, parts, depth);
        }
        // A condition behind the answer: "for k in Z", "where n is whole".
        if let Some(at) = tokens.iter().position(|t| {
            is_word(&t.tok, &["where", "for", "with", "if", "when", "for all", "for any", "for some", "such that"])
        }) && at > 0
        {
            return self.value(&tokens[..at], depth + 1);
        }
        // "The answer is" before the value.
        if let [Token { tok: Tok::Text(t), .. }, rest @ ..] = tokens
            && !rest.is_empty()
            && [" is", " are", ":", "=", " equals"].iter().any(|end| t.trim().to_lowercase().ends_with(end))
        {
            return self.value(rest, depth + 1);
        }
        let arrows = split(tokens, names("Rightarrow"))?;
        if let [.., last] = arrows.as_slice()
            && arrows.len() > 1
        {
            return self.value(last, depth + 1);
        }
        if let Some(v) = self.residue(tokens, depth) {
            return v;
        }
        if let Some(v) = self.relation(tokens, depth) {
            return v;
        }
        for (sign, inside) in [("in", true), ("notin", false)] {
            let member = split(tokens, names(sign))?;
            if let [name, set] = member.as_slice() {
                return self.member(name, set, inside, depth);
            }
        }
        if let Some(v) = self.set_arithmetic(tokens, depth) {
            return v;
        }
        if let [Token { tok: Tok::Cmd(c), .. }] = tokens {
            match c.as_str() {
                "emptyset" => return Some(Value::Set(Vec::new())),
                "mathbbR" => return Some(Value::Region(Region::new(vec![Span::all()]))),
                c if c.starts_with("mathbb") => return Some(Value::Named(c[6..].to_owned())),
                _ => {}
            }
        }
        if let Some(v) = self.bracketed(tokens, depth) {
            return v;
        }
        if let Some(v) = self.ratio(tokens) {
            return v;
        }
        if tokens.iter().any(|t| is_cmd(Some(t), "pm") || is_cmd(Some(t), "mp")) {
            return self.plus_minus(tokens, depth);
        }
        self.quantity(tokens).or_else(|| self.in_words(tokens))
    }

    fn quantity(&self, tokens: &[Token]) -> Option<Value> {
        let (e, unit) = scalar_with_unit(tokens, self.steps)?;
        match fold(&e, self.steps)? {
            Folded::Matrix(rows) => Some(Value::Matrix(rows)),
            Folded::Scalar(e) => Some(Value::Scalar(e, unit)),
        }
    }

    /// A number in words, and what is counted.
    fn in_words(&self, tokens: &[Token]) -> Option<Value> {
        let mut words = Vec::new();
        for t in tokens {
            match &t.tok {
                Tok::Word(w) | Tok::Text(w) => {
                    words.extend(w.to_lowercase().replace('-', " ").split_whitespace().map(str::to_owned))
                }
                Tok::Sym('-' | ',') => {}
                _ => return None,
            }
        }
        if matches!(words.first().map(String::as_str), Some("a" | "an")) && words.len() > 1 {
            words.remove(0);
        }
        let list: Vec<&str> = words.iter().map(String::as_str).collect();
        if let [word] = list.as_slice()
            && let Some(n) = number_words::ordinal(word)
        {
            return Some(Value::Scalar(integer(n), Some(Unit::Word("th".to_owned()))));
        }
        let (value, used) = number_words::read(&list)?;
        let name = list[used..].join(" ");
        let name = name.strip_prefix("of ").or(name.strip_prefix("a ")).unwrap_or(&name);
        let unit = if name.is_empty() { None } else { Some(unit::unit(&[Part { name: name.to_owned(), power: 1 }])?) };
        Some(Value::Scalar(super::expr::number(value), unit))
    }

    /// Rows of a system or an aligned calculation.
    fn environment(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let (Tok::Cmd(open), Tok::Cmd(close)) = (&tokens.first()?.tok, &tokens.last()?.tok) else { return None };
        let kind = open.strip_prefix("begin ")?;
        if close.strip_prefix("end ") != Some(kind) || kind.ends_with("matrix") || kind == "array" {
            return None;
        }
        let inside: Vec<Token> = tokens[1..tokens.len() - 1].iter().filter(|t| !is(Some(t), '&')).cloned().collect();
        let rows = split(&inside, |t| matches!(t, Tok::Cmd(c) if c == "\\" || c == "cr"))?;
        let rows: Vec<&[Token]> = rows.into_iter().filter(|r| !r.is_empty()).collect();
        // A calculation goes on from line to line; its last line is the result.
        if rows.len() > 1 && rows[1..].iter().all(|r| relation_sign(&r[0].tok).is_some()) {
            return Some(self.value(rows.last()?, depth + 1));
        }
        let items: Option<Vec<Value>> = rows.into_iter().map(|r| self.value(r, depth + 1)).collect();
        Some(items.and_then(one_or_list))
    }

    fn list(&self, tokens: &[Token], parts: Vec<&[Token]>, depth: usize) -> Option<Value> {
        // Semicolons part more than commas.
        let coarse = split(tokens, |t| *t == Tok::Sym(';'))?;
        let parts = if coarse.len() > 1 && coarse.len() < parts.len() { coarse } else { parts };
        // "a, b, and c" has an empty part before its "and".
        let filled: Vec<&[Token]> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        if filled.len() > MAX_ITEMS {
            return None;
        }
        let mut items: Vec<Value> = Vec::new();
        for part in filled {
            // "k \in \mathbb{Z}" behind a family of solutions only says what k is.
            let member = split(part, names("in"))?;
            let condition =
                is_word(&part[0].tok, &["where", "for", "with", "if", "when", "for all", "for any", "for some"]);
            let whole = member.len() == 2
                && member[1].len() == 1
                && matches!(&member[1][0].tok, Tok::Cmd(c) if c.starts_with("mathbb"));
            if !items.is_empty() && (condition || whole) {
                continue;
            }
            match self.value(part, depth + 1)? {
                // Plus-minus gives two at once.
                Value::List(inner) => items.extend(inner),
                item => items.push(item),
            }
        }
        if items.len() > 1 && items.iter().all(|v| matches!(v, Value::Region(_))) {
            let words = |w: &str| tokens.iter().any(|t| is_word(&t.tok, &[w]));
            let regions: Vec<Region> =
                items.iter().filter_map(|v| if let Value::Region(r) = v { Some(r.clone()) } else { None }).collect();
            // Bounds on different variables are a system, not one set.
            let first = regions[0].variable.clone();
            if regions.iter().all(|r| r.variable == first) {
                let both = || regions[1..].iter().try_fold(regions[0].clone(), |a, b| a.intersection(b, self.steps));
                let either = || regions[1..].iter().cloned().fold(regions[0].clone(), Region::union);
                let joined = if words("or") || first.is_none() {
                    either()
                } else {
                    both().filter(|r| words("and") || !r.is_empty(self.steps)).unwrap_or_else(either)
                };
                return Some(Value::Region(joined));
            }
        }
        one_or_list(items)
    }

    fn member(&self, name: &[Token], set: &[Token], inside: bool, depth: usize) -> Option<Value> {
        let variable = variable_of(name);
        if variable.is_none() && name_of(name).is_none() {
            return None;
        }
        match self.value(set, depth + 1)? {
            Value::Tuple(items) if items.len() == 2 => Some(Value::Region(open_interval(&items)?)),
            Value::Region(r) if inside => Some(Value::Region(r)),
            Value::Region(r) => r.complement(self.steps).map(Value::Region),
            Value::Set(items) if !inside => points(&items)?.complement(self.steps).map(Value::Region),
            v => inside.then_some(v),
        }
    }

    /// Unions, intersections and differences.
    fn set_arithmetic(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let sign = |t: &Tok| match t {
            Tok::Cmd(c) => matches!(c.as_str(), "cup" | "cap" | "setminus"),
            Tok::Word(w) => w == "U",
            _ => false,
        };
        let signs = |t: &&Token| sign(&t.tok);
        if !tokens.iter().any(|t| signs(&t)) {
            return None;
        }
        let mut level = 0;
        let mut ops = Vec::new();
        for t in tokens {
            level += nesting(&t.tok);
            if level == 0 && sign(&t.tok) {
                ops.push(shown(&t.tok));
            }
        }
        if ops.is_empty() {
            return None;
        }
        let parts = split(tokens, sign)?;
        let values: Option<Vec<Value>> = parts.into_iter().map(|p| self.value(p, depth + 1)).collect();
        let Some(values) = values else { return Some(None) };
        let mut regions = Vec::new();
        for v in &values {
            match as_region(v) {
                Some(r) => regions.push(r),
                None => return Some(set_of_points(values.clone(), &ops)),
            }
        }
        let mut total = regions.remove(0);
        for (op, r) in ops.iter().zip(regions) {
            let next = match op.as_str() {
                "cap" => total.intersection(&r, self.steps),
                "setminus" => r.complement(self.steps).and_then(|c| total.intersection(&c, self.steps)),
                _ => Some(total.clone().union(r)),
            };
            match next {
                Some(next) => total = next,
                None => return Some(None),
            }
        }
        Some(Some(Value::Region(total)))
    }

    /// `x \equiv 3 \pmod 7`, `3 (mod 7)`.
    fn residue(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
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
    fn relation(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
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
        let parts = split(tokens, |t| relation_sign(t).is_some())?;
        if signs.iter().all(|&s| s == '=' || s == '~') {
            return Some(self.equation(&parts, &signs, depth));
        }
        Some(self.inequality(&parts, &signs))
    }

    /// `x = 5`, `f(x) = 2x + 1`, `a = 2 + 3 = 5`, `x + y = 1`.
    fn equation(&self, parts: &[&[Token]], signs: &[char], depth: usize) -> Option<Value> {
        // What stands before "about" is exact.
        let about = signs.iter().position(|&s| s == '~');
        let parts = match about {
            Some(n) if n > 0 || name_of(parts[0]).is_none() => &parts[..=n],
            _ => parts,
        };
        let (first, last) = (parts.first()?, parts.last()?);
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
        if let Some(name) = name_of(first) {
            let value = self.value(last, depth + 1)?;
            return Some(assign(first, name, value));
        }
        let sides: Vec<Option<Expr>> = parts.iter().map(|p| scalar(p, self.steps)).collect();
        match sides.as_slice() {
            [Some(a), Some(b)] if a.has_variables() || b.has_variables() => {
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
            // A calculation: its result, with its unit.
            [Some(_), ..] | [.., Some(_)] => {
                // 8 = k, with the name behind.
                if let Some(name) = name_of(last).filter(|_| parts.len() == 2) {
                    return Some(Value::Assignment(name, Box::new(self.value(first, depth + 1)?)));
                }
                self.value(last, depth + 1)
            }
            _ => None,
        }
    }

    /// A chain of inequalities: the region of its one variable where that can be solved.
    fn inequality(&self, parts: &[&[Token]], signs: &[char]) -> Option<Value> {
        let exprs: Vec<Expr> = parts.iter().map(|p| scalar(p, self.steps)).collect::<Option<_>>()?;
        let mut variables: Vec<String> = exprs.iter().flat_map(Expr::variables).collect();
        variables.dedup();
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

    /// `a < b` for a side that is linear in the variable, or the absolute value of such.
    fn solve(&self, name: &str, a: &Expr, b: &Expr, sign: char) -> Option<Region> {
        let up = matches!(sign, '<' | 'l');
        let strict = matches!(sign, '<' | '>' | 'n');
        for (x, c, below) in [(a, b, up), (b, a, !up)] {
            if c.variables().iter().any(|n| n == name) {
                continue;
            }
            if let Expr::Call("abs", inner) = x
                && sign != '='
            {
                let span = Span { low: negate(c.clone()), low_closed: !strict, high: c.clone(), high_closed: !strict };
                let region = self.preimage(name, &inner[0], Region::new(vec![span]))?;
                return match (sign, below) {
                    ('n', _) => None,
                    (_, true) => Some(region),
                    // |x| >= c is what |x| < c leaves.
                    (_, false) => {
                        let span =
                            Span { low: negate(c.clone()), low_closed: strict, high: c.clone(), high_closed: strict };
                        self.preimage(name, &inner[0], Region::new(vec![span]))?.complement(self.steps)
                    }
                };
            }
            let region = match sign {
                'n' => Region::new(vec![Span::point(c.clone())]).complement(self.steps)?,
                '=' => Region::new(vec![Span::point(c.clone())]),
                _ if below => Region::new(vec![Span {
                    low: infinity(true),
                    low_closed: false,
                    high: c.clone(),
                    high_closed: !strict,
                }]),
                _ => Region::new(vec![Span {
                    low: c.clone(),
                    low_closed: !strict,
                    high: infinity(false),
                    high_closed: false,
                }]),
            };
            if let Some(r) = self.preimage(name, x, region) {
                return Some(r);
            }
        }
        None
    }

    /// Where a linear expression falls into a region.
    fn preimage(&self, name: &str, x: &Expr, region: Region) -> Option<Region> {
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
            None => divide(minus(e.clone(), super::expr::number(zero.clone())), super::expr::number(slope.clone())),
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

    /// A set, tuple or interval that is the whole of `tokens`.
    fn bracketed(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let (open, close) = (&tokens.first()?.tok, &tokens.last()?.tok);
        let cmd = |t: &Tok, name: &str| matches!(t, Tok::Cmd(c) if c == name);
        let set = cmd(open, "{") && cmd(close, "}");
        let angle =
            (cmd(open, "langle") && cmd(close, "rangle")) || (*open == Tok::Sym('<') && *close == Tok::Sym('>'));
        let round = matches!(open, Tok::Sym('(' | '[')) && matches!(close, Tok::Sym(')' | ']'));
        let grouped = *open == Tok::Sym('{') && *close == Tok::Sym('}');
        if tokens.len() < 2 || !(set || round || grouped || angle) {
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
            return Some((set || grouped).then(|| Value::Set(Vec::new())));
        }
        if set && let Some(v) = self.builder(inside, depth) {
            return Some(v);
        }
        let Some(parts) = split(inside, is_comma) else { return Some(None) };
        if grouped && parts.len() == 1 {
            return Some(self.value(inside, depth + 1).or_else(|| self.quantity(tokens)));
        }
        if round && parts.len() == 1 {
            // Brackets around a whole answer.
            let plain = *open == Tok::Sym('(') && *close == Tok::Sym(')');
            return if plain && self.quantity(tokens).is_none() { Some(self.value(inside, depth + 1)) } else { None };
        }
        if parts.len() > MAX_ITEMS {
            return Some(None);
        }
        let mut items = Vec::new();
        for p in parts {
            match self.value(p, depth + 1) {
                Some(Value::List(inner)) if set || grouped => items.extend(inner),
                Some(v) => items.push(v),
                None => return Some(None),
            }
        }
        if set || grouped {
            return Some(Some(Value::Set(items)));
        }
        if let ([Value::Scalar(a, None), Value::Scalar(b, None)], Tok::Sym(o), Tok::Sym(c)) =
            (items.as_slice(), open, close)
            && !angle
            && (*o == '[' || *c == ']' || a.is_infinite().is_some() || b.is_infinite().is_some())
        {
            let span = Span { low: a.clone(), low_closed: *o == '[', high: b.clone(), high_closed: *c == ']' };
            return Some(Some(Value::Region(Region::new(vec![span]))));
        }
        Some(Some(Value::Tuple(items)))
    }

    /// `\{x \mid x > 3\}`, `\{x \in \mathbb{R} : x \ne 0\}`.
    fn builder(&self, inside: &[Token], depth: usize) -> Option<Option<Value>> {
        let bar = |t: &Tok| matches!(t, Tok::Sym('|' | ':'));
        let parts = split(inside, bar)?;
        let [name, condition] = parts.as_slice() else { return None };
        let domain = split(name, names("in"))?;
        variable_of(domain[0])?;
        let value = self.value(condition, depth + 1);
        Some(value.and_then(|v| match (v, domain.get(1).map(|d| self.value(d, depth + 1))) {
            (Value::Region(r), Some(Some(Value::Region(d)))) => r.intersection(&d, self.steps).map(Value::Region),
            (v, None) => Some(v),
            (v, _) => Some(Value::Tuple(vec![v])),
        }))
    }

    /// `2 : 3`, `6:45 PM`.
    fn ratio(&self, tokens: &[Token]) -> Option<Option<Value>> {
        let parts = split(tokens, |t| *t == Tok::Sym(':'))?;
        if parts.len() < 2 {
            return None;
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

    /// Both of `a \pm b`; several signs go together, `\mp` the other way.
    fn plus_minus(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let signed = |plus: char, minus: char| {
            let swap = |t: &Token| {
                let sign = if is_cmd(Some(t), "pm") {
                    plus
                } else if is_cmd(Some(t), "mp") {
                    minus
                } else {
                    return t.clone();
                };
                Token { tok: Tok::Sym(sign), spaced: t.spaced }
            };
            self.value(&tokens.iter().map(swap).collect::<Vec<_>>(), depth + 1)
        };
        Some(Value::List(vec![signed('+', '-')?, signed('-', '+')?]))
    }
}

/// Without separators at the ends.
fn trimmed(mut tokens: &[Token]) -> &[Token] {
    while let [first, rest @ ..] = tokens
        && (is_comma(&first.tok) || is_word(&first.tok, &["or", "and", "either", "both"]))
    {
        tokens = rest;
    }
    while let [rest @ .., last] = tokens
        && (is_comma(&last.tok) || is(Some(last), ':'))
    {
        tokens = rest;
    }
    tokens
}

fn one_or_list(mut items: Vec<Value>) -> Option<Value> {
    match items.len() {
        0 => None,
        1 => items.pop(),
        _ => Some(Value::List(items)),
    }
}

/// `(x, y) = (1, 2)` says `x = 1, y = 2`.
fn assign(tokens: &[Token], name: String, value: Value) -> Value {
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

/// The one variable that `tokens` are.
fn variable_of(tokens: &[Token]) -> Option<String> {
    match tokens {
        [Token { tok: Tok::Word(w), .. }] if w.chars().count() == 1 => Some(w.clone()),
        [Token { tok: Tok::Cmd(c), .. }] if GREEK.contains(&c.as_str()) => Some(c.clone()),
        _ => None,
    }
}

/// The name on the left of an assignment: `x`, `x_1`, `f(x)`, `f^{-1}(x)`, `(x, y)`, a word or two.
fn name_of(tokens: &[Token]) -> Option<String> {
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

/// The open interval that a pair may be.
pub(super) fn open_interval(items: &[Value]) -> Option<Region> {
    let [Value::Scalar(a, None), Value::Scalar(b, None)] = items else { return None };
    Some(Region::new(vec![Span { low: a.clone(), low_closed: false, high: b.clone(), high_closed: false }]))
}

/// Single numbers as a region.
pub(super) fn points(items: &[Value]) -> Option<Region> {
    let each = items.iter().map(|v| match v {
        Value::Scalar(e, None) => Some(Span::point(e.clone())),
        _ => None,
    });
    each.collect::<Option<Vec<_>>>().map(Region::new)
}

fn as_region(v: &Value) -> Option<Region> {
    match v {
        Value::Region(r) => Some(r.clone()),
        Value::Tuple(items) => open_interval(items),
        Value::Set(items) => points(items),
        _ => None,
    }
}

/// Sets of other things than numbers: their union as a set.
fn set_of_points(values: Vec<Value>, ops: &[String]) -> Option<Value> {
    if ops.iter().any(|o| o != "cup" && o != "U") {
        return None;
    }
    let mut all = Vec::new();
    for v in values {
        match v {
            Value::Set(items) => all.extend(items),
            _ => return None,
        }
    }
    Some(Value::Set(all))
}
