//! Decides whether two values are equal, by the rules of the published library. The rules cover the value of an
//! assignment, sets, relations one by one, names, numbers rounded to six decimal places if one of them is a decimal,
//! and algebra.

use num_bigint::BigInt;

use super::number::exact;
use super::region;
use super::sample::{agree, real_value, same_roots};
use super::tree::{Operator, Sign, Tree, Value, integer, negative, sum};
use crate::steps::{Rational, Steps};

/// Compares two values. Returns `None` if the published library raises an exception.
pub(super) fn equal(gold: &Value, answer: &Value, steps: &Steps) -> Option<bool> {
    steps.spend(10)?;
    let (mut g, mut a) = (gold.clone(), answer.clone());
    if a.is_equation() && !g.is_equation() {
        a = a.last_side();
    } else if g.is_assignment() && !a.is_equation() {
        g = g.last_side();
    }
    if g.is_relation()
        && a.is_set()
        && let Some(set) = region::of_relation(&g, steps)
    {
        return Some(region::of_set(&a, steps).is_some_and(|r| region::same(&set, &r)));
    }
    // A division by zero is never compared.
    if g == Value::Tree(Tree::Undefined) {
        return None;
    }
    if g == a {
        return Some(true);
    }
    if g.is_relation() && a.is_relation() {
        return relations(&g, &a, steps);
    }
    let several = |v: &Value| v.is_set() || matches!(v, Value::Tuple(_));
    if several(&g) || several(&a) {
        return sets(&g, &a, steps);
    }
    let (Value::Tree(x), Value::Tree(y)) = (&g, &a) else { return Some(false) };
    if matches!(x, Tree::Symbol(..)) || matches!(y, Tree::Symbol(..)) {
        return Some(names(x, y));
    }
    Some(expressions(x, y, steps))
}

impl Value {
    fn is_relation(&self) -> bool {
        matches!(self, Value::Relation(..) | Value::Chain(_))
    }

    fn is_equation(&self) -> bool {
        match self {
            Value::Relation(sign, ..) => *sign == Sign::Equal,
            Value::Chain(all) => all.iter().all(Value::is_equation),
            _ => false,
        }
    }

    fn is_assignment(&self) -> bool {
        let named = match self {
            Value::Relation(_, left, _) => left.is_of_letters(),
            Value::Chain(all) => matches!(all.first(), Some(Value::Relation(_, left, _)) if left.is_of_letters()),
            _ => false,
        };
        named && self.is_equation()
    }

    fn last_side(self) -> Value {
        match self {
            Value::Relation(_, _, right) => *right,
            Value::Chain(mut all) => all.pop().map_or(Value::Chain(all), Value::last_side),
            v => v,
        }
    }
}

/// Compares relations. They are compared by the difference of
/// their sides or by their solutions.
fn relations(g: &Value, a: &Value, steps: &Steps) -> Option<bool> {
    let (Value::Relation(s, gl, gr), Value::Relation(t, al, ar)) = (g, a) else { return Some(false) };
    let difference = |l: &Value, r: &Value| match (l, r) {
        (Value::Tree(l), Value::Tree(r)) => Some(computed(sum(l.clone(), negative(r.clone())), steps)),
        _ => None,
    };
    let same = |x: Option<Tree>, y: Option<Tree>| match (x, y) {
        (Some(x), Some(y)) => equal(&Value::Tree(x), &Value::Tree(y), steps) == Some(true),
        _ => false,
    };
    if s == t && same(difference(gl, gr), difference(al, ar)) {
        return Some(true);
    }
    if s.inverse()? == *t && same(difference(gl, gr), difference(ar, al)) {
        return Some(true);
    }
    if *s == Sign::Equal
        && *t == Sign::Equal
        && let (Some(x), Some(y)) = (difference(gl, gr), difference(al, ar))
    {
        // For a single letter, the library compares the solutions as if there were several letters. This always fails.
        let mut symbols = Vec::new();
        x.symbols(&mut symbols);
        return Some(symbols.len() > 1 && same_roots(&x, &y, steps));
    }
    Some(false)
}

