//! Equality of values.

use super::Steps;
use super::decide::{Decision, decide, proportional};
use super::exact::exact;
use super::expr::{Expr, divide, integer, minus, number, var};
use super::family::{components, counted, rows, same_families, solutions};
use super::parse::Value;
use super::region::Region;
use super::sets::{open_interval, points};
use super::text::words;
use super::unit::{Unit, same_word};

/// Longest unordered list that is compared.
const MAX_ITEMS: usize = 64;

/// The outcome, with the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// Whether they are equal.
    pub equal: bool,
    /// Why.
    pub why: &'static str,
}

fn yes(why: &'static str) -> Comparison {
    Comparison { equal: true, why }
}

fn no(why: &'static str) -> Comparison {
    Comparison { equal: false, why }
}

fn outcome(same: bool, equal: &'static str, different: &'static str) -> Comparison {
    if same { yes(equal) } else { no(different) }
}

impl From<Decision> for Comparison {
    fn from(d: Decision) -> Self {
        Comparison { equal: d.is_equal(), why: d.why() }
    }
}

/// Compares a gold value with an answer's.
pub fn equal(gold: &Value, answer: &Value, steps: &Steps) -> Comparison {
    if steps.spend(4).is_none() {
        return no("too much work to compare");
    }
    if let Some(c) = listed(gold, answer, steps) {
        return c;
    }
    match (gold, answer) {
        (Value::Sided(s, a), Value::Sided(t, b)) => {
            if s == t {
                equal(a, b, steps)
            } else {
                no("different directions")
            }
        }
        (Value::Sided(_, a), b) => equal(a, b, steps),
        (a, Value::Sided(_, b)) => equal(a, b, steps),
        (Value::Assignment(a, x), Value::Assignment(b, y)) => {
            if let (Some((f, t)), Some((g, u)), Value::Scalar(p, None), Value::Scalar(q, None)) =
                (applied(a), applied(b), &**x, &**y)
                && f == g
                && t != u
            {
                // g(t) = 2t and g(x) = 2x.
                decide(p, &q.replace(u, &var(t)), steps).into()
            } else if same_name(a, b) {
                equal(x, y, steps)
            } else if let (Value::Scalar(p, None), Value::Scalar(q, None)) = (&**x, &**y)
                && p.variables().contains(b)
                && q.variables().contains(a)
            {
                // x = (y - 1) / 2 and y = 2x + 1 are one line.
                equations(&minus(var(a), p.clone()), &minus(var(b), q.clone()), steps)
            } else if let (Value::Scalar(p, None), Value::Scalar(q, None)) = (&**x, &**y)
                && let (Some(l), Some(m)) = (letters(a), letters(b))
            {
                // PV = nRT and P = nRT / V: a law solved for another of its letters.
                let (f, g) = (minus(l, p.clone()), minus(m, q.clone()));
                let mut names = (f.variables(), g.variables());
                names.0.sort();
                names.1.sort();
                if names.0 == names.1 && names.0.len() > 1 { equations(&f, &g, steps) } else { no("different names") }
            } else {
                no("different names")
            }
        }
        // y = 2x + 1 and 2x - y + 1 = 0.
        (Value::Assignment(name, x), Value::Equation(a, b)) => as_equation(name, x, a, b, steps),
        (Value::Equation(a, b), Value::Assignment(name, x)) => as_equation(name, x, a, b, steps),
        (Value::Assignment(_, x), y) => equal(x, y, steps),
        (x, Value::Assignment(_, y)) => equal(x, y, steps),
        (Value::Equation(a, b), Value::Equation(c, d)) => {
            equations(&minus(a.clone(), b.clone()), &minus(c.clone(), d.clone()), steps)
        }
        // a + b = 12 beside 12: the letters are what was asked for.
        (Value::Scalar(x, None), Value::Equation(a, b)) | (Value::Equation(a, b), Value::Scalar(x, None))
            if !b.has_variables() && !x.has_variables() && only_letters(a) =>
        {
            decide(x, b, steps).into()
        }
        (Value::Positive(a, s), Value::Positive(b, t)) => {
            outcome(s == t && proportional(a, b, steps) == Some(true), "equal inequalities", "different inequalities")
        }
        (Value::Scalar(a, u), Value::Scalar(b, v)) => scalars(a, u.as_ref(), b, v.as_ref(), steps),
        (Value::Tuple(a), Value::Tuple(b)) => ordered(a, b, steps),
        (Value::Matrix(a), Value::Matrix(b)) => matrices(a, b, steps),
        (Value::Matrix(m), list @ Value::Tuple(items)) | (list @ Value::Tuple(items), Value::Matrix(m)) => {
            match rows(list) {
                Some(r) => matrices(m, &r, steps),
                None => vector(m, items, steps),
            }
        }
        (Value::Matrix(m), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Matrix(m)) => {
            named_matrix(m, e, steps)
        }
        (Value::Tuple(t), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Tuple(t)) => {
            along_axes(e, t, steps)
        }
        (Value::Region(a), Value::Region(b)) => regions(a, b, steps),
        // (a, b) is the pair or the open interval; [a, b] the list or the closed interval.
        (Value::Tuple(t), Value::Region(r)) | (Value::Region(r), Value::Tuple(t)) => match open_interval(t) {
            Some(i) => regions(&i, r, steps),
            None => no("different kinds"),
        },
        (Value::Set(t), Value::Region(r)) | (Value::Region(r), Value::Set(t)) => match points(t) {
            Some(p) => regions(&p, r, steps),
            None => no("different kinds"),
        },
        (Value::Region(r), Value::Scalar(x, None)) | (Value::Scalar(x, None), Value::Region(r)) => {
            let point = r.spans.len() == 1 && r.spans[0].low == r.spans[0].high;
            if point { decide(&r.spans[0].low, x, steps).into() } else { no("a number and a range") }
        }
        (Value::Named(a), Value::Named(b)) => outcome(a == b, "the same set of numbers", "different sets of numbers"),
        (Value::Ratio(a), Value::Ratio(b)) => ratios(a, b, steps),
        (Value::Ratio(r), Value::Scalar(x, None)) | (Value::Scalar(x, None), Value::Ratio(r)) => match r.as_slice() {
            // 10 to 15 and 10-15.
            [a, b] if *x == minus(a.clone(), b.clone()) => yes("the same range of numbers"),
            [a, b] => decide(&divide(a.clone(), b.clone()), x, steps).into(),
            _ => no("different kinds"),
        },
        (Value::Time(a), Value::Time(b)) => outcome(a == b, "the same time", "different times"),
        (Value::Time(t), Value::Ratio(r)) | (Value::Ratio(r), Value::Time(t)) => match r.as_slice() {
            // The half of the day may be left out, or told by the hour.
            [h, m] => {
                let minutes =
                    |add: i64| Expr::Add(vec![Expr::Mul(vec![integer(60), h.clone()]), m.clone(), integer(add * 60)]);
                let hits = [0, 12, -12].iter().any(|&d| decide(&minutes(d), &integer(i64::from(*t)), steps).is_equal());
                outcome(hits, "the same time", "different times")
            }
            _ => no("different kinds"),
        },
        (Value::Residue(a, n), Value::Residue(b, m)) => {
            if !decide(n, m, steps).is_equal() {
                return no("different moduli");
            }
            match (&**a, &**b) {
                (Value::Scalar(x, None), Value::Scalar(y, None)) => {
                    let rest = Expr::Call("mod", vec![minus(x.clone(), y.clone()), n.clone()]);
                    let zero = exact(&rest, steps).is_some_and(|r| r == super::Rational::from_integer(0.into()));
                    outcome(zero, "the same residue", "different residues")
                }
                (x, y) => equal(x, y, steps),
            }
        }
        (Value::Residue(a, n), Value::Family(b, m)) | (Value::Family(b, m), Value::Residue(a, n)) => {
            let Value::Scalar(a, None) = &**a else { return no("different kinds") };
            let same = same_families(&[(a.clone(), n.clone())], &[(b.clone(), m.clone())], steps);
            outcome(same, "the same residue", "different residues")
        }
        (Value::Residue(a, n), y) => remainder(a, n, y, steps),
        (x, Value::Residue(b, n)) => remainder(b, n, x, steps),
        // 2 to 5 is a range, too.
        (Value::Ratio(p), Value::Region(r)) | (Value::Region(r), Value::Ratio(p)) => {
            match (p.as_slice(), r.spans.as_slice()) {
                ([a, b], [s]) if s.low_closed && s.high_closed => outcome(
                    decide(a, &s.low, steps).is_equal() && decide(b, &s.high, steps).is_equal(),
                    "the same range of numbers",
                    "different ranges of numbers",
                ),
                _ => no("different kinds"),
            }
        }
        // [a; b] is a column as well as an interval.
        (Value::Matrix(m), Value::Region(r)) | (Value::Region(r), Value::Matrix(m)) => {
            match (m.as_slice(), r.spans.as_slice()) {
                ([a, b], [s]) if a.len() == 1 && b.len() == 1 && s.low_closed && s.high_closed => outcome(
                    decide(&a[0], &s.low, steps).is_equal() && decide(&b[0], &s.high, steps).is_equal(),
                    "equal entry by entry",
                    "different entries",
                ),
                _ => no("different kinds"),
            }
        }
        (Value::Text(t), Value::Tuple(p)) | (Value::Tuple(p), Value::Text(t)) => {
            let zero = |v: &Value| matches!(v, Value::Scalar(e, None) if decide(e, &integer(0), steps).is_equal());
            outcome(words(t) == "origin" && p.iter().all(zero), "the origin", "different kinds")
        }
        (Value::Cases(a), Value::Cases(b)) => outcome(a.same(b, steps), "equal piece by piece", "different pieces"),
        (Value::Cases(c), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Cases(c)) => {
            outcome(c.is(e, steps), "equal piece by piece", "different pieces")
        }
        (Value::Family(a, n), Value::Family(b, m)) => outcome(
            same_families(&[(a.clone(), n.clone())], &[(b.clone(), m.clone())], steps),
            "the same family",
            "different families",
        ),
        (Value::Family(a, n), Value::Scalar(e, None)) | (Value::Scalar(e, None), Value::Family(a, n)) => {
            let same = counted(e, steps).is_some_and(|f| same_families(&[(a.clone(), n.clone())], &[f], steps));
            outcome(same, "the same family", "different families")
        }
        (Value::Cycles(a), Value::Cycles(b)) => outcome(a == b, "the same permutation", "different permutations"),
        (Value::Cycles(c), Value::Tuple(t)) | (Value::Tuple(t), Value::Cycles(c)) => match c.as_slice() {
            [c] => {
                ordered(&c.iter().map(|n| Value::Scalar(integer(i64::from(*n)), None)).collect::<Vec<_>>(), t, steps)
            }
            _ => no("different kinds"),
        },
        (Value::Date(y, m, d), Value::Date(z, n, e)) => {
            // The year may be left out.
            let years = y == z || y.is_none() || z.is_none();
            outcome(years && m == n && d == e, "the same day", "different days")
        }
        (Value::Equation(a, b), Value::Set(_) | Value::List(_)) => solved(a, b, answer, steps),
        (Value::Set(_) | Value::List(_), Value::Equation(a, b)) => solved(a, b, gold, steps),
        (Value::Text(a), Value::Text(b)) => {
            // Notation that is not understood is compared sign by sign.
            if is_notation(a) || is_notation(b) {
                let same = notation(a, steps) == notation(b, steps)
                    || operands(a, steps).is_some_and(|x| operands(b, steps).is_some_and(|y| x == y));
                return outcome(same, "the same notation", "different notation");
            }
            let same = words(a) == words(b) || word_lists(a, b);
            outcome(same, "equal words", "different words")
        }
        // Sets that are also said in words.
        (Value::Text(t), Value::Set(s)) | (Value::Set(s), Value::Text(t)) if s.is_empty() => {
            outcome(words(t) == "no solution", "the empty set", "different kinds")
        }
        (Value::Text(t), Value::Region(r)) | (Value::Region(r), Value::Text(t)) => {
            let all = Region::new(vec![super::region::Span::all()]);
            let same = words(t) == "all real numbers" && r.same(&all, steps);
            outcome(same, "all real numbers", "different kinds")
        }
        _ => no("different kinds"),
    }
}

