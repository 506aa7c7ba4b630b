//! Values in forms of their own: ranges in words, mappings, labelled points, rows of numbers in plain brackets.

use super::expr::Expr;
use super::lex::{Tok, Token};
use super::parse::{Reader, Value, is_comma, is_word, split};
use super::region::{Region, Span};
use super::scalar::{is, is_cmd, scalar};

/// Most rows and columns of a matrix in plain brackets.
const MAX_SIZE: usize = 40;

impl Reader<'_> {
    /// `between 2 and 5`, `from 2 to 5`.
    pub(super) fn said_range(&self, tokens: &[Token]) -> Option<Value> {
        let [first, rest @ ..] = tokens else { return None };
        let (joint, closed) = match &first.tok {
            t if is_word(t, &["between"]) => ("and", false),
            t if is_word(t, &["from"]) => ("to", true),
            _ => return None,
        };
        let at = rest.iter().position(|t| is_word(&t.tok, &[joint]))?;
        let (behind, closed) = match &rest[at + 1..] {
            [end @ .., last] if is_word(&last.tok, &["inclusive"]) => (end, true),
            [end @ .., last] if is_word(&last.tok, &["exclusive"]) => (end, false),
            end => (end, closed),
        };
        let (low, high) = (scalar(&rest[..at], self.steps)?, scalar(behind, self.steps)?);
        Some(Value::Region(Region::new(vec![Span { low, low_closed: closed, high, high_closed: closed }])))
    }

    /// `x \mapsto x^2`, `f: x \mapsto x^2`.
    pub(super) fn mapping(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let at = tokens.iter().position(|t| is_cmd(Some(t), "mapsto") || is_cmd(Some(t), "rightarrow"))?;
        let (head, body) = (&tokens[..at], &tokens[at + 1..]);
        // (x, y) \to (-y, x)
        if let [open, inner @ .., close] = head
            && is(Some(open), '(')
            && is(Some(close), ')')
            && is(body.first(), '(')
        {
            let letters: Option<Vec<String>> =
                split(inner, is_comma)?.into_iter().map(super::relation::variable_of).collect();
            let name = format!("image of {}", letters.filter(|l| l.len() > 1)?.join(","));
            return match self.value(body, depth + 1)? {
                image @ Value::Tuple(_) => Some(Value::Assignment(name, Box::new(image))),
                _ => None,
            };
        }
        if !is_cmd(tokens.get(at), "mapsto") {
            return None;
        }
        let (name, variable) = match head {
            [Token { tok: Tok::Word(f), .. }, colon, Token { tok: Tok::Word(x), .. }] if is(Some(colon), ':') => {
                (f.as_str(), x)
            }
            [Token { tok: Tok::Word(x), .. }] => ("f", x),
            _ => return None,
        };
        let value = self.value(body, depth + 1)?;
        Some(Value::Assignment(format!("{name}({variable})"), Box::new(value)))
    }

    /// `A(1, 2)`: a point and its name.
    pub(super) fn labelled(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let [Token { tok: Tok::Word(name), .. }, rest @ ..] = tokens else { return None };
        let [open, inner @ .., close] = rest else { return None };
        // C(5, 2) and P(5, 2) choose.
        let point = matches!(name.as_str(), "A" | "B" | "D" | "E" | "M" | "O" | "Q" | "S" | "V");
        if !point || !is(Some(open), '(') || !is(Some(close), ')') || split(inner, is_comma)?.len() < 2 {
            return None;
        }
        match self.value(rest, depth + 1)? {
            point @ Value::Tuple(_) => Some(Value::Assignment(name.clone(), Box::new(point))),
            _ => None,
        }
    }

    /// `1 2; 3 4`: rows parted by semicolons, entries by spaces or commas.
    pub(super) fn plain_rows(&self, inside: &[Token]) -> Option<Vec<Vec<Expr>>> {
        let rows = split(inside, |t| *t == Tok::Sym(';'))?;
        if rows.len() < 2 || rows.len() > MAX_SIZE {
            return None;
        }
        let rows: Vec<Vec<Expr>> = rows.into_iter().map(|row| self.plain_row(row)).collect::<Option<_>>()?;
        let width = rows.first()?.len();
        (width > 1 && rows.iter().all(|r| r.len() == width)).then_some(rows)
    }

    fn plain_row(&self, row: &[Token]) -> Option<Vec<Expr>> {
        let mut parts = split(row, |t| *t == Tok::Sym(','))?;
        if let [all] = parts.as_slice() {
            let all = *all;
            parts = Vec::new();
            let mut from = 0;
            for at in 1..=all.len() {
                // A sign behind a space and right before its number begins an entry.
                let begins = |t: &Token| {
                    let tight = all.get(at + 1).is_some_and(|next| !next.spaced);
                    t.spaced && (!matches!(t.tok, Tok::Sym('+' | '*' | '/' | '-')) || (is(Some(t), '-') && tight))
                };
                if all.get(at).is_none_or(begins) {
                    parts.push(&all[from..at]);
                    from = at;
                }
            }
        }
        if parts.len() > MAX_SIZE {
            return None;
        }
        parts.into_iter().map(|p| scalar(p, self.steps)).collect()
    }
}