/// Computes a constant as a number, with the same type as the library's own subtraction.
fn computed(t: Tree, steps: &Steps) -> Tree {
    match exact(&t, steps) {
        Some(x) if has_float(&t) => Tree::Float(x),
        Some(x) => Tree::Exact(x),
        None => t,
    }
}

/// Compares sets and tuples. Any other value counts as a set with this single member.
fn sets(g: &Value, a: &Value, steps: &Steps) -> Option<bool> {
    let wrapped = |v: &Value| match v {
        v if v.is_set() || matches!(v, Value::Tuple(_)) => v.clone(),
        v => Value::Set(vec![v.clone()]),
    };
    let (g, a) = (wrapped(g), wrapped(a));
    if let (Value::Interval(x, p), Value::Interval(y, q)) = (&g, &a) {
        let end = |i: usize| equal(&Value::Tree(x[i].clone()), &Value::Tree(y[i].clone()), steps);
        return Some(p == q && end(0)? && end(1)?);
    }
    if g == a {
        return Some(true);
    }
    let combined = |v: &Value| matches!(v, Value::Combined(..) | Value::Named(_) | Value::Interval(..));
    if g.is_set()
        && a.is_set()
        && (combined(&g) || combined(&a))
        && let (Some(x), Some(y)) = (region::of_set(&g, steps), region::of_set(&a, steps))
        && region::same(&x, &y)
    {
        return Some(true);
    }
    // An open interval may be a pair.
    let pair = |ends: &[Tree; 2]| Value::Tuple(ends.iter().map(|e| Value::Tree(e.clone())).collect());
    match (&g, &a) {
        (Value::Set(_) | Value::Tuple(_), Value::Set(_) | Value::Tuple(_)) => members(&g, &a, steps),
        (Value::Interval(ends, [true, true]), Value::Set(y) | Value::Tuple(y)) if distinct(y).len() == 2 => {
            members(&pair(ends), &a, steps)
        }
        (Value::Set(x) | Value::Tuple(x), Value::Interval(ends, [true, true])) if distinct(x).len() == 2 => {
            members(&g, &pair(ends), steps)
        }
        _ => Some(false),
    }
}

/// Returns the members, without those that are written like an earlier one.
fn distinct(all: &[Value]) -> Vec<&Value> {
    let mut kept: Vec<&Value> = Vec::new();
    for v in all {
        if !kept.contains(&v) {
            kept.push(v);
        }
    }
    kept
}

/// Compares members. The order matters if the gold answer is a tuple and does not matter if it is a set.
fn members(g: &Value, a: &Value, steps: &Steps) -> Option<bool> {
    let list = |v: &Value| match v {
        Value::Set(all) => distinct(all).into_iter().cloned().collect(),
        Value::Tuple(all) => all.clone(),
        _ => Vec::new(),
    };
    let (x, y): (Vec<Value>, Vec<Value>) = (list(g), list(a));
    if x.len() != y.len() {
        return Some(false);
    }
    if let (Value::Tuple(_), Value::Set(written)) = (g, a) {
        // A member that is written twice counts twice.
        if written.len() != x.len() {
            return None;
        }
    }
    let mut left: Vec<&Value> = y.iter().collect();
    for p in &x {
        let found = if matches!(g, Value::Tuple(_)) {
            equal(p, left.first()?, steps)?.then_some(0)
        } else {
            left.iter().position(|q| equal(p, q, steps) == Some(true))
        };
        let Some(i) = found else { return Some(false) };
        left.remove(i);
    }
    Some(true)
}

/// Compares names. Letters side by side form a word.
fn names(x: &Tree, y: &Tree) -> bool {
    let letter = |t: &Tree| match t {
        Tree::Symbol(name, _) => Some(name.clone()),
        Tree::Constant("e") => Some("e".to_owned()),
        _ => None,
    };
    let word = |t: &Tree| match t {
        Tree::Mul(factors) => factors.iter().map(letter).collect::<Option<String>>(),
        t => letter(t),
    };
    // A symbol may be spelled like a number. It then equals that number.
    let spelled = |number: &Tree, name: &Tree| match (number, name) {
        (Tree::Exact(x), Tree::Symbol(name, _)) => x.to_string() == *name,
        _ => false,
    };
    if spelled(x, y) || spelled(y, x) {
        return true;
    }
    match (word(x), word(y)) {
        (Some(a), Some(b)) => a.to_lowercase() == b.to_lowercase() && (a.len() > 1 || a == b),
        _ => false,
    }
}

