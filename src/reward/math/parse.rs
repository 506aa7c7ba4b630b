//! Tokens to values. The grammar, from the outside in; LaTeX and plain text are one language here.
//!
//! ```text
//! answer     := item ((',' | ';' | 'and' | 'or') item)*          a list; of inequalities: both, or either
//! item       := name '=' answer | expr ('=' expr)+               an assignment, an equation, a chain of results
//!             | expr (('<' | '<=' | '!=' ...) expr)+             an inequality: a region where it can be solved
//!             | name 'in' set | set (('cup' | 'cap' | '\') set)+
//!             | expr 'equiv' expr 'pmod' expr | expr (':' expr)+ a residue, a ratio or a time of day
//!             | name? 'mapsto' expr | 'between' expr 'and' expr | terms '+' dots '+' expr
//!             | ('(' digits+ ')')+ | item clauses                a permutation in cycles, a family (`domain`)
//!             | ('odd' | 'even')? 'multiples of' expr | 'all reals except' answer
//!             | bracketed | expr 'pm' expr | quantity direction? | day | words
//!             | expr '|_' bound ('^' bound)?                     a function between bounds, or at a place
//! bracketed  := '(' list ')' | '[' list ']' | '\{' list '\}' | '\langle' list '\rangle'
//!             | ('(' | '[' | ']') expr ',' expr (')' | ']' | '[') an interval, where the brackets say so
//!             | '\{' name ('|' | ':') answer '\}' | environment of rows, of cases, of lines of a calculation
//! quantity   := currency? expr ('million' | 'dozen' | ...)? unit? | feet and inches | amounts in several units
//! unit       := '%' | 'degrees' | factor (('*' | '/' | 'per')? factor)* | '_' base    in full at the head of `measure`
//! expr       := term (('+' | '-') term)*
//! term       := sign* factor (('*' | '/' | 'mod')? factor)*      side by side is a product
//! factor     := digits frac | primary ('!' | '%' | '^' exponent | degree sign)*
//! primary    := number | name | function argument | '(' expr ')' | '|' expr '|' | frac | root | binomial
//!             | floor | sum | product | integral | limit | derivative | matrix
//! number     := digits with thousands separators, a point, repeating digits, an exponent, a base; or words
//! ```

use super::brackets::{inward, without_remark};
use super::domain::{Domain, spelled};
use super::expr::{Expr, integer};
use super::lex::{Tok, Token, lex};
use super::matrix::{Folded, Rows, fold};
use super::piecewise::Cases;
use super::region::{Region, Span};
use super::relation::{relation_sign, variable_of};
use super::scalar::{is, is_cmd, scalar, scalar_with_unit, shown};
use super::unit::Unit;
use super::{Steps, between, calendar, continued, family, maps, measure, number_words, sentences, spoken, tallies};

/// Deepest nesting of brackets and functions.
pub(super) const MAX_DEPTH: usize = 60;
/// Most members of a list.
pub(super) const MAX_ITEMS: usize = 400;

/// Longest text of a unit.
const MAX_UNIT: usize = 60;

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
    /// All real numbers but those of these families.
    Except(Vec<(Expr, Expr)>),
    /// A value for everything that its letters stand for, where that is no family of numbers: points of a line or a
    /// lattice, intervals that repeat.
    Over(Box<Value>, Vec<(String, Domain)>),
    /// A value that holds for its variable in a range.
    Within(Box<Value>, Region),
    /// An infinite series by its first terms.
    Terms(Vec<Expr>),
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
    steps.once(text, grouped, || read(text, grouped, steps))
}

