//! Sets of real numbers as unions of intervals. A point is a closed interval with equal ends.

use crate::steps::Steps;
use crate::value::decide::{decide, order};
use crate::value::expr::{Expr, negate, var};
use std::cmp::Ordering;

/// An interval.
#[derive(Clone, PartialEq, Debug)]
pub struct Span {
    /// Lower end.
    pub low: Expr,
    /// True if the lower end belongs to the interval.
    pub low_closed: bool,
    /// Upper end.
    pub high: Expr,
    /// True if the upper end belongs to the interval.
    pub high_closed: bool,
}

/// A union of intervals, and the variable that it describes.
#[derive(Clone, PartialEq, Debug)]
pub struct Region {
    /// The intervals as written, or sorted and disjoint.
    pub spans: Vec<Span>,
    /// The variable, if the region comes from an inequality.
    pub variable: Option<String>,
}

/// Maximum number of intervals of a union.
const MAX_SPANS: usize = 64;

pub(crate) fn infinity(negative: bool) -> Expr {
    if negative { negate(var("infty")) } else { var("infty") }
}

impl Span {
    /// Returns the interval of all real numbers.
    pub(crate) fn all() -> Self {
        Span::between(infinity(true), infinity(false), false)
    }

    pub(crate) fn point(at: Expr) -> Self {
        Span::between(at.clone(), at, true)
    }

    /// Creates an interval that contains both of its ends, or neither.
    pub(crate) fn between(low: Expr, high: Expr, closed: bool) -> Self {
        Span { low, low_closed: closed, high, high_closed: closed }
    }
}

impl Region {
    pub(crate) fn new(spans: Vec<Span>) -> Self {
        Region { spans, variable: None }
    }

    /// Returns the intervals sorted, disjoint and without empty ones. Returns `None` if the order of the ends is
    /// unknown.
    fn normal(&self, steps: &Steps) -> Option<Vec<Span>> {
        if self.spans.len() > MAX_SPANS {
            return None;
        }
        let mut spans: Vec<Span> = Vec::new();
        for s in &self.spans {
            match order(&s.low, &s.high, steps)? {
                Ordering::Less => spans.push(s.clone()),
                Ordering::Equal if s.low_closed && s.high_closed => spans.push(s.clone()),
                _ => {}
            }
        }
        // Insertion sort keeps the number of comparisons predictable.
        let mut sorted: Vec<Span> = Vec::new();
        for s in spans {
            let mut at = sorted.len();
            while at > 0 {
                let before = match order(&sorted[at - 1].low, &s.low, steps)? {
                    Ordering::Less => true,
                    Ordering::Equal => sorted[at - 1].low_closed || !s.low_closed,
                    Ordering::Greater => false,
                };
                if before {
                    break;
                }
                at -= 1;
            }
            sorted.insert(at, s);
        }
        let mut out: Vec<Span> = Vec::new();
        for s in sorted {
            let Some(last) = out.last_mut() else {
                out.push(s);
                continue;
            };
            let joins = match order(&s.low, &last.high, steps)? {
                Ordering::Less => true,
                Ordering::Equal => s.low_closed || last.high_closed,
                Ordering::Greater => false,
            };
            if !joins {
                out.push(s);
                continue;
            }
            match order(&s.high, &last.high, steps)? {
                Ordering::Greater => (last.high, last.high_closed) = (s.high, s.high_closed),
                Ordering::Equal => last.high_closed |= s.high_closed,
                Ordering::Less => {}
            }
        }
        Some(out)
    }

    /// Returns the union of both regions.
    pub(crate) fn union(mut self, other: Region) -> Region {
        let variable = self.variable.take().or(other.variable);
        self.spans.extend(other.spans);
        Region { spans: self.spans, variable }
    }

    /// Returns the intersection of both regions.
    pub(crate) fn intersection(&self, other: &Region, steps: &Steps) -> Option<Region> {
        let (a, b) = (self.normal(steps)?, other.normal(steps)?);
        let mut spans = Vec::new();
        for x in &a {
            for y in &b {
                let (low, low_closed) = match order(&x.low, &y.low, steps)? {
                    Ordering::Greater => (&x.low, x.low_closed),
                    Ordering::Less => (&y.low, y.low_closed),
                    Ordering::Equal => (&x.low, x.low_closed && y.low_closed),
                };
                let (high, high_closed) = match order(&x.high, &y.high, steps)? {
                    Ordering::Less => (&x.high, x.high_closed),
                    Ordering::Greater => (&y.high, y.high_closed),
                    Ordering::Equal => (&x.high, x.high_closed && y.high_closed),
                };
                spans.push(Span { low: low.clone(), low_closed, high: high.clone(), high_closed });
            }
        }
        let all = Region { spans, variable: self.variable.clone().or(other.variable.clone()) };
        let spans = all.normal(steps)?;
        Some(Region { spans, ..all })
    }

    /// Returns the complement in the real numbers.
    pub(crate) fn complement(&self, steps: &Steps) -> Option<Region> {
        let mut spans = Vec::new();
        let (mut low, mut low_closed) = (infinity(true), false);
        for s in self.normal(steps)? {
            spans.push(Span { low, low_closed, high: s.low.clone(), high_closed: !s.low_closed });
            (low, low_closed) = (s.high.clone(), !s.high_closed);
        }
        spans.push(Span { low, low_closed, high: infinity(false), high_closed: false });
        let finite = |s: &Span| {
            let closed = |e: &Expr, c: bool| !(c && e.is_infinite().is_some());
            closed(&s.low, s.low_closed) && closed(&s.high, s.high_closed)
        };
        spans.retain(finite);
        Some(Region { spans, variable: self.variable.clone() })
    }

    /// Returns true if the region is certainly empty.
    pub(crate) fn is_empty(&self, steps: &Steps) -> bool {
        self.normal(steps).is_some_and(|s| s.is_empty())
    }

    /// Returns true if both regions contain the same numbers.
    pub(crate) fn same(&self, other: &Region, steps: &Steps) -> bool {
        let ends = |x: &Span, y: &Span| {
            x.low_closed == y.low_closed
                && x.high_closed == y.high_closed
                && decide(&x.low, &y.low, steps).equal
                && decide(&x.high, &y.high, steps).equal
        };
        if let (Some(a), Some(b)) = (self.normal(steps), other.normal(steps)) {
            return a.len() == b.len() && a.iter().zip(&b).all(|(x, y)| ends(x, y));
        }
        // Ends with variables have no order. The intervals are then compared as written.
        let mut rest: Vec<&Span> = other.spans.iter().collect();
        self.spans.len() == rest.len()
            && self.spans.len() <= MAX_SPANS
            && self.spans.iter().all(|x| rest.iter().position(|y| ends(x, y)).map(|i| rest.remove(i)).is_some())
    }
}