fn has_float(t: &Tree) -> bool {
    t.any(&|t| matches!(t, Tree::Float(_)))
}

/// Returns the number inside a percent expression, or the number itself.
fn atom(t: &Tree) -> Option<&Tree> {
    match t {
        Tree::Percent(inner) => inner.is_number().then_some(&**inner),
        t => t.is_number().then_some(t),
    }
}

/// Compares expressions, first by their numbers, then by algebra.
fn expressions(x: &Tree, y: &Tree, steps: &Steps) -> bool {
    let (x, y) = (&region::folded(x), &region::folded(y));
    if let (Tree::Matrix(p), Tree::Matrix(q)) = (x, y) {
        let same_shape = p.len() == q.len() && p.iter().zip(q).all(|(r, s)| r.len() == s.len());
        return same_shape && p.iter().flatten().zip(q.iter().flatten()).all(|(r, s)| expressions(r, s, steps));
    }
    if let (Tree::Bound(Operator::Primitive, body, var, _), e) | (e, Tree::Bound(Operator::Primitive, body, var, _)) =
        (x, y)
    {
        // The library's antiderivative has no constant of integration.
        let terms = match e {
            Tree::Add(terms) => terms.as_slice(),
            e => std::slice::from_ref(e),
        };
        let derived =
            Tree::Bound(Operator::Derivative, Box::new(e.clone()), var.clone(), Box::new([integer(0), integer(0)]));
        return terms.iter().all(|t| t.any(&|t| *t == **var)) && agree(&derived, body, steps);
    }
    if matches!(x, Tree::Infinite(_)) || matches!(y, Tree::Infinite(_)) {
        return x == y;
    }
    let (values, atoms) = ((exact(x, steps), exact(y, steps)), (atom(x), atom(y)));
    let float = |t: Option<&Tree>| matches!(t, Some(Tree::Float(_)));
    if float(atoms.0) || float(atoms.1) {
        let whole = |t: &Tree, v: &Option<Rational>| !has_float(t) && v.as_ref().is_some_and(|v| v.is_integer());
        // The library does not round an integer before it compares it with a decimal, and an integer and a decimal are
        // never equal by type. They are equal only if their difference is zero.
        if whole(x, &values.0) || whole(y, &values.1) {
            return values.0.is_some() && values.0 == values.1;
        }
        return match values {
            (Some(a), Some(b)) => a == b || rounded(&a) == rounded(&b),
            _ => match (real_value(x, steps), real_value(y, steps)) {
                (Some(a), Some(b)) => (a * 1e6).round() == (b * 1e6).round(),
                _ => false,
            },
        };
    }
    if let (Some(a), Some(b)) = atoms
        && let (Some(a), Some(b)) = (a.whole(), b.whole())
        && a == b
    {
        return true;
    }
    match values {
        (Some(a), Some(b)) if !has_float(x) && !has_float(y) => {
            let tiny = Rational::new(1.into(), BigInt::from(1) << 50usize);
            let difference = if a > b { &a - &b } else { &b - &a };
            // A difference below the library's precision counts as zero, unless one of the values is a plain number.
            a == b || (atoms.0.is_none() && atoms.1.is_none() && difference < tiny)
        }
        (Some(a), Some(b)) => {
            let (Some(f), Some(h)) = (real_value(x, steps), real_value(y, steps)) else { return a == b };
            let free = atoms.0.is_none() && atoms.1.is_none();
            // Computed decimals may differ by the rounding error of the calculation.
            f == h || (free && (f - h).abs() < 2f64.powi(-50))
        }
        _ => agree(x, y, steps),
    }
}

/// Rounds a decimal to six places.
fn rounded(x: &Rational) -> BigInt {
    (x * Rational::from_integer(BigInt::from(1_000_000))).round().to_integer()
}
