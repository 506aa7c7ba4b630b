//! Parses operators that bind a variable (sums, products, integrals, limits, derivatives), and matrices.

use crate::value::expr::{Binder, Bound, Expr, integer};
use crate::value::lex::{Tok, Token, is, is_cmd, is_greek, shown};
use crate::value::parse::{nesting, split};
use crate::value::scalar::parser::Parser;

impl Parser<'_> {
    /// Parses `\frac{d}{dx} f` and `\frac{d^2}{dx^2} f`. `\frac{dy}{dx}` is a name.
    pub(crate) fn differential_quotient(&mut self) -> Option<Option<Expr>> {
        let text = |n: usize| self.token(n).map(|t| shown(&t.tok)).unwrap_or_default();
        let group = |from: usize| {
            let end = (from + 1..=from + 13).find(|&n| matches!(text(n).as_str(), "}" | ""))?;
            let inner: String = (from + 1..end).map(text).collect();
            (text(from) == "{" && text(end) == "}").then(|| (inner.replace("partial", "d"), end + 1))
        };
        let (over, middle) = group(0)?;
        let (under, end) = group(middle)?;
        let order = |t: &str| match t.split_once('^') {
            Some((_, n)) => n.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().ok(),
            None => Some(1),
        };
        let bare = |t: &str| t.split('^').next().unwrap_or_default().to_owned();
        let var_name = bare(under.strip_prefix('d')?);
        if var_name.is_empty() || var_name.len() > 7 || !var_name.chars().all(char::is_alphabetic) {
            return None;
        }
        let over_name = over.strip_prefix('d')?;
        if !over_name.is_empty() && !over_name.starts_with('^') {
            // The name dy/dx.
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

    /// Parses the ends of a sum or integral: `_a^b`, in either order.
    pub(crate) fn ends(&mut self) -> Option<(Option<Vec<Token>>, Option<Expr>)> {
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

    pub(crate) fn tokens_of_argument(&mut self) -> Option<Vec<Token>> {
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

    /// Parses a part of the tokens as one expression, at this depth.
    pub(crate) fn inner(&self, tokens: &[Token]) -> Option<Expr> {
        let mut p = Parser::new(tokens, self.steps);
        p.depth = self.depth;
        let e = p.expr()?;
        (p.at == tokens.len()).then_some(e)
    }

    pub(crate) fn series(&mut self, binder: Binder) -> Option<Expr> {
        let (low, to) = self.ends()?;
        let (low, to) = (low?, to?);
        let equals = low.iter().position(|t| t.tok == Tok::Sym('='))?;
        let name = match &low[..equals] {
            [Token { tok: Tok::Word(w), .. }] => w.clone(),
            [Token { tok: Tok::Cmd(c), .. }] if is_greek(c) => c.clone(),
            _ => return None,
        };
        let from = self.inner(&low[equals + 1..])?;
        let body = self.term()?;
        Some(Expr::Bound(Box::new(Bound { binder, var: name, from, to, body })))
    }

    pub(crate) fn limit(&mut self) -> Option<Expr> {
        let (low, _) = self.ends()?;
        let low = low?;
        let arrow = low.iter().position(|t| is_cmd(Some(t), "rightarrow"))?;
        let [Token { tok: Tok::Word(name) | Tok::Cmd(name), .. }] = &low[..arrow] else { return None };
        let from = self.inner(&low[arrow + 1..])?;
        let body = self.term()?;
        Some(Expr::Bound(Box::new(Bound { binder: Binder::Limit, var: name.clone(), from, to: integer(0), body })))
    }

    /// Parses `\int_a^b f dx`. The integrand ends at the first `dx` of this level.
    pub(crate) fn integral(&mut self) -> Option<Expr> {
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
                    let found = match (letters.as_slice(), self.tokens.get(end + 1).map(|t| &t.tok)) {
                        (['d'], Some(Tok::Word(x))) if x.chars().count() == 1 => Some((x.clone(), end + 2, None)),
                        (['d'], Some(Tok::Cmd(x))) if is_greek(x) => Some((x.clone(), end + 2, None)),
                        ([head @ .., 'd', x], _) if head.len() <= 3 => {
                            let head: String = head.iter().collect();
                            Some((x.to_string(), end + 1, Some(head).filter(|h| !h.is_empty())))
                        }
                        _ => None,
                    };
                    if let Some(found) = found {
                        break found;
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

    /// Parses the rows of a matrix up to its end.
    pub(crate) fn matrix(&mut self, kind: &str) -> Option<Expr> {
        if !kind.ends_with("matrix") && kind != "array" {
            return None;
        }
        let mut level = 1;
        let length = self.tokens[self.at..].iter().position(|t| {
            level += nesting(&t.tok);
            level == 0
        })?;
        let inside = &self.tokens[self.at..self.at + length];
        self.steps.spend(length as u64)?;
        self.at += length;
        if !self.eat_cmd(&format!("end {kind}")) {
            return None;
        }
        let cells = |row| split(row, |t| *t == Tok::Sym('&'))?.into_iter().map(|cell| self.inner(cell)).collect();
        let rows = split(inside, |t| matches!(t, Tok::Cmd(c) if c == "\\" || c == "cr"))?;
        let rows = rows.into_iter().filter(|row| !row.is_empty()).map(cells).collect::<Option<Vec<Vec<Expr>>>>()?;
        let width = rows.first()?.len();
        if rows.iter().any(|r| r.len() != width) {
            return None;
        }
        let matrix = Expr::Matrix(rows);
        Some(if kind.starts_with('v') { Expr::Call("det", vec![matrix]) } else { matrix })
    }
}
