//! Sets of real numbers as spans, solutions of simple relations, and arithmetic of matrices.

use super::number::replaced;
use super::sample::real_value;
use super::tree::{Sign, Tree, Value, integer, negative, product, sum};
use crate::steps::Steps;

/// A span: its two ends, with true for each end that is open.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Span {
    low: f64,
    high: f64,
    open: [bool; 2],
}

/// Spans in ascending order that do not touch.
type Region = Vec<Span>;

/// Returns the real line.
fn line() -> Region {
    vec![Span { low: f64::NEG_INFINITY, high: f64::INFINITY, open: [true, true] }]
}

fn joined(mut all: Region) -> Region {
    all.sort_by(|a, b| a.low.total_cmp(&b.low).then(a.open[0].cmp(&b.open[0])));
    let mut out: Region = Vec::new();
    for s in all {
        match out.last_mut() {
            Some(last) if s.low < last.high || (s.low == last.high && !(s.open[0] && last.open[1])) => {
                if s.high > last.high {
                    (last.high, last.open[1]) = (s.high, s.open[1]);
                } else if s.high == last.high {
                    last.open[1] &= s.open[1];
                }
            }
            _ => out.push(s),
        }
    }
    out
}

/// Returns the complement of a region.
fn complement(all: &Region) -> Region {
    let mut out = Vec::new();
    let (mut low, mut open) = (f64::NEG_INFINITY, true);
    for s in all {
        if low < s.low || (low == s.low && !open && s.open[0]) {
            out.push(Span { low, high: s.low, open: [open, !s.open[0]] });
        }
        (low, open) = (s.high, !s.open[1]);
    }
    if low < f64::INFINITY {
        out.push(Span { low, high: f64::INFINITY, open: [open, true] });
    }
    out
}

fn intersection(a: &Region, b: &Region) -> Region {
    let mut outside = complement(a);
    outside.extend(complement(b));
    complement(&joined(outside))
}

/// Returns the region of a set of numbers, or `None` if it contains letters or other sets.
pub(super) fn of_set(v: &Value, steps: &Steps) -> Option<Region> {
    Some(match v {
        Value::Interval(ends, open) => {
            vec![Span { low: real_value(&ends[0], steps)?, high: real_value(&ends[1], steps)?, open: *open }]
        }
        Value::Set(all) => {
            let point = |v: &Value| match v {
                Value::Tree(t) => real_value(t, steps).map(|x| Span { low: x, high: x, open: [false, false] }),
                _ => None,
            };
            joined(all.iter().map(point).collect::<Option<_>>()?)
        }
        Value::Named('R') => line(),
        Value::Combined('+', a, b) => joined(of_set(a, steps)?.into_iter().chain(of_set(b, steps)?).collect()),
        Value::Combined('-', a, b) if !matches!(**a, Value::Set(_)) => {
            intersection(&of_set(a, steps)?, &complement(&of_set(b, steps)?))
        }
        // Intersections and differences of finite sets are compared as they are written.
        _ => return None,
    })
}

/// Returns true if two regions have the same ends.
pub(super) fn same(a: &Region, b: &Region) -> bool {
    let close = |x: f64, y: f64| x == y || (x.is_finite() && (x - y).abs() <= 1e-12 * x.abs());
    a.len() == b.len() && a.iter().zip(b).all(|(s, t)| s.open == t.open && close(s.low, t.low) && close(s.high, t.high))
}

/// Returns the solutions of relations in one letter, if the difference of the sides is linear or quadratic.
pub(super) fn of_relation(v: &Value, steps: &Steps) -> Option<Region> {
    let mut symbols = Vec::new();
    let mut region = line();
    let all = match v {
        Value::Chain(all) => all.as_slice(),
        v => std::slice::from_ref(v),
    };
    for r in all {
        let Value::Relation(sign, a, b) = r else { return None };
        let (Value::Tree(a), Value::Tree(b)) = (&**a, &**b) else { return None };
        let difference = sum(a.clone(), negative(b.clone()));
        difference.symbols(&mut symbols);
        let [(name, real)] = symbols.as_slice() else { return None };
        let var = Tree::Symbol(name.clone(), *real);
        region = intersection(&region, &solved(*sign, &difference, &var, steps)?);
    }
    Some(region)
}