/// Lists of words: "red, blue" and "blue and red"; an order of yes and no, true and false stays.
pub fn word_lists(a: &str, b: &str) -> bool {
    let members = |t: &str| -> Vec<String> {
        t.replace(" and ", ",").replace(" & ", ",").split([',', ';']).map(words).filter(|w| !w.is_empty()).collect()
    };
    let (mut x, mut y) = (members(a), members(b));
    let told = |l: &[String]| l.iter().any(|w| matches!(w.as_str(), "true" | "false" | "yes" | "no"));
    if !told(&x) && !told(&y) {
        x.sort();
        y.sort();
    }
    x.len() > 1 && x == y
}

/// The operands of one operation whose order does not matter, sorted: unions, intersections, "and" and "or".
fn operands(text: &str, steps: &Steps) -> Option<(String, Vec<String>)> {
    let signs = notation(text, steps);
    if signs.contains(['(', '[', '{']) {
        return None;
    }
    let op = ["cup", "cap", "lor", "land"].into_iter().find(|op| signs.split(' ').any(|s| s == *op))?;
    let mut parts: Vec<String> = signs.split(&format!(" {op} ")).map(|p| p.trim().to_owned()).collect();
    parts.sort();
    let simple = parts.iter().all(|p| !p.contains(' '));
    simple.then(|| (op.to_owned(), parts))
}

