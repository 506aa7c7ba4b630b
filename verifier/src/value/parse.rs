//! Parses tokens to values. The grammar below is ordered from the outside in. LaTeX and plain text share one grammar.
//!
//! ```text
//! answer     := item ((',' | ';' | 'and' | 'or') item)*          a list; of inequalities: both, or either
//! item       := name '=' answer | expr ('=' expr)+               an assignment, an equation, a chain of results
//!             | expr (('<' | '<=' | '!=' ...) expr)+             an inequality: a region if it can be solved
//!             | name 'in' set | set (('cup' | 'cap' | '\') set)+
//!             | expr 'equiv' expr 'pmod' expr | expr (':' expr)+ a residue, a ratio or a time of day
//!             | bracketed | expr 'pm' expr | quantity | words
//! bracketed  := '(' list ')' | '[' list ']' | '\{' list '\}' | '\langle' list '\rangle'
//!             | ('(' | '[') expr ',' expr (')' | ']')            an interval, if the brackets mark one
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

pub(crate) mod amount;
pub(crate) mod enclosed;
pub(crate) mod relation;
pub(crate) mod several;

use crate::lexicon::{self, Kind};
use crate::steps::Steps;
use crate::value::Value;
use crate::value::expr::is_function;
use crate::value::lex::{MAX_DEPTH, Tok, Token, is, is_cmd, is_greek, lex, shown};
use crate::value::matrix::{Folded, fold};
use crate::value::parse::relation::relation_sign;
use crate::value::region::{Region, Span};
use crate::value::scalar::scalar_with_unit;

/// Maximum number of words that form a phrase although each could be a product of letters.
const MAX_SHORT: usize = 4;
/// Maximum number of members of a list.
pub(crate) const MAX_ITEMS: usize = 400;

/// Parses `text`. Text that is not mathematics becomes words.
pub fn parse(text: &str, grouped: bool, steps: &Steps) -> Value {
    if let Some(day) = amount::day(text) {
        return day;
    }
    let read = |text: &str| {
        let tokens = lex(text, grouped, steps)?;
        Reader { steps }.value(&tokens, 0)
    };
    read(text).or_else(|| read(&several::signs(text)?)).unwrap_or_else(|| Value::Text(text.trim().to_owned()))
}