fn read(text: &str, grouped: bool, steps: &Steps) -> Value {
    if let Some(day) = calendar::read(text) {
        return day;
    }
    if let Some(value) = between::read(text, steps) {
        return value;
    }
    if let Some(e) = continued::read(text) {
        return Value::Scalar(e, None);
    }
    // Two numbers, of which neither stands for both.
    if tallies::leaves_over(text) {
        return Value::Text(text.trim().to_owned());
    }
    let sentence = sentences::rewritten(text).or_else(|| maps::notation(text));
    let text = sentence.as_deref().unwrap_or(text);
    let read = |text: &str| {
        let tokens = lex(text, grouped, steps)?;
        let tokens = spelled(inward(&tokens).as_deref().unwrap_or(&tokens));
        let reader = Reader { steps, letters: Vec::new() };
        reader.over_domains(&tokens, 0).or_else(|| reader.value(&tokens, 0))
    };
    read(spoken::named(text).unwrap_or(text))
        .or_else(|| read(&spoken::signs(text)?))
        .or_else(|| {
            let digits = number_words::digits(text)?;
            // Words beside the numbers are no factors.
            read(&spoken::signs(&digits).unwrap_or(digits))
                .filter(|v| matches!(v, Value::Scalar(e, _) if !e.has_variables()))
        })
        .unwrap_or_else(|| Value::Text(text.trim().to_owned()))
}

/// Reads `text` as an amount in a unit, even where it would read as letters: `15 N m`.
pub fn amount(text: &str, steps: &Steps) -> Option<Value> {
    measure::amount(&lex(text, true, steps)?, steps)
}

/// True for the words and signs of a unit.
pub fn is_unit(text: &str, steps: &Steps) -> bool {
    // \\(\\$2\\) a minute
    let text = text.trim();
    let text = text.strip_prefix("a ").or_else(|| text.strip_prefix("an ")).unwrap_or(text);
    text.len() < MAX_UNIT && lex(text, true, steps).is_some_and(|t| measure::is_unit(&t))
}