/// True for sums, products and quotients of letters without coefficients.
fn only_letters(e: &Expr) -> bool {
    let minus_one = super::Rational::from_integer((-1).into());
    // |v| of a vector and the square of a deviation are one quantity.
    match e {
        Expr::Call("abs", v) => return matches!(v.as_slice(), [Expr::Var(n)] if n.contains(' ')),
        Expr::Call(_, v) => return matches!(v.as_slice(), [Expr::Var(_)]),
        Expr::Pow(b, p)
            if matches!(&**b, Expr::Var(n) if matches!(n.as_str(), "sigma" | "chi" | "R" | "s"))
                && **p == integer(2) =>
        {
            return true;
        }
        _ => {}
    }
    !e.any(|p| match p {
        Expr::Num { value, .. } => *value != minus_one,
        Expr::Var(_) | Expr::Add(_) | Expr::Mul(_) => false,
        Expr::Pow(_, n) => !matches!(&**n, Expr::Num { value, .. } if *value == minus_one),
        _ => true,
    })
}

/// A name of up to three letters as their product.
fn letters(name: &str) -> Option<Expr> {
    let plain = name.len() <= 3 && name.chars().all(|c| c.is_ascii_alphabetic());
    plain.then(|| Expr::Mul(name.chars().map(|c| var(&c.to_string())).collect()))
}

/// True for a text with signs in it that words do not have.
fn is_notation(text: &str) -> bool {
    text.contains(['\\', '^', '_', '|', '!', '<', '>', '='])
        || text.chars().any(|c| !c.is_ascii() && !c.is_alphabetic())
}

