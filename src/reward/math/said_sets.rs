//! Sets in words: "all odd integers", "integer multiples of \pi", "all real x except the odd multiples of \pi/2",
//! "integers between 2 and 7", and the periodic sets that such words and integer parameters name.

use super::domain::{Domain, kind};
use super::exact::exact;
use super::expr::{Expr, integer, number, var};
use super::lex::{Tok, Token};
use super::parse::{Reader, Value};
use super::region::{Region, Span};
use super::relation::variable_of;
use super::scalar::{is, is_cmd, scalar};
use super::sets::points;
use super::{Rational, Steps};

/// The counter of a set in words: no name that can be written.
const COUNTER: &str = "member number";

fn said(t: &Token) -> Option<String> {
    match &t.tok {
        Tok::Word(w) | Tok::Text(w) => Some(w.trim().to_ascii_lowercase()),
        _ => None,
    }
}

/// What stands behind the words that may open a set: "the set of all".
fn opened(mut tokens: &[Token]) -> &[Token] {
    const OPENING: [&str; 7] = ["the", "set", "of", "all", "every", "any", "each"];
    while let [first, rest @ ..] = tokens
        && said(first).is_some_and(|w| OPENING.contains(&w.as_str()) || w == "the set of" || w == "the set of all")
    {
        tokens = rest;
    }
    tokens
}

