//! Inequalities, and the numbers that solve them.

use super::expr::{Expr, divide, integer, minus, negate, var};
use super::lex::Token;
use super::parse::{Reader, Value, one_or_list};
use super::region::{Region, Span, infinity};
use super::relation::{relation_sign, variable_of};
use super::said_sets::without;
use super::scalar::{is_cmd, scalar};
use super::{Rational, exact};

impl Reader<'_> {
    /// A chain of inequalities: the region of its one variable where that can be solved.
    pub(super) fn inequality(&self, parts: &[&[Token]], signs: &[char]) -> Option<Value> {
        let mut exprs: Vec<Expr> = parts.iter().map(|p| scalar(p, self.steps)).collect::<Option<_>>()?;
        // Bounds of a function's values: -1 <= f(x) <= 3 is -1 <= y <= 3.
        let value = |e: &Expr| matches!(e, Expr::Apply(f, of) if f != "P" && matches!(of.as_slice(), [Expr::Var(_)]));
        if exprs.iter().filter(|e| e.has_variables()).count() == 1
            && let Some(found) = exprs.iter_mut().find(|e| value(e))
        {
            *found = var("y");
        }
        let mut variables: Vec<String> = exprs.iter().flat_map(Expr::variables).collect();
        variables.retain(|n| !self.letters.contains(n));
        variables.sort();
        variables.dedup();
        // 2k\pi < x < \pi + 2k\pi: ends with letters have no order.
        if let ([low, middle, high], [p, q]) = (exprs.as_slice(), signs)
            && !self.letters.is_empty()
            && let Some(name) = middle.as_variable().filter(|n| variables.len() == 1 && variables[0] == *n)
            && (matches!((p, q), ('<' | 'l', '<' | 'l')) || matches!((p, q), ('>' | 'g', '>' | 'g')))
        {
            let (low, p, high, q) = if matches!(p, '<' | 'l') { (low, p, high, q) } else { (high, q, low, p) };
            let closed = |sign: &char| matches!(sign, 'l' | 'g');
            let span = Span { low: low.clone(), low_closed: closed(p), high: high.clone(), high_closed: closed(q) };
            return Some(Value::Region(Region { variable: Some(name.to_owned()), ..Region::new(vec![span]) }));
        }
        // Constants in their order.
        let up = signs.iter().all(|s| *s == '<');
        if variables.is_empty() && exprs.len() > 2 && (up || signs.iter().all(|s| *s == '>')) {
            let mut row: Vec<Value> = exprs.into_iter().map(|e| Value::Scalar(e, None)).collect();
            if !up {
                row.reverse();
            }
            return Some(Value::Tuple(row));
        }
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

    /// `x \ne \pm 1`, `x \ne 1, -1`: all numbers but several behind one sign.
    pub(super) fn unequal(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let [name, sign, rest @ ..] = tokens else { return None };
        let name = variable_of(std::slice::from_ref(name))?;
        let apart = |t: &Token| relation_sign(&t.tok).is_some() || is_cmd(Some(t), "in");
        if relation_sign(&sign.tok) != Some('n') || rest.iter().any(apart) {
            return None;
        }
        let Value::List(items) = self.value(rest, depth + 1)? else { return None };
        if !items.iter().all(|v| matches!(v, Value::Scalar(e, None) if !e.has_variables())) {
            return None;
        }
        match without(Value::List(items), self.steps)? {
            Value::Region(all) => Some(Value::Region(Region { variable: Some(name), ..all })),
            _ => None,
        }
    }

    /// `a < b` for a side that is linear in the variable, or the absolute value of such.
    pub(super) fn solve(&self, name: &str, a: &Expr, b: &Expr, sign: char) -> Option<Region> {
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
            if let Some(r) = self.quadratic(name, x, c, sign, below) {
                return Some(r);
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

    /// Where a quadratic expression is below or above a number.
    fn quadratic(&self, name: &str, x: &Expr, c: &Expr, sign: char, below: bool) -> Option<Region> {
        let whole = |n: i64| Rational::from_integer(n.into());
        let at = |n: i64| exact::exact(&minus(x.replace(name, &integer(n)), c.clone()), self.steps);
        let (f0, f1, f2, f3) = (at(0)?, at(1)?, at(2)?, at(3)?);
        let bend = &f2 - &f1 - (&f1 - &f0);
        if bend == whole(0) || &f3 - &f2 - (&f2 - &f1) != bend || !matches!(sign, '<' | 'l' | '>' | 'g') {
            return None;
        }
        // a x^2 + b x + c
        let a = &bend / whole(2);
        let b = &f1 - &f0 - &a;
        let discriminant = &b * &b - whole(4) * &a * &f0;
        if discriminant < whole(0) {
            return None;
        }
        let strict = matches!(sign, '<' | '>');
        let root = |side: i64| {
            let half = super::expr::power(super::expr::number(discriminant.clone()), divide(integer(1), integer(2)));
            let over =
                super::expr::Expr::Add(vec![super::expr::number(-b.clone()), Expr::Mul(vec![integer(side), half])]);
            divide(over, super::expr::number(whole(2) * &a))
        };
        let positive = a > whole(0);
        let (low, high) = if positive { (root(-1), root(1)) } else { (root(1), root(-1)) };
        // Between its roots an upward parabola is below.
        if below == positive {
            return Some(Region::new(vec![Span { low, low_closed: !strict, high, high_closed: !strict }]));
        }
        let between = Span { low, low_closed: strict, high, high_closed: strict };
        Region::new(vec![between]).complement(self.steps)
    }

    /// Where a linear expression falls into a region.
    pub(super) fn preimage(&self, name: &str, x: &Expr, region: Region) -> Option<Region> {
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
}