/// The signs of a text, one way to write each.
fn notation(text: &str, steps: &Steps) -> String {
    match super::lex::lex(text, true, steps) {
        Some(tokens) => {
            // Braces around one sign say nothing.
            let brace = |n: usize, c: char| super::scalar::is(tokens.get(n), c);
            let idle = |n: usize| (brace(n, '{') && brace(n + 2, '}')) || (n > 1 && brace(n, '}') && brace(n - 2, '{'));
            let kept = tokens.iter().enumerate().filter(|(n, _)| !idle(*n));
            kept.map(|(_, t)| super::scalar::shown(&t.tok) + " ").collect()
        }
        None => text.split_whitespace().collect(),
    }
}

/// Names without case, spaces and accents.
fn same_name(a: &str, b: &str) -> bool {
    let plain = |t: &str| {
        let t = t
            .trim_start_matches("overline ")
            .trim_start_matches("bar ")
            .trim_start_matches("vec ")
            .trim_start_matches("hat ");
        t.replace([' ', '\\'], "")
    };
    let (a, b) = (plain(a), plain(b));
    if let (Some(x), Some(y)) = (derivative(&a), derivative(&b)) {
        return x.0 == y.0 && x.1 == y.1 && (x.2 == y.2 || x.2.is_none() || y.2.is_none());
    }
    // f(x) = ... and y = ... define the same curve.
    let curve = |t: &str| matches!(t, "y" | "f(x)" | "y(x)");
    if curve(&a) && curve(&b) {
        return true;
    }
    // One letter tells by its case: R and r may be two radii.
    if a.chars().count() == 1 { a == b || a.eq_ignore_ascii_case(&b) } else { a.eq_ignore_ascii_case(&b) }
}

/// The function a derivative is of, its order, and the variable where it is said: `dy/dx`, `y'`, `f''(x)`, `f_x`.
fn derivative(name: &str) -> Option<(char, usize, Option<char>)> {
    let letters: Vec<char> = name.chars().collect();
    match letters.as_slice() {
        ['d', f, '/', 'd', x] => return Some((*f, 1, Some(*x))),
        [f @ ('f' | 'g' | 'u' | 'z' | 'w' | 'F' | 'G'), '_', x @ ('x' | 'y' | 'z' | 't')] => {
            return Some((*f, 1, Some(*x)));
        }
        _ => {}
    }
    let (f, rest) = letters.split_first()?;
    let primes = rest.iter().take_while(|c| **c == '\'').count();
    let argument = match &rest[primes..] {
        [] => None,
        ['(', x, ')'] => Some(*x),
        _ => return None,
    };
    (primes > 0).then_some((*f, primes, argument))
}

/// The letter of a function and its one variable: `g(t)`.
fn applied(name: &str) -> Option<(&str, &str)> {
    let (f, rest) = name.split_once('(')?;
    let x = rest.strip_suffix(')')?;
    (f.chars().count() <= 2 && x.chars().count() == 1 && x.chars().all(char::is_alphabetic)).then_some((f, x))
}

/// Lists, sets and what stands alone beside them.
fn listed(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    let items = |v: &Value| match v {
        Value::List(items) | Value::Set(items) => Some(items.clone()),
        _ => None,
    };
    if let Some((a, b)) = families(gold, answer, steps) {
        return Some(outcome(same_families(&a, &b, steps), "the same family", "different families"));
    }
    match (gold, answer) {
        (Value::List(a), Value::List(b)) => {
            if let (Some(x), Some(y)) = (system(a), system(b)) {
                return Some(systems(&x, &y, steps));
            }
            if let Some(c) = indexed(a, b, steps).or_else(|| indexed(b, a, steps)) {
                return Some(c);
            }
            // x = 1, y = 2 beside 1, 2: in the order of writing.
            if system(a).is_some() != system(b).is_some() {
                let value = |v: &Value| if let Value::Assignment(_, x) = v { (**x).clone() } else { v.clone() };
                let (x, y): (Vec<_>, Vec<_>) = (a.iter().map(value).collect(), b.iter().map(value).collect());
                let plain = |l: &[Value]| l.iter().all(|v| !matches!(v, Value::Assignment(..)));
                if plain(a) || plain(b) {
                    return Some(ordered(&x, &y, steps));
                }
            }
            Some(unordered(a, b, steps))
        }
        (Value::List(_) | Value::Set(_), Value::List(_) | Value::Set(_)) => {
            let (a, b) = (items(gold)?, items(answer)?);
            Some(unordered(&distinct(a, steps), &distinct(b, steps), steps))
        }
        (Value::List(list), Value::Tuple(t)) | (Value::Tuple(t), Value::List(list)) => {
            let value = |v: &Value| if let Value::Assignment(_, x) = v { (**x).clone() } else { v.clone() };
            let plain: Vec<Value> = list.iter().map(value).collect();
            let c = ordered(&plain, t, steps);
            if c.equal {
                return Some(c);
            }
            // y = 2, x = 1 is (1, 2).
            let mut named = system(list)?;
            named.sort_by(|x, y| x.0.cmp(&y.0));
            let sorted: Vec<Value> = named.into_iter().map(|(_, v)| v).collect();
            Some(ordered(&sorted, t, steps))
        }
        (Value::Set(a), one @ (Value::Scalar(..) | Value::Assignment(..) | Value::Tuple(_)))
        | (one @ (Value::Scalar(..) | Value::Assignment(..) | Value::Tuple(_)), Value::Set(a)) => {
            if a.len() == 1 {
                return Some(equal(&a[0], one, steps));
            }
            match one {
                Value::Assignment(_, inner) if matches!(**inner, Value::Set(_)) => None,
                _ => Some(no("one value and several")),
            }
        }
        (Value::Assignment(_, x), other) if matches!(**x, Value::Set(_) | Value::List(_)) => {
            Some(equal(x, other, steps))
        }
        (other, Value::Assignment(_, x)) if matches!(**x, Value::Set(_) | Value::List(_)) => {
            Some(equal(other, x, steps))
        }
        (Value::List(_), _) | (_, Value::List(_)) => Some(no("one value and several")),
        _ => None,
    }
}