fn solved(sign: Sign, difference: &Tree, var: &Tree, steps: &Steps) -> Option<Region> {
    let at = |x: i64| real_value(&replaced(difference, var, &integer(x)), steps);
    let (y0, y1, y2, y3) = (at(0)?, at(1)?, at(2)?, at(3)?);
    let (second, third) = (y2 - 2.0 * y1 + y0, y3 - 3.0 * y2 + 3.0 * y1 - y0);
    let tiny = 1e-9 * (y0.abs() + y1.abs() + y2.abs() + y3.abs());
    if third.abs() > tiny {
        return None;
    }
    let (p, q) = (second / 2.0, y1 - y0 - second / 2.0);
    let mut roots = Vec::new();
    if second.abs() <= tiny {
        let slope = y1 - y0;
        if slope == 0.0 {
            return None;
        }
        roots.push(-y0 / slope);
    } else {
        let square = q * q - 4.0 * p * y0;
        if square < 0.0 {
            return None;
        }
        roots.push((-q - square.sqrt()) / (2.0 * p));
        roots.push((-q + square.sqrt()) / (2.0 * p));
        roots.sort_by(f64::total_cmp);
        roots.dedup();
    }
    let points: Region = roots.iter().map(|x| Span { low: *x, high: *x, open: [false, false] }).collect();
    let outside = complement(&points);
    let value = |s: &Span| {
        let x = match (s.low.is_finite(), s.high.is_finite()) {
            (true, true) => (s.low + s.high) / 2.0,
            (true, false) => s.low + 1.0,
            _ => s.high - 1.0,
        };
        p * x * x + q * x + y0
    };
    let kept = |positive: bool| outside.iter().filter(|s| (value(s) > 0.0) == positive).copied().collect::<Region>();
    Some(match sign {
        Sign::Equal => points,
        Sign::Unequal => outside,
        Sign::Less => kept(false),
        Sign::Greater => kept(true),
        Sign::AtMost => joined(kept(false).into_iter().chain(points).collect()),
        Sign::AtLeast => joined(kept(true).into_iter().chain(points).collect()),
    })
}

/// Computes products of matrices to a single matrix, if the shapes allow it.
pub(super) fn folded(t: &Tree) -> Tree {
    let has_matrix = |list: &[Tree]| list.iter().any(|t| t.any(&|t| matches!(t, Tree::Matrix(_))));
    match t {
        Tree::Mul(list) if has_matrix(list) => {
            let all: Vec<Tree> = list.iter().map(folded).collect();
            all.iter().cloned().reduce(times).unwrap_or_else(|| t.clone())
        }
        t => t.clone(),
    }
}

fn times(a: Tree, b: Tree) -> Tree {
    match (a, b) {
        (Tree::Matrix(p), Tree::Matrix(q)) if p[0].len() == q.len() => {
            let entry = |r: &Vec<Tree>, j: usize| {
                Tree::Add(r.iter().zip(&q).map(|(x, s)| product(x.clone(), s[j].clone())).collect())
            };
            Tree::Matrix(p.iter().map(|r| (0..q[0].len()).map(|j| entry(r, j)).collect()).collect())
        }
        (Tree::Matrix(p), scalar) | (scalar, Tree::Matrix(p)) if !matches!(scalar, Tree::Matrix(_)) => {
            let scaled = |x: Tree| product(scalar.clone(), x);
            Tree::Matrix(p.into_iter().map(|r| r.into_iter().map(scaled).collect()).collect())
        }
        (a, b) => product(a, b),
    }
}
