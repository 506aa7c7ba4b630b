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

use super::brackets::inward;
use super::expr::{Expr, integer};
use super::lex::{Tok, Token, lex};
use super::matrix::{Folded, Rows, fold};
use super::piecewise::{Cases, has_conditions};
use super::region::{Region, Span};
use super::relation::{relation_sign, variable_of};
use super::scalar::{is, is_cmd, scalar, scalar_with_unit, shown};
use super::unit::{self, Part, Unit};
use super::{Steps, calendar, family, number_words, spoken};

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
    /// A function piece by piece.
    Cases(Cases),
    /// `first + k step` for every whole `k`.
    Family(Expr, Expr),
    /// A permutation in cycles, each from its smallest number on, in order.
    Cycles(Vec<Vec<u32>>),
    /// A day: year, month and day, where they are said.
    Date(Option<i32>, u8, Option<u8>),
    /// A value and its direction: 5 m north, 20% off.
    Sided(&'static str, Box<Value>),
    /// Words.
    Text(String),
}

/// Reads `text`; what is no mathematics is words.
pub fn parse(text: &str, grouped: bool, steps: &Steps) -> Value {
    if let Some(day) = calendar::read(text) {
        return day;
    }
    let read = |text: &str| {
        let tokens = lex(text, grouped, steps)?;
        Reader { steps }.value(inward(&tokens).as_deref().unwrap_or(&tokens), 0)
    };
    read(spoken::named(text).unwrap_or(text))
        .or_else(|| read(&spoken::signs(text)?))
        .unwrap_or_else(|| Value::Text(text.trim().to_owned()))
}