/// Both as families, when one of them is a list of families.
fn families(gold: &Value, answer: &Value, steps: &Steps) -> Option<(Vec<(Expr, Expr)>, Vec<(Expr, Expr)>)> {
    fn one(v: &Value, steps: &Steps) -> Option<(Expr, Expr)> {
        match v {
            Value::Family(a, n) => Some((a.clone(), n.clone())),
            Value::Scalar(e, None) => counted(e, steps),
            Value::Assignment(_, x) => one(x, steps),
            _ => None,
        }
    }
    let all = |v: &Value| match v {
        Value::List(items) if items.len() < MAX_ITEMS => items.iter().map(|v| one(v, steps)).collect(),
        v => one(v, steps).map(|f| vec![f]),
    };
    let sure = |v: &Value| match v {
        Value::List(items) => items.iter().any(|v| match v {
            Value::Assignment(_, x) => matches!(**x, Value::Family(..)),
            v => matches!(v, Value::Family(..)),
        }),
        _ => false,
    };
    if !sure(gold) && !sure(answer) {
        return None;
    }
    Some((all(gold)?, all(answer)?))
}

/// `x_1 = 2, x_2 = 3` beside `x = 2, 3`.
fn indexed(named: &[Value], other: &[Value], steps: &Steps) -> Option<Comparison> {
    let [Value::Assignment(base, first), rest @ ..] = other else { return None };
    let all = system(named)?;
    let own = all.iter().all(|(n, _)| n.split_once('_').is_some_and(|(n, _)| n == base));
    if !own || rest.iter().any(|v| matches!(v, Value::Assignment(..))) {
        return None;
    }
    let values: Vec<Value> = all.into_iter().map(|(_, v)| v).collect();
    let plain: Vec<Value> = std::iter::once((**first).clone()).chain(rest.iter().cloned()).collect();
    Some(unordered(&values, &plain, steps))
}

/// Names and values, when every member is an assignment to a name of its own.
fn system(items: &[Value]) -> Option<Vec<(String, Value)>> {
    let mut out: Vec<(String, Value)> = Vec::new();
    for item in items {
        let Value::Assignment(name, value) = item else { return None };
        if out.iter().any(|(n, _)| n == name) {
            return None;
        }
        out.push((name.clone(), (**value).clone()));
    }
    Some(out)
}

fn systems(a: &[(String, Value)], b: &[(String, Value)], steps: &Steps) -> Comparison {
    let same =
        a.len() == b.len() && a.iter().all(|(n, x)| b.iter().any(|(m, y)| same_name(n, m) && equal(x, y, steps).equal));
    outcome(same, "the same value for every name", "different values for the names")
}

fn ordered(a: &[Value], b: &[Value], steps: &Steps) -> Comparison {
    let same = a.len() == b.len() && a.iter().zip(b).all(|(x, y)| equal(x, y, steps).equal);
    outcome(same, "equal in order", "different members")
}

fn distinct(items: Vec<Value>, steps: &Steps) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for item in items {
        if kept.len() >= MAX_ITEMS || !kept.iter().any(|k| equal(k, &item, steps).equal) {
            kept.push(item);
        }
    }
    kept
}

fn unordered(a: &[Value], b: &[Value], steps: &Steps) -> Comparison {
    if a.len() != b.len() {
        return no("different numbers of members");
    }
    let in_order = a.iter().zip(b).all(|(x, y)| x == y);
    if in_order {
        return yes("equal members");
    }
    if a.len() > MAX_ITEMS {
        return ordered(a, b, steps);
    }
    let mut rest: Vec<&Value> = b.iter().collect();
    for x in a {
        match rest.iter().position(|y| equal(x, y, steps).equal) {
            Some(i) => drop(rest.remove(i)),
            None => return no("different members"),
        }
    }
    yes("equal members")
}

fn regions(a: &Region, b: &Region, steps: &Steps) -> Comparison {
    if let (Some(x), Some(y)) = (&a.variable, &b.variable)
        && !same_name(x, y)
    {
        return no("different names");
    }
    outcome(a.same(b, steps), "the same range of numbers", "different ranges of numbers")
}

fn matrices(a: &[Vec<Expr>], b: &[Vec<Expr>], steps: &Steps) -> Comparison {
    let shape = a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.len() == y.len());
    let same = shape && a.iter().flatten().zip(b.iter().flatten()).all(|(x, y)| decide(x, y, steps).is_equal());
    outcome(same, "equal entry by entry", if shape { "different entries" } else { "different shapes" })
}

