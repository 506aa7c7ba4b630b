//! Sets, tuples and intervals in brackets, and environments of rows.

use std::cmp::Ordering;

use super::decide::order;
use super::domain::clauses;
use super::expr::Expr;
use super::expr::integer;
use super::lex::{Tok, Token};
use super::parse::{MAX_ITEMS, Reader, Value, is_comma, names, nesting, one_or_list, split};
use super::piecewise::has_conditions;
use super::region::{Region, Span};
use super::relation::{relation_sign, variable_of};
use super::said_sets::endless;
use super::scalar::{is, is_cmd};
use super::terms::progression;

impl Reader<'_> {
    /// Rows of a system or an aligned calculation.
    pub(super) fn environment(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
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
                return Some(self.cases(&rows, depth));
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
        // Bounds on one variable hold together.
        if let Some([Value::Region(first), rest @ ..]) = items.as_deref()
            && !rest.is_empty()
            && let Some(all) = rest.iter().try_fold(first.clone(), |all, v| match v {
                Value::Region(r) if r.variable == first.variable && r.variable.is_some() => {
                    all.intersection(r, self.steps)
                }
                _ => None,
            })
        {
            return Some(Some(Value::Region(all)));
        }
        Some(items.and_then(one_or_list))
    }

    /// True for an equation in one variable that this value of it solves.
    pub(super) fn solved_by(&self, line: &Value, name: &str, x: &Expr) -> bool {
        let Value::Equation(a, b) = line else { return false };
        let own = |e: &Expr| e.variables().iter().all(|n| n == name);
        own(a) && own(b) && super::decide::decide(&a.replace(name, x), &b.replace(name, x), self.steps).is_equal()
    }

    /// A set, tuple or interval that is the whole of `tokens`.
    pub(super) fn bracketed(&self, tokens: &[Token], depth: usize) -> Option<Option<Value>> {
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
        if let Some(v) = self.builder(inside, depth).filter(|v| set || (grouped && v.is_some())) {
            return Some(v);
        }
        if (set || grouped)
            && let Some(v) = self.over_domains(inside, depth)
        {
            return Some(Some(v));
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
        // (\pm 2, 0): two points.
        let either = |t: &&Token| is_cmd(Some(t), "pm") || is_cmd(Some(t), "mp");
        if round && tokens.iter().filter(either).count() == 1 {
            return Some(self.plus_minus(tokens, depth));
        }
        if (set || grouped)
            && let Some(v) = progression(&parts, self.steps)
        {
            return Some(Some(if let Value::List(items) = v { Value::Set(items) } else { v }));
        }
        // f(x) = \{2x, x < 0; x^2, x \ge 0\}
        if set && let Some(v) = self.said_cases(inside, depth) {
            return Some(Some(v));
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
            // [5, 2] is a list, and a row of a matrix.
            && order(a, b, self.steps) != Some(Ordering::Greater)
        {
            let span = Span { low: a.clone(), low_closed: *o == '[', high: b.clone(), high_closed: *c == ']' };
            return Some(Some(Value::Region(Region::new(vec![span]))));
        }
        Some(Some(Value::Tuple(items)))
    }

    /// `\{x \mid x > 3\}`, `\{x \in \mathbb{R} : x \ne 0\}`.
    pub(super) fn builder(&self, inside: &[Token], depth: usize) -> Option<Option<Value>> {
        let bar = |t: &Tok| matches!(t, Tok::Sym('|' | ':'));
        let parts = split(inside, bar)?;
        let [name, condition] = parts.as_slice() else { return None };
        // \{2k + 1 : k \in Z\}
        if variable_of(name).is_none()
            && split(name, names("in"))?.len() == 1
            && let Some(domains) = clauses(condition)
        {
            let letters = domains.iter().map(|d| d.0.clone()).collect();
            let value = Reader { steps: self.steps, letters }.value(name, depth + 1);
            return Some(value.map(|v| self.over(v, domains)));
        }
        let domain = split(name, names("in"))?;
        variable_of(domain[0])?;
        let value = self.over_domains(condition, depth + 1).or_else(|| self.value(condition, depth + 1));
        Some(value.and_then(|v| match (v, domain.get(1).map(|d| self.value(d, depth + 1))) {
            (Value::Region(r), Some(Some(Value::Region(d)))) => r.intersection(&d, self.steps).map(Value::Region),
            (Value::Region(r), Some(Some(Value::Named(set)))) if set == "Z" => {
                let Some(points) = r.whole_numbers(self.steps) else { return endless(&r, self.steps) };
                Some(Value::Set(points.into_iter().map(|n| Value::Scalar(integer(n), None)).collect()))
            }
            (v, None) => Some(v),
            (Value::Equation(a, b), Some(Some(Value::Region(_)))) => Some(Value::Equation(a, b)),
            (v, _) => Some(Value::Tuple(vec![v])),
        }))
    }
}