/// What a date in digits may say.
pub fn dates(text: &str) -> Vec<Value> {
    if text.len() <= MAX_UNIT { calendar::numeric(text) } else { Vec::new() }
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

pub(super) fn names(cmd: &'static str) -> impl Fn(&Tok) -> bool {
    move |t: &Tok| matches!(t, Tok::Cmd(c) if c == cmd)
}

/// Reads tokens as values.
pub(super) struct Reader<'a> {
    pub(super) steps: &'a Steps,
    /// Letters that were said to be parameters.
    pub(super) letters: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn value(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        self.steps.spend(1 + tokens.len() as u64)?;
        let tokens = trimmed(tokens);
        if tokens.is_empty() || depth > MAX_DEPTH {
            return None;
        }
        if let Some(rest) = without_remark(tokens) {
            return self.value(rest, depth + 1);
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
        if let Some(v) = self
            .said_multiples(tokens)
            .or_else(|| self.spanned(tokens, depth))
            .or_else(|| self.said_numbers(tokens))
            .or_else(|| self.said_exceptions(tokens, depth))
            .or_else(|| self.said_members(tokens, depth))
            .or_else(|| self.said_cases(tokens, depth))
        {
            return Some(v);
        }
        if let Some(v) = self.unequal(tokens, depth) {
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
        let mut level = 0;
        if let Some(at) = tokens.iter().position(|t| {
            level += nesting(&t.tok);
            level == 0
                && is_word(
                    &t.tok,
                    &["where", "for", "with", "if", "when", "for all", "for any", "for some", "such that"],
                )
        }) && at > 0
            && !is_no_condition(&tokens[at..])
        {
            let value = self.value(&tokens[..at], depth + 1)?;
            return Some(self.within(value, &tokens[at + 1..], depth));
        }
        // "at (1, 2)", "all x \ge 3"
        if let [first, rest @ ..] = tokens
            && ((is_word(&first.tok, &["at"]) && is(rest.first(), '('))
                || (is_word(&first.tok, &["all", "any", "every"])
                    && rest.first().is_some_and(|t| variable_of(std::slice::from_ref(t)).is_some())
                    && rest.get(1).is_some_and(|t| relation_sign(&t.tok).is_some())))
        {
            return self.value(rest, depth + 1);
        }
        // "About" before a number.
        const ABOUT: [&str; 10] =
            ["approximately", "about", "roughly", "around", "approx", "nearly", "exactly", "only", "just", "every"];
        // What was measured, before its amount.
        const MEASURED: [&str; 26] = [
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
            "max",
            "min",
            "maximum",
            "minimum",
            "length",
            "width",
            "height",
            "degree",
        ];
        if let [name, rest @ ..] = tokens
            && is_word(&name.tok, &MEASURED)
            && let Some(Tok::Num(_) | Tok::Sym('-')) = rest.first().map(|t| &t.tok)
            && rest.iter().any(|t| matches!(t.tok, Tok::Num(_)))
        {
            return self.value(rest, depth + 1).map(|v| Value::Assignment(shown(&name.tok), Box::new(v)));
        }
        if let [first, rest @ ..] = tokens
            && is_word(&first.tok, &ABOUT)
        {
            return self.value(rest, depth + 1);
        }
        // 15 m long: what was measured, behind its amount.
        const DIRECTIONS: [(&str, &str); 7] = [
            ("long", "length"),
            ("wide", "width"),
            ("tall", "height"),
            ("high", "height"),
            ("deep", "depth"),
            ("thick", "thickness"),
            ("old", "age"),
        ];
        if let [Token { tok: Tok::Num(_), .. }, .., _, last] = tokens
            && let Some((_, name)) = DIRECTIONS.iter().find(|(word, _)| is_word(&last.tok, &[word]))
        {
            let value = self.value(&tokens[..tokens.len() - 1], depth + 1);
            return value.map(|v| Value::Assignment((*name).to_owned(), Box::new(v)));
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
        if let Some(v) = self.ratio(tokens, depth) {
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
        if let Some(v) = self.first_terms(tokens) {
            return Some(v);
        }
        if let Some(length) = self.feet(tokens) {
            return Some(length);
        }
        self.quantity(tokens).or_else(|| self.in_parts(tokens)).or_else(|| self.in_words(tokens))
    }

    pub(super) fn quantity(&self, tokens: &[Token]) -> Option<Value> {
        // 60^\circ + 180^\circ n: the degrees belong to the numbers, the letter counts.
        let counts = |t: &Token| matches!(&t.tok, Tok::Word(w) if matches!(w.as_str(), "k" | "n" | "m" | "l"));
        let degrees = tokens.iter().filter(|t| is_cmd(Some(t), "circ")).count();
        if degrees > 0
            && tokens.iter().any(counts)
            && let Some(e) = scalar(tokens, self.steps)
        {
            return Some(Value::Scalar(e, None));
        }
        let (e, unit) = scalar_with_unit(tokens, self.steps)?;
        match fold(&e, self.steps)? {
            // (1, 2) + t (3, 4)
            Folded::Matrix(mut rows)
                if rows.len() == 1
                    && !tokens.iter().any(|t| matches!(&t.tok, Tok::Cmd(c) if c.starts_with("begin "))) =>
            {
                let unit = unit.filter(|u| matches!(u, Unit::Measure(_)));
                Some(Value::Tuple(rows.remove(0).into_iter().map(|e| Value::Scalar(e, unit.clone())).collect()))
            }
            Folded::Matrix(rows) => Some(Value::Matrix(rows)),
            Folded::Scalar(e) => Some(Value::Scalar(e, unit)),
        }
    }

    /// Both of `a \pm b`; several signs go together, `\mp` the other way.
    pub(super) fn plus_minus(&self, tokens: &[Token], depth: usize) -> Option<Value> {
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

/// True for a price, "for $3", and for a divisor, "when divided by 5": they belong to the value before them.
fn is_no_condition(tokens: &[Token]) -> bool {
    let price = |t: &Token| matches!(t.tok, Tok::Num(_) | Tok::Sym('$' | '.'));
    match tokens {
        [word, rest @ ..] if is_word(&word.tok, &["for"]) => rest.iter().all(price),
        [_, next, ..] => is_word(&next.tok, &["divided"]),
        _ => false,
    }
}

/// Without separators at the ends.
pub(super) fn trimmed(mut tokens: &[Token]) -> &[Token] {
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