/// A matrix of one row or column beside a tuple.
fn vector(rows: &[Vec<Expr>], items: &[Value], steps: &Steps) -> Comparison {
    let line = rows.len() == 1 || rows.iter().all(|r| r.len() == 1);
    let entries: Vec<&Expr> = rows.iter().flatten().collect();
    let same = line
        && entries.len() == items.len()
        && entries
            .iter()
            .zip(items)
            .all(|(e, v)| matches!(v, Value::Scalar(x, None) if decide(e, x, steps).is_equal()));
    outcome(same, "equal entry by entry", "different entries")
}

/// A matrix beside its name, `I_2` or `0`, or a vector beside its parts along the axes.
fn named_matrix(rows: &[Vec<Expr>], e: &Expr, steps: &Steps) -> Comparison {
    let size = rows.len();
    let entry = |i: usize, j: usize| match e {
        Expr::Num { .. } => Some(0),
        Expr::Var(n) if *n == format!("I_{size}") => Some(i64::from(i == j)),
        _ => None,
    };
    let zero = decide(e, &integer(0), steps).is_equal();
    let named = (zero || (matches!(e, Expr::Var(_)) && rows.iter().all(|r| r.len() == size)))
        && rows.iter().enumerate().all(|(i, r)| {
            let fits = |(j, x): (usize, &Expr)| entry(i, j).is_some_and(|n| decide(x, &integer(n), steps).is_equal());
            r.iter().enumerate().all(fits)
        });
    if named {
        return yes("equal entry by entry");
    }
    let items: Vec<Value> = rows.iter().flatten().map(|x| Value::Scalar(x.clone(), None)).collect();
    if size == 1 || rows.iter().all(|r| r.len() == 1) { along_axes(e, &items, steps) } else { no("different kinds") }
}

/// `2i - 3j` beside `(2, -3)`.
fn along_axes(e: &Expr, items: &[Value], steps: &Steps) -> Comparison {
    let Some(parts) = components(e, steps).filter(|_| items.len() == 2 || items.len() == 3) else {
        return no("different kinds");
    };
    let part = |n: usize| Value::Scalar(parts[n].clone(), None);
    let flat = items.len() == 3 || decide(&parts[2], &integer(0), steps).is_equal();
    let list: Vec<Value> = (0..items.len()).map(part).collect();
    if flat { ordered(items, &list, steps) } else { no("different members") }
}

/// A residue beside one value: itself, or its remainder.
fn remainder(a: &Value, n: &Expr, other: &Value, steps: &Steps) -> Comparison {
    let plain = equal(a, other, steps);
    if let (Value::Scalar(x, None), Value::Scalar(y, None), false) = (a, other, plain.equal) {
        let rest = Expr::Call("mod", vec![x.clone(), n.clone()]);
        if let (Some(rest), Some(y)) = (exact(&rest, steps), exact(y, steps)) {
            return outcome(rest == y, "the remainder", "different numbers");
        }
    }
    plain
}

/// An equation beside its solutions.
fn solved(a: &Expr, b: &Expr, values: &Value, steps: &Steps) -> Comparison {
    let roots = solutions(&minus(a.clone(), b.clone()), steps);
    let Some(roots) = roots.filter(|r| r.len() > 1) else { return no("different kinds") };
    let (Value::Set(items) | Value::List(items)) = values else { return no("different kinds") };
    let value = |v: &Value| if let Value::Assignment(_, x) = v { (**x).clone() } else { v.clone() };
    let roots: Vec<Value> = roots.into_iter().map(|e| Value::Scalar(e, None)).collect();
    unordered(&roots, &items.iter().map(value).collect::<Vec<_>>(), steps)
}

fn ratios(a: &[Expr], b: &[Expr], steps: &Steps) -> Comparison {
    if a.len() != b.len() {
        return no("different numbers of parts");
    }
    // Part for part, or in the same proportion; a part may be zero, as in 12:00.
    let same = a.iter().zip(b).all(|(x, y)| decide(x, y, steps).is_equal())
        || (1..a.len()).all(|i| {
            let cross = |x: &Expr, y: &Expr| Expr::Mul(vec![x.clone(), y.clone()]);
            let zero = |e: &Expr| decide(e, &integer(0), steps).is_equal();
            !zero(&a[0])
                && !zero(&b[0])
                && !zero(&a[i])
                && decide(&cross(&a[0], &b[i]), &cross(&b[0], &a[i]), steps).is_equal()
        });
    outcome(same, "the same ratio", "different ratios")
}

/// Units that say nothing about the size: ordinals, and "units" themselves.
fn silent(unit: &Unit) -> bool {
    matches!(unit, Unit::Word(w) if matches!(w.as_str(), "th" | "st" | "nd" | "rd" | "unit" | "square unit" | "cubic unit" | "sq unit" | "unit^2" | "unit^3"))
}