/// Returns the change of the nesting depth at a token.
pub(crate) fn nesting(tok: &Tok) -> i32 {
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

/// Returns the tokens outside brackets.
pub(crate) fn outside(tokens: &[Token]) -> impl Iterator<Item = &Tok> {
    let mut level = 0;
    tokens.iter().map(|t| &t.tok).filter(move |tok| {
        level += nesting(tok);
        level == 0
    })
}

/// Splits tokens at the separators outside brackets. Returns `None` if brackets do not balance.
pub(crate) fn split(tokens: &[Token], separates: impl Fn(&Tok) -> bool) -> Option<Vec<&[Token]>> {
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

pub(crate) fn is_word(tok: &Tok, words: &[&str]) -> bool {
    match tok {
        Tok::Word(w) | Tok::Text(w) => words.contains(&w.trim().to_lowercase().trim_matches([',', ' '])),
        _ => false,
    }
}

/// Returns true for a word of this kind.
pub(crate) fn is_kind(tok: &Tok, kind: Kind) -> bool {
    matches!(tok, Tok::Word(w) | Tok::Text(w) if lexicon::is(kind, w.trim_matches([',', ' '])))
}

pub(crate) fn is_comma(tok: &Tok) -> bool {
    matches!(tok, Tok::Sym(',' | ';'))
}

pub(crate) fn names(cmd: &'static str) -> impl Fn(&Tok) -> bool {
    move |t: &Tok| matches!(t, Tok::Cmd(c) if c == cmd)
}

/// Parser from tokens to values.
pub(crate) struct Reader<'a> {
    pub(crate) steps: &'a Steps,
}

impl Reader<'_> {
    pub(crate) fn value(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        self.steps.spend(1 + tokens.len() as u64)?;
        let tokens = trimmed(tokens);
        if tokens.is_empty() || depth > MAX_DEPTH {
            return None;
        }
        if let Some(v) = self.environment(tokens, depth).or_else(|| self.sided(tokens, depth).map(Some)) {
            return v;
        }
        // Quantifiers are compared as they are written.
        if tokens.iter().any(|t| is_cmd(Some(t), "exists") || is_cmd(Some(t), "forall")) {
            return None;
        }
        // Logical signs join relations. Between letters they are an operation.
        let relations = tokens.iter().any(|t| relation_sign(&t.tok).is_some());
        let logic = |t: &Tok| relations && matches!(t, Tok::Cmd(c) if c == "lor" || c == "land");
        let listed = |t: &Tok| is_comma(t) || logic(t) || is_word(t, &["and", "or", "&"]);
        let parts = split(tokens, listed)?;
        if parts.len() > 1 {
            if let Some(number) = self.in_words(tokens) {
                return Some(number);
            }
            return self.list(tokens, parts, depth);
        }
        if let [name, rest @ ..] = tokens
            && is_kind(&name.tok, Kind::Measured)
            && let Some(Tok::Num(_) | Tok::Sym('-')) = rest.first().map(|t| &t.tok)
            && rest.iter().any(|t| matches!(t.tok, Tok::Num(_)))
        {
            return self.value(rest, depth + 1).map(|v| Value::Assignment(shown(&name.tok), Box::new(v)));
        }
        // Skips words such as "the answer is" before the value.
        if let [Token { tok: Tok::Text(t), .. }, rest @ ..] = tokens
            && !rest.is_empty()
            && [" is", " are", ":", "=", " equals"].iter().any(|end| t.trim().to_lowercase().ends_with(end))
        {
            return self.value(rest, depth + 1);
        }
        self.statement(tokens, depth)
    }

    /// Parses a relation, a set, or one value.
    fn statement(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        if let Some(v) = self.residue(tokens, depth).or_else(|| self.relation(tokens, depth)) {
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
                _ => {}
            }
        }
        let found = self.bracketed(tokens, depth).or_else(|| self.ratio(tokens, depth));
        if let Some(v) = found.or_else(|| self.range(tokens).map(Some)) {
            return v;
        }
        if tokens.iter().any(|t| is_cmd(Some(t), "pm") || is_cmd(Some(t), "mp")) {
            return self.plus_minus(tokens, depth);
        }
        if let Some(text) = phrase(tokens) {
            return self.in_words(tokens).or(Some(Value::Text(text)));
        }
        self.quantity(tokens).or_else(|| self.in_parts(tokens)).or_else(|| self.in_words(tokens))
    }

    pub(crate) fn quantity(&self, tokens: &[Token]) -> Option<Value> {
        let (e, unit) = scalar_with_unit(tokens, self.steps)?;
        match fold(&e, self.steps)? {
            // A unit after a vector is not supported. Units belong to the components.
            Folded::Matrix(_) if unit.is_some() => None,
            Folded::Matrix(rows) => Some(Value::Matrix(rows)),
            Folded::Scalar(e) => Some(Value::Scalar(e, unit)),
        }
    }

    /// Parses both values of `a \pm b`. All `\pm` signs of one value are equal, and `\mp` is the opposite sign.
    fn plus_minus(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let signed = |plus: char, minus: char| {
            let swap = |t: &Token| match &t.tok {
                Tok::Cmd(c) if c == "pm" => Token { tok: Tok::Sym(plus), ..*t },
                Tok::Cmd(c) if c == "mp" => Token { tok: Tok::Sym(minus), ..*t },
                _ => t.clone(),
            };
            self.value(&tokens.iter().map(swap).collect::<Vec<_>>(), depth + 1)
        };
        Some(Value::List(vec![signed('+', '-')?, signed('-', '+')?]))
    }
}

/// Returns the text if the tokens are plain words. At least one of them must have several letters.
fn phrase(tokens: &[Token]) -> Option<String> {
    let known = |w: &str| {
        is_function(w) || (is_greek(w) && w.len() > 2) || matches!(w, "pi" | "inf" | "infinity" | "infty" | "oo")
    };
    let mut words = Vec::new();
    for t in tokens {
        match &t.tok {
            Tok::Word(w) if !known(w) => words.push(w.as_str()),
            Tok::Sym('-' | '(' | ')') => {}
            _ => return None,
        }
    }
    let together = |w: &&str| w.chars().count() > 1;
    if words.len() > MAX_SHORT || words.iter().any(|w| w.chars().count() > 3) {
        return None;
    }
    // A row of capitals: A-B-C.
    let capital = |w: &&str| w.len() == 1 && w.starts_with(|c: char| c.is_ascii_uppercase());
    let row = words.len() > 2 && words.iter().all(capital) && tokens.iter().any(|t| is(Some(t), '-'));
    let apart = tokens.windows(2).any(|w| is(w.first(), '-') && w[1].spaced);
    ((row || words.iter().any(together)) && !apart).then(|| words.join(" "))
}

/// Removes separators at both ends.
pub(crate) fn trimmed(mut tokens: &[Token]) -> &[Token] {
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

pub(crate) fn one_or_list(mut items: Vec<Value>) -> Option<Value> {
    match items.len() {
        0 => None,
        1 => items.pop(),
        _ => Some(Value::List(items)),
    }
}