impl Reader<'_> {
    /// `\operatorname{span}\{(1, 0, 1), (0, 1, 1)\}`: every sum of multiples of its vectors.
    pub(super) fn spanned(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        const SPANS: [&[&str]; 7] = [
            &["span"],
            &["span", "of"],
            &["scalar", "multiples", "of"],
            &["real", "multiples", "of"],
            &["linear", "combinations", "of"],
            &["subspace", "spanned", "by"],
            &["line", "spanned", "by"],
        ];
        let tokens = opened(tokens);
        let words: Vec<String> = tokens.iter().take(3).map_while(said).collect();
        let named = |w: &&&[&str]| words.len() >= w.len() && words.iter().zip(w.iter()).all(|(a, b)| a == b);
        let used = SPANS.iter().filter(named).map(|w| w.len()).max()?;
        let items = match self.value(&tokens[used..], depth + 1)? {
            Value::Set(items) | Value::List(items) => items,
            v => vec![v],
        };
        let vector = |v: &Value| -> Option<Vec<Expr>> {
            match v {
                Value::Tuple(items) => {
                    items.iter().map(|v| if let Value::Scalar(e, None) = v { Some(e.clone()) } else { None }).collect()
                }
                Value::Matrix(rows) if rows.len() == 1 || rows.iter().all(|r| r.len() == 1) => {
                    Some(rows.iter().flatten().cloned().collect())
                }
                _ => None,
            }
        };
        let vectors = items.iter().map(vector).collect::<Option<Vec<_>>>()?;
        let width = vectors.first()?.len();
        let names: Vec<String> = (0..vectors.len()).map(|n| format!("multiple {n}")).collect();
        if width > 4 || vectors.len() > 4 || vectors.iter().any(|v| v.len() != width) {
            return None;
        }
        let part = |n: usize| {
            let terms = vectors.iter().zip(&names).map(|(v, k)| Expr::Mul(vec![var(k), v[n].clone()]));
            Value::Scalar(Expr::Add(terms.collect()), None)
        };
        let domains = names.iter().map(|n| (n.clone(), Domain::Real)).collect();
        Some(Value::Over(Box::new(Value::Tuple((0..width).map(part).collect())), domains))
    }

    /// Whole numbers by what they are divided by: "odd integers", "multiples of 3", "odd multiples of \pi/2".
    pub(super) fn said_multiples(&self, tokens: &[Token]) -> Option<Value> {
        let tokens = opened(tokens);
        let words: Vec<Option<String>> = tokens.iter().take(6).map(said).collect();
        let word = |n: usize| words.get(n).and_then(|w| w.as_deref()).unwrap_or_default();
        let mut at = 0;
        let sign = match word(0) {
            "positive" => Some(1),
            "nonnegative" => Some(0),
            _ => None,
        };
        at += usize::from(sign.is_some());
        let (mut first, mut step) = (0, 1);
        match word(at) {
            "odd" => (first, step) = (1, 2),
            "even" => (first, step) = (0, 2),
            "integer" | "integral" | "multiple" | "multiples" => {}
            _ => return None,
        }
        at += usize::from(!matches!(word(at), "multiple" | "multiples"));
        at += usize::from(word(at) == "integer" && word(at + 1).starts_with("multiple"));
        let unit = match word(at) {
            "integers" | "integer" | "numbers" | "number" if step == 2 && at + 1 == tokens.len() => integer(1),
            "multiples" | "multiple" if word(at + 1) == "of" => scalar(&tokens[at + 2..], self.steps)?,
            _ => return None,
        };
        let times = |n: i64| Expr::Mul(vec![integer(n), unit.clone()]);
        Some(match sign {
            None => Value::Family(times(first), times(step)),
            // From the first of them that is not below.
            Some(least) => {
                let from = if first < least { first + step } else { first };
                let term = Expr::Add(vec![times(from), Expr::Mul(vec![times(step), var(COUNTER)])]);
                Value::Over(Box::new(Value::Scalar(term, None)), vec![(COUNTER.to_owned(), Domain::From(0))])
            }
        })
    }

    /// "positive real numbers", "the rational numbers", "all nonnegative integers", "integers greater than 2".
    pub(super) fn said_numbers(&self, tokens: &[Token]) -> Option<Value> {
        let all = opened(tokens);
        let words: Vec<String> = all.iter().map(|t| said(t).unwrap_or_else(|| super::scalar::shown(&t.tok))).collect();
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        let sign = match words.as_slice() {
            ["non", "-", w, ..] => {
                let sign = match *w {
                    "negative" => "nonnegative",
                    "positive" => "nonpositive",
                    "zero" => "nonzero",
                    _ => return None,
                };
                words.drain(..3);
                sign
            }
            [w @ ("positive" | "negative" | "nonnegative" | "nonpositive" | "nonzero"), ..] => {
                let sign = *w;
                words.remove(0);
                sign
            }
            _ => "",
        };
        let (real, used) = match words.as_slice() {
            ["real", "numbers" | "number", ..] => (true, 2),
            ["reals", ..] => (true, 1),
            ["integers" | "integer", ..] => (false, 1),
            ["rational", "numbers"] if sign.is_empty() => return Some(Value::Named("Q".to_owned())),
            ["complex", "numbers"] if sign.is_empty() => return Some(Value::Named("C".to_owned())),
            ["natural", "numbers"] if sign.is_empty() => return Some(Value::Named("N".to_owned())),
            _ => return None,
        };
        let zero = || integer(0);
        let (low, high) = (
            |at: Expr, closed: bool| Span { low: at, low_closed: closed, ..Span::all() },
            |at: Expr, closed: bool| Span { high: at, high_closed: closed, ..Span::all() },
        );
        let mut region = Region::new(match sign {
            "positive" => vec![low(zero(), false)],
            "nonnegative" => vec![low(zero(), true)],
            "negative" => vec![high(zero(), false)],
            "nonpositive" => vec![high(zero(), true)],
            "nonzero" => vec![high(zero(), false), low(zero(), false)],
            _ => vec![Span::all()],
        });
        let rest = &all[all.len() - (words.len() - used)..];
        let bound = |n: usize| scalar(&rest[n..], self.steps);
        match words[used..].to_vec().as_slice() {
            [] => {}
            ["greater" | "larger" | "more", "than", "or", "equal", "to", _, ..] => {
                region = region.intersection(&Region::new(vec![low(bound(5)?, true)]), self.steps)?;
            }
            ["less" | "smaller", "than", "or", "equal", "to", _, ..] => {
                region = region.intersection(&Region::new(vec![high(bound(5)?, true)]), self.steps)?;
            }
            ["at", "least", _, ..] => {
                region = region.intersection(&Region::new(vec![low(bound(2)?, true)]), self.steps)?;
            }
            ["at", "most", _, ..] => {
                region = region.intersection(&Region::new(vec![high(bound(2)?, true)]), self.steps)?;
            }
            // "greater than" may have become its sign already.
            [">", _, ..] | ["greater" | "larger" | "more", "than", _, ..] => {
                let at = bound(if words[used] == ">" { 1 } else { 2 })?;
                region = region.intersection(&Region::new(vec![low(at, false)]), self.steps)?;
            }
            ["<", _, ..] | ["less" | "smaller", "than", _, ..] => {
                let at = bound(if words[used] == "<" { 1 } else { 2 })?;
                region = region.intersection(&Region::new(vec![high(at, false)]), self.steps)?;
            }
            ["ge", _, ..] => region = region.intersection(&Region::new(vec![low(bound(1)?, true)]), self.steps)?,
            ["le", _, ..] => region = region.intersection(&Region::new(vec![high(bound(1)?, true)]), self.steps)?,
            _ => return None,
        }
        if real {
            return (!sign.is_empty() || words.len() > used).then_some(Value::Region(region));
        }
        match sign {
            "" if words.len() == used => Some(Value::Named("Z".to_owned())),
            "nonzero" => None,
            _ => whole_points(&region, Domain::Whole, self.steps).or_else(|| endless(&region, self.steps)),
        }
    }

    /// "all integers n with -2 \le n \le 2", "the integers from 3 to 7", "real numbers x such that x > 2".
    pub(super) fn said_members(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let (domain, used) = kind(opened(tokens)).filter(|(_, used)| *used > 0)?;
        let rest = &opened(tokens)[used..];
        let ranged = |t: &Token| said(t).is_some_and(|w| matches!(w.as_str(), "from" | "between"));
        if rest.first().is_some_and(ranged) && domain != Domain::Real {
            let Value::Region(r) = self.said_range(rest)? else { return None };
            return whole_points(&r, domain, self.steps);
        }
        let (first, mut rest) = rest.split_first()?;
        let name = variable_of(std::slice::from_ref(first))?;
        const JOINTS: [&str; 8] = ["with", "such", "that", "where", "satisfying", "for", "which", "so"];
        let all = rest.len();
        while let [first, tail @ ..] = rest
            && (said(first).is_some_and(|w| JOINTS.contains(&w.as_str())) || is(Some(first), ','))
        {
            rest = tail;
        }
        // "integers n \ge 3" joins without a word.
        if rest.len() == all && domain == Domain::Real {
            return None;
        }
        let condition = if rest.len() == all { &tokens[tokens.len() - rest.len() - 1..] } else { rest };
        let letters = Vec::new();
        match (Reader { steps: self.steps, letters }.value(condition, depth + 1)?, domain) {
            (v, Domain::Real) => Some(v),
            (Value::Region(r), _) if r.variable.as_ref() == Some(&name) => {
                whole_points(&r, domain, self.steps).or(Some(Value::Region(r)))
            }
            _ => None,
        }
    }

    /// "all real x except 2 and 3", "x is any real number other than \pm 1".
    pub(super) fn said_exceptions(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        const ALL: [&str; 16] = [
            "all", "any", "every", "each", "real", "reals", "number", "numbers", "value", "values", "is", "can", "be",
            "of", "the", "for",
        ];
        const BUT: [&str; 4] = ["except", "excluding", "but", "besides"];
        let (mut at, mut real, mut name, mut sign) = (0, false, None, None);
        loop {
            let t = tokens.get(at)?;
            let word = said(t);
            let word = word.as_deref().unwrap_or_default();
            let next = tokens.get(at + 1).and_then(said).unwrap_or_default();
            if BUT.contains(&word) || (word == "other" && next == "than") || (word == "apart" && next == "from") {
                at += 1 + usize::from(matches!(word, "other" | "apart") || (word == "but" && next == "not"));
                break;
            }
            real |= word.starts_with("real") || is_cmd(Some(t), "mathbbR");
            let letter = variable_of(std::slice::from_ref(t)).filter(|_| name.is_none());
            let idle = is(Some(t), ',') || is_cmd(Some(t), "mathbbR") || is_cmd(Some(t), "in") || word == "in";
            if letter.is_some() {
                name = letter;
            } else if matches!(word, "positive" | "negative") && sign.is_none() {
                sign = Some(word == "positive");
            } else if !ALL.contains(&word) && !idle {
                return None;
            }
            at += 1;
        }
        if !real {
            return None;
        }
        let mut rest = &tokens[at..];
        while let [first, tail @ ..] = rest
            && said(first).is_some_and(|w| matches!(w.as_str(), "for" | "when" | "where" | "at" | "the"))
        {
            rest = tail;
        }
        let all = without(self.value(rest, depth + 1)?, self.steps)?;
        let zero = || integer(0);
        let half = match sign {
            None => return Some(all),
            Some(true) => Span { low: zero(), low_closed: false, ..Span::all() },
            Some(false) => Span { high: zero(), high_closed: false, ..Span::all() },
        };
        match all {
            Value::Region(r) => r.intersection(&Region::new(vec![half]), self.steps).map(Value::Region),
            _ => None,
        }
    }
}