fn scalars(a: &Expr, u: Option<&Unit>, b: &Expr, v: Option<&Unit>, steps: &Steps) -> Comparison {
    // "Third" is 3rd, and not 3.
    let ordinal = |x: Option<&Unit>| matches!(x, Some(Unit::Word(w)) if w == "ordinal");
    let marked = |x: Option<&Unit>| matches!(x, Some(Unit::Word(w)) if matches!(w.as_str(), "ordinal" | "th" | "st" | "nd" | "rd"));
    if (ordinal(u) || ordinal(v)) && !(marked(u) && marked(v)) {
        return no("a place in a row and a number");
    }
    let (u, v) = if ordinal(u) || ordinal(v) { (None, None) } else { (u, v) };
    let (u, v) = (u.filter(|u| !silent(u)), v.filter(|v| !silent(v)));
    let plain = || -> Comparison {
        let decision = decide(a, b, steps);
        // The constant of integration is written C or c.
        let has = |e: &Expr, name: &str| e.variables().iter().any(|n| n == name);
        if !decision.is_equal() && has(a, "C") && has(b, "c") && !has(a, "c") && !has(b, "C") {
            return decide(a, &b.replace("c", &var("C")), steps).into();
        }
        // Antiderivatives may differ by a constant.
        if !decision.is_equal()
            && let (Some(f), Some(g)) = (without_constant(a), without_constant(b))
            && let [x] = minus(f.clone(), g.clone()).variables().as_slice()
        {
            let rise = |e: &Expr, at: &Expr| minus(e.clone(), e.replace(x, at));
            let places = [integer(1), divide(integer(1), integer(2)), integer(2)];
            if places.iter().any(|p| decide(&rise(&f, p), &rise(&g, p), steps).is_equal()) {
                return yes("equal up to the constant of integration");
            }
        }
        // Engineers write j for i.
        if !decision.is_equal() && has(b, "j") && !has(a, "j") && complex(a) && !complex(b) {
            return decide(a, &b.replace("j", &var("i")), steps).into();
        }
        if !decision.is_equal() && has(a, "j") && !has(b, "j") && complex(b) && !complex(a) {
            return decide(&a.replace("j", &var("i")), b, steps).into();
        }
        // Families of solutions may count with another letter.
        let counter = |e: &Expr, other: &Expr| {
            let own =
                e.variables().into_iter().filter(|n| matches!(n.as_str(), "k" | "n" | "m" | "l") && !has(other, n));
            own.collect::<Vec<_>>()
        };
        let periodic = |e: &Expr| e.any(|p| matches!(p, Expr::Var(n) if n == "pi"));
        if let ([x], [y]) = (counter(a, b).as_slice(), counter(b, a).as_slice())
            && periodic(a)
            && periodic(b)
        {
            return decide(a, &b.replace(y, &var(x)), steps).into();
        }
        decision.into()
    };
    if let (Some(x), Some(y)) = (kelvins(a, u), kelvins(b, v))
        && u != v
    {
        return match decide(&x, &y, steps) {
            Decision::Equal(_) => yes("equal after conversion of units"),
            _ => no("different amounts or units"),
        };
    }
    match (u, v) {
        (Some(Unit::Percent), Some(Unit::Percent)) => plain(),
        // 50% is 0.5, and 50 where the question asked for percent.
        (Some(Unit::Percent), None) | (None, Some(Unit::Percent)) => {
            let hundredth = |e: &Expr| divide(e.clone(), integer(100));
            let scaled = if u.is_some() { decide(&hundredth(a), b, steps) } else { decide(a, &hundredth(b), steps) };
            if scaled.is_equal() { yes("equal as a percentage") } else { plain() }
        }
        (Some(Unit::Base(x, p)), Some(Unit::Base(y, q))) => {
            if p == q && x == y {
                yes("the same digits in the same base")
            } else {
                plain()
            }
        }
        (Some(Unit::Base(digits, _)), None) | (None, Some(Unit::Base(digits, _))) => {
            let other = if u.is_some() { b } else { a };
            // The base may be left out where the question names it.
            let same = digits
                .parse()
                .is_ok_and(|n| decide(&number(super::Rational::from_integer(n)), other, steps).is_equal());
            if same { yes("the same digits, base left out") } else { plain() }
        }
        (Some(Unit::Degree), Some(Unit::Degree)) => plain(),
        (Some(Unit::Degree), None) | (None, Some(Unit::Degree)) => {
            let first = plain();
            let (angle, other) = if u.is_some() { (a, b) } else { (b, a) };
            let has_pi = other.any(|e| match e {
                Expr::Var(n) => n == "pi",
                Expr::Call(f, _) => f.starts_with("arc"),
                _ => false,
            });
            if !first.equal && has_pi && decide(&radians(angle), other, steps).is_equal() {
                return yes("equal in radians");
            }
            first
        }
        (Some(Unit::Degree), Some(Unit::Measure(d, s))) if d[6] == 1 => {
            // A rounded number of degrees is one as it stands.
            let turned = Expr::Mul(vec![b.clone(), number(s.clone()), integer(180), super::expr::invert(var("pi"))]);
            if decide(a, &turned, steps).is_equal() {
                return yes("equal in radians");
            }
            decide(&radians(a), &Expr::Mul(vec![b.clone(), number(s.clone())]), steps).into()
        }
        (Some(Unit::Measure(d, s)), Some(Unit::Degree)) if d[6] == 1 => {
            let turned = Expr::Mul(vec![a.clone(), number(s.clone()), integer(180), super::expr::invert(var("pi"))]);
            if decide(&turned, b, steps).is_equal() {
                return yes("equal in radians");
            }
            decide(&Expr::Mul(vec![a.clone(), number(s.clone())]), &radians(b), steps).into()
        }
        (Some(Unit::Measure(d, s)), Some(Unit::Measure(e, t))) => {
            if d != e {
                return no("different units");
            }
            if s == t {
                return plain();
            }
            let sized = |x: &Expr, s: &super::Rational| Expr::Mul(vec![x.clone(), number(s.clone())]);
            match decide(&sized(a, s), &sized(b, t), steps) {
                Decision::Equal(_) => yes("equal after conversion of units"),
                _ => no("different amounts or units"),
            }
        }
        (Some(Unit::Word(x)), Some(Unit::Word(y))) if same_word(x, y) => plain(),
        // Pounds of money and pounds of weight share their word.
        (Some(Unit::Word(x)), Some(Unit::Measure(_, s))) | (Some(Unit::Measure(_, s)), Some(Unit::Word(x)))
            if x == "pound sterling" && *s == super::Rational::new(45_359_237.into(), 100_000_000.into()) =>
        {
            plain()
        }
        (Some(_), Some(_)) => no("different units"),
        // 50 cents are 0.50.
        (Some(Unit::Measure(d, s)), None) | (None, Some(Unit::Measure(d, s)))
            if (d[7] == 1 || d.iter().all(|p| *p == 0)) && *s != super::Rational::from_integer(1.into()) =>
        {
            let sized = |e: &Expr| Expr::Mul(vec![e.clone(), number(s.clone())]);
            let scaled = if u.is_some() { decide(&sized(a), b, steps) } else { decide(a, &sized(b), steps) };
            if scaled.is_equal() { yes("equal after conversion of units") } else { plain() }
        }
        _ => plain(),
    }
}