/// Change of nesting at a token.
pub(super) fn nesting(tok: &Tok) -> i32 {
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
pub(super) fn split(tokens: &[Token], separates: impl Fn(&Tok) -> bool) -> Option<Vec<&[Token]>> {
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

pub(super) fn is_word(tok: &Tok, words: &[&str]) -> bool {
    match tok {
        Tok::Word(w) | Tok::Text(w) => words.contains(&w.trim().to_lowercase().trim_matches([',', ' '])),
        _ => false,
    }
}

pub(super) fn is_comma(tok: &Tok) -> bool {
    matches!(tok, Tok::Sym(',' | ';'))
}

fn names(cmd: &'static str) -> impl Fn(&Tok) -> bool {
    move |t: &Tok| matches!(t, Tok::Cmd(c) if c == cmd)
}

/// Reads tokens as values.
pub(super) struct Reader<'a> {
    pub(super) steps: &'a Steps,
}

impl Reader<'_> {
    pub(super) fn value(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        self.steps.spend(1 + tokens.len() as u64)?;
        let tokens = trimmed(tokens);
        if tokens.is_empty() || depth > MAX_DEPTH {
            return None;
        }
        if let Some(v) = self.environment(tokens, depth) {
            return v;
        }
        if let Some(v) = self.sided(tokens, depth) {
            return Some(v);
        }
        // X \sim N(0, 1)
        if let [name, sim, rest @ ..] = tokens
            && is_cmd(Some(sim), "sim")
            && variable_of(std::slice::from_ref(name)).is_some()
        {
            return self.value(rest, depth + 1);
        }
        if let Some(v) =
            self.said_range(tokens).or_else(|| self.mapping(tokens, depth)).or_else(|| self.labelled(tokens, depth))
        {
            return Some(v);
        }
        // The signs of logic join relations; between letters they are an operation.
        let relations = tokens.iter().any(|t| relation_sign(&t.tok).is_some());
        let logic = |t: &Tok| relations && matches!(t, Tok::Cmd(c) if c == "lor" || c == "land");
        let listed = |t: &Tok| is_comma(t) || logic(t) || is_word(t, &["and", "or", "&"]);
        let parts = split(tokens, listed)?;
        if parts.len() > 1 {
            if let Some(number) = self.in_words(tokens).or_else(|| self.in_joined_parts(tokens)) {
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
        // "About" before a number.
        const ABOUT: [&str; 10] =
            ["approximately", "about", "roughly", "around", "approx", "nearly", "exactly", "only", "just", "every"];
        // What was measured, before its amount.
        const MEASURED: [&str; 22] = [
            "page",
            "number",
            "chapter",
            "question",
            "room",
            "figure",
            "mean",
            "median",
            "mode",
            "average",
            "area",
            "perimeter",
            "volume",
            "total",
            "sum",
            "slope",
            "radius",
            "diameter",
            "length",
            "width",
            "height",
            "degree",
        ];
        if let [name, rest @ ..] = tokens
            && is_word(&name.tok, &MEASURED)
            && matches!(rest.first().map(|t| &t.tok), Some(Tok::Num(_)))
        {
            return self.value(rest, depth + 1);
        }
        if let [first, rest @ ..] = tokens
            && is_word(&first.tok, &ABOUT)
        {
            return self.value(rest, depth + 1);
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
        // The positive or negative numbers.
        if let [Token { tok: Tok::Cmd(c), .. }, hat, rest @ ..] = tokens
            && c == "mathbbR"
            && is(Some(hat), '^')
            && let Some(sign) =
                rest.iter().find_map(|t| if let Tok::Sym(c @ ('+' | '-')) = t.tok { Some(c) } else { None })
            && rest.len() <= 3
        {
            let zero = || Span { low: integer(0), low_closed: false, ..Span::all() };
            let negative = || Span { high: integer(0), high_closed: false, ..Span::all() };
            let span = if sign == '+' { zero() } else { negative() };
            return Some(Value::Region(Region::new(vec![span])));
        }
        if let Some(v) = family::cycles(tokens) {
            return Some(v);
        }
        if let Some(v) = self.bracketed(tokens, depth) {
            return v;
        }
        if let Some(inner) = family::transposed(tokens)
            && let Some(Some(Value::Tuple(items))) = self.bracketed(inner, depth)
            && let Some(rows) = items
                .iter()
                .map(|v| if let Value::Scalar(e, None) = v { Some(vec![e.clone()]) } else { None })
                .collect()
        {
            return Some(Value::Matrix(rows));
        }
        if let Some(v) = self.ratio(tokens) {
            return v;
        }
        if tokens.iter().any(|t| is_cmd(Some(t), "pm") || is_cmd(Some(t), "mp")) {
            return self.plus_minus(tokens, depth);
        }
        // "ten" is a number before it is a product of letters.
        if let [Token { tok: Tok::Word(w) | Tok::Text(w), .. }] = tokens
            && number_words::read(&[w.to_lowercase().as_str()]).is_some_and(|(_, used)| used == 1)
        {
            return self.in_words(tokens);
        }
        if let Some(e) = self.ellipsis(tokens) {
            return Some(Value::Scalar(e, None));
        }
        if let Some(length) = self.feet(tokens) {
            return Some(length);
        }
        self.quantity(tokens).or_else(|| self.in_parts(tokens)).or_else(|| self.in_words(tokens))
    }

    fn quantity(&self, tokens: &[Token]) -> Option<Value> {
        let (e, unit) = scalar_with_unit(tokens, self.steps)?;
        match fold(&e, self.steps)? {
            // (1, 2) + t (3, 4)
            Folded::Matrix(mut rows)
                if rows.len() == 1
                    && !tokens.iter().any(|t| matches!(&t.tok, Tok::Cmd(c) if c.starts_with("begin "))) =>
            {
                Some(Value::Tuple(rows.remove(0).into_iter().map(|e| Value::Scalar(e, None)).collect()))
            }
            Folded::Matrix(rows) => Some(Value::Matrix(rows)),
            Folded::Scalar(e) => Some(Value::Scalar(e, unit)),
        }
    }

    /// A measure in several units: 2 hours 30 minutes, 5 ft 6 in.
    fn in_parts(&self, tokens: &[Token]) -> Option<Value> {
        let begins =
            |n: usize| matches!(tokens[n].tok, Tok::Num(_)) && matches!(tokens[n - 1].tok, Tok::Word(_) | Tok::Text(_));
        let mut cuts: Vec<usize> = (1..tokens.len()).filter(|&n| begins(n)).collect();
        if cuts.is_empty() || cuts.len() > 3 {
            return None;
        }
        cuts.push(tokens.len());
        let (mut from, mut terms, mut measured) = (0, Vec::new(), None);
        for to in cuts {
            let sign = match &tokens[from..to] {
                // 1h 20m: behind hours an m is minutes.
                [n, Token { tok: Tok::Word(w), .. }] => {
                    let after_hours = measured.is_some() && measured == unit::word("h").map(|u| u.0);
                    let name = if w == "m" && after_hours { "min" } else { w };
                    unit::word(name).map(|u| (scalar(std::slice::from_ref(n), self.steps), Unit::Measure(u.0, u.1)))
                }
                _ => None,
            };
            let (e, unit) = match sign {
                Some((Some(e), unit)) => (e, Some(unit)),
                _ => scalar_with_unit(&tokens[from..to], self.steps)?,
            };
            let Some(Unit::Measure(dimension, size)) = unit else { return None };
            if *measured.get_or_insert(dimension) != dimension {
                return None;
            }
            terms.push(Expr::Mul(vec![e, super::expr::number(size)]));
            from = to;
        }
        let one = super::Rational::from_integer(1.into());
        Some(Value::Scalar(Expr::Add(terms), Some(Unit::Measure(measured?, one))))
    }

    /// 5 dollars and 25 cents: amounts of one kind, each in a smaller unit than the one before.
    fn in_joined_parts(&self, tokens: &[Token]) -> Option<Value> {
        let joint = |t: &Token| is_comma(&t.tok) || is_word(&t.tok, &["and"]);
        let parts: Vec<&[Token]> = tokens.split(joint).filter(|p| !p.is_empty()).collect();
        let mut smaller: Option<super::Rational> = None;
        for part in &parts {
            let (_, unit) = scalar_with_unit(part, self.steps)?;
            let Some(Unit::Measure(_, size)) = unit else { return None };
            if smaller.is_some_and(|s| s <= size) {
                return None;
            }
            smaller = Some(size);
        }
        self.in_parts(&parts.concat())
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
        let article = matches!(words.first().map(String::as_str), Some("a" | "an")) && words.len() > 1;
        if article {
            words.remove(0);
        }
        let list: Vec<&str> = words.iter().map(String::as_str).collect();
        if let [word] = list.as_slice()
            && article
            && let Some(n) = number_words::part(word)
        {
            return Some(Value::Scalar(super::expr::divide(integer(1), integer(n)), None));
        }
        if let [_] | [_, _] = list.as_slice()
            && let Some(n) = number_words::ordinal(&list.join(" "))
        {
            return Some(Value::Scalar(integer(n), Some(Unit::Word("ordinal".to_owned()))));
        }
        let (value, used) = number_words::read(&list)?;
        // One out of four, one in four.
        let between = match list.get(used..) {
            Some(["out", "of", ..]) => 2,
            Some(["in", ..]) => 1,
            _ => 0,
        };
        if let Some(["over", ..] | ["divided", "by", ..]) = list.get(used..)
            && let under = used + if list[used] == "over" { 1 } else { 2 }
            && let Some((by, all)) = number_words::read(&list[under..])
            && under + all == list.len()
        {
            let part = super::expr::number;
            return Some(Value::Scalar(super::expr::divide(part(value), part(by)), None));
        }
        if between > 0
            && let Some((of, all)) = number_words::read(&list[used + between..])
            && used + between + all == list.len()
        {
            let part = super::expr::number;
            return Some(Value::Ratio(vec![part(value), part(of)]));
        }
        let name = list[used..].join(" ");
        let name = name.strip_prefix("of ").or(name.strip_prefix("a ")).unwrap_or(&name);
        let unit = if name.is_empty() { None } else { Some(unit::unit(&[Part { name: name.to_owned(), power: 1 }])?) };
        Some(Value::Scalar(super::expr::number(value), unit))
    }

    /// Rows of a system or an aligned calculation.
    fn environment(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
        let all = tokens.len();
        // \left\{ \begin{array} ... \end{array} \right.
        let tokens = match tokens {
            [brace, rest @ ..]
                if is_cmd(Some(brace), "{")
                    && matches!(&rest.first()?.tok, Tok::Cmd(c) if c.starts_with("begin "))
                    && matches!(&rest.last()?.tok, Tok::Cmd(c) if c.starts_with("end ")) =>
            {
                rest
            }
            all => all,
        };
        let braced = tokens.len() < all;
        let (Tok::Cmd(open), Tok::Cmd(close)) = (&tokens.first()?.tok, &tokens.last()?.tok) else { return None };
        let kind = open.strip_prefix("begin ")?;
        if close.strip_prefix("end ") != Some(kind) || kind.ends_with("matrix") || (kind == "array" && !braced) {
            return None;
        }
        let row = |t: &Tok| matches!(t, Tok::Cmd(c) if c == "\\" || c == "cr");
        if kind.ends_with("cases") || kind == "array" {
            let rows = split(&tokens[1..tokens.len() - 1], row)?;
            let rows: Vec<&[Token]> = rows.into_iter().filter(|r| !r.is_empty()).collect();
            if has_conditions(&rows) {
                return Some(self.cases(&rows));
            }
        }
        let inside: Vec<Token> = tokens[1..tokens.len() - 1].iter().filter(|t| !is(Some(t), '&')).cloned().collect();
        let rows = split(&inside, row)?;
        let rows: Vec<&[Token]> = rows.into_iter().filter(|r| !r.is_empty()).collect();
        // A calculation goes on from line to line; its last line is the result.
        if rows.len() > 1 && rows[1..].iter().all(|r| relation_sign(&r[0].tok).is_some()) {
            return Some(self.value(rows.last()?, depth + 1));
        }
        let items: Option<Vec<Value>> = rows.into_iter().map(|r| self.value(r, depth + 1)).collect();
        // Lines that the last one solves are the way to it.
        if let Some([way @ .., last @ Value::Assignment(name, value)]) = items.as_deref()
            && let Value::Scalar(x, None) = &**value
            && !way.is_empty()
            && way.iter().all(|v| self.solved_by(v, name, x))
        {
            return Some(Some(last.clone()));
        }
        Some(items.and_then(one_or_list))
    }

    /// True for an equation in one variable that this value of it solves.
    fn solved_by(&self, line: &Value, name: &str, x: &Expr) -> bool {
        let Value::Equation(a, b) = line else { return false };
        let own = |e: &Expr| e.variables().iter().all(|n| n == name);
        own(a) && own(b) && super::decide::decide(&a.replace(name, x), &b.replace(name, x), self.steps).is_equal()
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
        let (parts, filled) = (filled.clone(), filled.len());
        for part in parts {
            // "k \in \mathbb{Z}" behind a family of solutions only says what k is.
            let member = split(part, names("in"))?;
            let condition =
                is_word(&part[0].tok, &["where", "for", "with", "if", "when", "for all", "for any", "for some"]);
            let whole = member.len() == 2
                && member[1].len() == 1
                && matches!(&member[1][0].tok, Tok::Cmd(c) if c.starts_with("mathbb"));
            // That x is real says nothing beside a condition.
            let real = whole && matches!(&member[1][0].tok, Tok::Cmd(c) if c == "mathbbR") && filled > 1;
            if real && items.is_empty() {
                continue;
            }
            if !items.is_empty() && (condition || whole) {
                let counts = matches!(&member.last()?.first()?.tok, Tok::Cmd(c) if c == "mathbbZ");
                let name = member[0].last().map(|t| shown(&t.tok)).unwrap_or_default();
                if counts && member.len() == 2 {
                    items = items.into_iter().map(|v| self.repeated(v, &name)).collect();
                }
                continue;
            }
            match self.value(part, depth + 1)? {
                // Plus-minus gives two at once.
                Value::List(inner) => items.extend(inner),
                item => items.push(item),
            }
        }
        if items.len() > 1 && items.iter().all(|v| matches!(v, Value::Region(_))) {
            let words = |w: &str| {
                let sign = |t: &Tok| matches!(t, Tok::Cmd(c) if c.strip_prefix('l') == Some(w));
                tokens.iter().any(|t| is_word(&t.tok, &[w]) || sign(&t.tok))
            };
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

    /// A value with a letter that stands for every whole number, as a family.
    fn repeated(&self, value: Value, name: &str) -> Value {
        match &value {
            Value::Scalar(e, None) => match family::family(e, name, self.steps) {
                Some((first, step)) => Value::Family(first, step),
                None => value,
            },
            Value::Assignment(x, inner) if x != name => {
                Value::Assignment(x.clone(), Box::new(self.repeated((**inner).clone(), name)))
            }
            _ => value,
        }
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
        if *open == Tok::Sym('[')
            && let Some(rows) = self.plain_rows(inside)
        {
            return Some(Some(Value::Matrix(rows)));
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
        if let Some((terms, counter)) = family::generator(name, condition) {
            let value = self.value(terms, depth + 1)?;
            return Some(match self.repeated(value, counter) {
                Value::Assignment(_, v) if matches!(*v, Value::Family(..)) => Some(*v),
                v @ Value::Family(..) => Some(v),
                _ => None,
            });
        }
        let domain = split(name, names("in"))?;
        variable_of(domain[0])?;
        let value = self.value(condition, depth + 1);
        Some(value.and_then(|v| match (v, domain.get(1).map(|d| self.value(d, depth + 1))) {
            (Value::Region(r), Some(Some(Value::Region(d)))) => r.intersection(&d, self.steps).map(Value::Region),
            (Value::Region(r), Some(Some(Value::Named(set)))) if set == "Z" => {
                let points = r.whole_numbers(self.steps)?;
                Some(Value::Set(points.into_iter().map(|n| Value::Scalar(integer(n), None)).collect()))
            }
            (v, None) => Some(v),
            (Value::Equation(a, b), Some(Some(Value::Region(_)))) => Some(Value::Equation(a, b)),
            (v, _) => Some(Value::Tuple(vec![v])),
        }))
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

pub(super) fn one_or_list(mut items: Vec<Value>) -> Option<Value> {
    match items.len() {
        0 => None,
        1 => items.pop(),
        _ => Some(Value::List(items)),
    }
}