/// The whole numbers of a region with one end, from that end on.
pub(super) fn endless(r: &Region, steps: &Steps) -> Option<Value> {
    let [span] = r.spans.as_slice() else { return None };
    let whole = |e: &Expr, closed: bool, up: bool| {
        let at = exact(e, steps)?;
        let next = if up { at.ceil() } else { at.floor() };
        let one = Rational::from_integer(1.into());
        Some(if at.is_integer() && !closed { if up { next + one } else { next - one } } else { next })
    };
    let (first, step) = match (span.low.is_infinite(), span.high.is_infinite()) {
        (None, Some(_)) => (whole(&span.low, span.low_closed, true)?, 1),
        (Some(_), None) => (whole(&span.high, span.high_closed, false)?, -1),
        _ => return None,
    };
    let term = Expr::Add(vec![number(first), Expr::Mul(vec![integer(step), var(COUNTER)])]);
    Some(Value::Over(Box::new(Value::Scalar(term, None)), vec![(COUNTER.to_owned(), Domain::From(0))]))
}

/// The whole numbers of a region, where they are few, from where their domain begins.
fn whole_points(r: &Region, domain: Domain, steps: &Steps) -> Option<Value> {
    let mut points = r.whole_numbers(steps)?;
    if let Domain::From(first) = domain {
        points.retain(|n| *n >= first);
    }
    Some(Value::Set(points.into_iter().map(|n| Value::Scalar(integer(n), None)).collect()))
}