fn complex(e: &Expr) -> bool {
    e.any(|p| matches!(p, Expr::Var(n) if n == "i"))
}

/// What stands beside the constant of integration.
fn without_constant(e: &Expr) -> Option<Expr> {
    let Expr::Add(terms) = e else { return None };
    let constant = |t: &Expr| matches!(t, Expr::Var(n) if matches!(n.as_str(), "C" | "c" | "K" | "C_1" | "c_1"));
    let rest: Vec<Expr> = terms.iter().filter(|t| !constant(t)).cloned().collect();
    (rest.len() + 1 == terms.len()).then_some(Expr::Add(rest))
}

/// A temperature in kelvins.
fn kelvins(e: &Expr, unit: Option<&Unit>) -> Option<Expr> {
    let shifted = |by: i64, over: i64, times: (i64, i64)| {
        let zero = super::Rational::new(by.into(), over.into());
        Expr::Mul(vec![
            Expr::Add(vec![e.clone(), number(zero)]),
            number(super::Rational::new(times.0.into(), times.1.into())),
        ])
    };
    match unit? {
        Unit::Word(w) if w.ends_with("celsiu") => Some(shifted(27_315, 100, (1, 1))),
        Unit::Word(w) if w.ends_with("fahrenheit") => Some(shifted(45_967, 100, (5, 9))),
        Unit::Measure(d, s)
            if d[4] == 1
                && d.iter().map(|p| p.abs()).sum::<i8>() == 1
                && *s == super::Rational::from_integer(1.into()) =>
        {
            Some(e.clone())
        }
        _ => None,
    }
}

fn radians(degrees: &Expr) -> Expr {
    Expr::Mul(vec![degrees.clone(), var("pi"), divide(integer(1), integer(180))])
}

/// `name = value` beside `a = b`.
fn as_equation(name: &str, value: &Value, a: &Expr, b: &Expr, steps: &Steps) -> Comparison {
    match value {
        Value::Scalar(e, None) => equations(&minus(var(name), e.clone()), &minus(a.clone(), b.clone()), steps),
        _ => no("different kinds"),
    }
}

/// Equations `f = 0` and `g = 0` are equal when one side is a constant multiple of the other, or when both are
/// linear in a variable and give it the same value.
fn equations(f: &Expr, g: &Expr, steps: &Steps) -> Comparison {
    if proportional(f, g, steps).is_some() {
        return yes("equal equations");
    }
    let shared = f.variables().into_iter().filter(|n| g.variables().contains(n)).take(3);
    for name in shared {
        if let (Some(x), Some(y)) = (root(f, &name, steps), root(g, &name, steps))
            && decide(&x, &y, steps).is_equal()
        {
            return yes("equations with the same solution");
        }
    }
    no("different equations")
}

/// Where an expression that is linear in a variable vanishes.
fn root(f: &Expr, name: &str, steps: &Steps) -> Option<Expr> {
    let at = |n: i64| f.replace(name, &integer(n));
    let slope = minus(at(1), at(0));
    let bend = minus(minus(at(2), at(1)), slope.clone());
    if !decide(&bend, &integer(0), steps).is_equal() || decide(&slope, &integer(0), steps).is_equal() {
        return None;
    }
    Some(divide(super::expr::negate(at(0)), slope))
}