/// All real numbers but these.
pub(super) fn without(left_out: Value, steps: &Steps) -> Option<Value> {
    let mut families = Vec::new();
    if periodic(&left_out, &mut families) {
        return Some(Value::Except(families));
    }
    let plain = |v: Value| if let Value::Assignment(_, x) = v { *x } else { v };
    let items: Vec<Value> = match left_out {
        Value::List(items) | Value::Set(items) => items.into_iter().map(plain).collect(),
        Value::Region(r) => return r.complement(steps).map(Value::Region),
        v => vec![plain(v)],
    };
    points(&items)?.complement(steps).map(Value::Region)
}

/// Collects the families that a value is a union of.
fn periodic(v: &Value, out: &mut Vec<(Expr, Expr)>) -> bool {
    match v {
        Value::Family(a, n) => {
            out.push((a.clone(), n.clone()));
            true
        }
        Value::Assignment(_, v) => periodic(v, out),
        Value::List(items) | Value::Set(items) => !items.is_empty() && items.iter().all(|v| periodic(v, out)),
        _ => false,
    }
}

/// The point that a region over an integer parameter leaves out: `x \ne k\pi`.
pub(super) fn left_out(r: &Region) -> Option<Expr> {
    match r.spans.as_slice() {
        [a, b]
            if a.low.is_infinite() == Some(-1)
                && b.high.is_infinite() == Some(1)
                && a.high == b.low
                && !a.high_closed
                && !b.low_closed =>
        {
            Some(a.high.clone())
        }
        _ => None,
    }
}

/// A region of one interval as its ends and how they close.
pub(super) fn ends(span: &Span) -> (Vec<Expr>, String) {
    let mark = |c: bool| if c { '[' } else { '(' };
    (vec![span.low.clone(), span.high.clone()], [mark(span.low_closed), mark(span.high_closed)].iter().collect())
}
