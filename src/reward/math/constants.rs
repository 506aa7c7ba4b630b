//! Families of functions with arbitrary constants: general solutions. They are the same when each holds every function
//! of the other.
//!
//! Linear in their constants, two families are a particular function and a span of others; one function is in the span
//! of n independent ones when the determinant of their values at n + 1 places vanishes wherever the places are, which
//! is sampled as any other expression. With one constant otherwise, the constant is isolated as a function that is
//! level on the curves of the family: C = F(x, y); two such say the same when one is a linear function of the other,
//! so that both constants run through all numbers.

use super::Rational;
use super::Steps;
use super::compare::{Comparison, yes};
use super::decide::{Decision, decide, proportional};
use super::exact::exact;
use super::expr::{Expr, divide, integer, invert, minus, number, power, var};
use super::names::{letters, same_name};
use super::parse::Value;

/// Most constants of a family.
const MAX_CONSTANTS: usize = 3;
/// Letters that functions depend on.
const INDEPENDENT: [&str; 8] = ["x", "t", "theta", "n", "s", "r", "u", "z"];
/// Letters of functions that are found as general solutions; others only with their argument: P(t).
const DEPENDENT: [&str; 10] = ["y", "x", "u", "w", "z", "f", "g", "v", "a_n", "y_n"];
/// Letters that may be arbitrary constants.
const LETTERS: [&str; 20] =
    ["A", "B", "C", "D", "E", "K", "M", "N", "P", "Q", "R", "a", "b", "c", "d", "k", "alpha", "beta", "phi", "delta"];

/// True for names that are arbitrary constants by themselves.
fn plainly(name: &str) -> bool {
    matches!(name, "C" | "c") || numbered(name)
}

fn numbered(name: &str) -> bool {
    name.split_once('_').is_some_and(|(n, i)| {
        matches!(n, "C" | "c" | "K" | "k" | "A" | "B" | "a" | "b" | "D") && i.parse::<u8>().is_ok()
    })
}

/// A family: what vanishes on its members, and the letter of the function where it is solved for that.
struct Side {
    function: Option<String>,
    /// The right side where it is solved.
    explicit: Option<Expr>,
    /// An expression that vanishes.
    implicit: Option<Expr>,
}

/// The letter of the function for a value without its name.
const UNNAMED: &str = "function";

fn side(v: &Value) -> Option<Side> {
    match v {
        Value::Assignment(name, x) => {
            let Value::Scalar(e, None) = &**x else { return None };
            let letter = name.split('(').next().unwrap_or(name).to_owned();
            // xy = C
            if matches!(e, Expr::Var(c) if plainly(c))
                && let Some(product) = letters(name).filter(|_| name.len() > 1)
            {
                return Some(Side { function: None, explicit: None, implicit: Some(minus(product, e.clone())) });
            }
            if plainly(name) {
                // C = F(x, y)
                return Some(Side { function: None, explicit: None, implicit: Some(minus(e.clone(), var(name))) });
            }
            let known = DEPENDENT.contains(&letter.as_str()) || name.contains('(');
            let told = known || e.variables().iter().any(|n| numbered(n));
            told.then(|| Side { function: Some(letter), explicit: Some(e.clone()), implicit: None })
        }
        Value::Scalar(e, None) => {
            let free = e.variables().iter().filter(|n| INDEPENDENT.contains(&n.as_str())).count();
            let told = free == 1 || e.variables().iter().any(|n| numbered(n));
            told.then(|| Side { function: None, explicit: Some(e.clone()), implicit: None })
        }
        Value::Equation(a, b) => {
            Some(Side { function: None, explicit: None, implicit: Some(minus(a.clone(), b.clone())) })
        }
        _ => None,
    }
}

/// Both as families with arbitrary constants, where they are and have the same members.
pub(super) fn general(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    let (a, b) = (side(gold)?, side(answer)?);
    if let (Some(f), Some(g)) = (&a.function, &b.function)
        && !same_name(f, g)
    {
        return None;
    }
    let whole = |s: &Side| s.explicit.clone().or_else(|| s.implicit.clone());
    let (e, f) = (whole(&a)?, whole(&b)?);
    let (own, other) = constants(&e.variables(), &f.variables(), &[&a.function, &b.function])?;
    if own.len() > MAX_CONSTANTS || own.len() != other.len() {
        return None;
    }
    let named = a.function.is_some() || b.function.is_some() || a.implicit.is_some() || b.implicit.is_some();
    if [(&e, &own), (&f, &other)].iter().any(|(e, c)| is_given(e, c) || (!named && !c.iter().all(|n| is_free(e, n)))) {
        return None;
    }
    if renamed(&e, &own, &f, &other, steps) && a.explicit.is_some() == b.explicit.is_some() {
        return Some(yes("the same with other letters for its constants"));
    }
    let same = match (&a.explicit, &b.explicit) {
        (Some(e), Some(f)) => {
            let (e, f) = (without_phase(e, &own), without_phase(f, &other));
            let linear = (parts(&e, &own, steps), parts(&f, &other, steps));
            match linear {
                (Some(p), Some(q)) => same_span(&p, &q, steps),
                _ => same_levels(&e, &own, &f, &other, steps),
            }
        }
        _ => {
            // The function's letter on the solved side.
            let letter = a.function.clone().or_else(|| b.function.clone());
            let vanishing = |s: &Side| match (&s.implicit, &s.explicit, &letter) {
                (Some(e), _, _) => Some(e.clone()),
                (_, Some(e), Some(y)) => Some(minus(var(y), e.clone())),
                _ => None,
            };
            let (e, f) = (vanishing(&a)?, vanishing(&b)?);
            let ([c], [k]) = (own.as_slice(), other.as_slice()) else { return None };
            level_sets(&isolated(&e, c, steps)?, &isolated(&f, k, steps)?, steps)
        }
    };
    same.then(|| yes("the same functions for all constants"))
}

/// True where c stands beside an a or b that is no constant, or C beside quantities of a circuit: all are given.
fn is_given(e: &Expr, constants: &[String]) -> bool {
    let has = |names: &[String], n: &str| names.iter().any(|m| m == n);
    let letters = e.variables();
    let beside = |given: &[&str]| letters.iter().any(|n| !has(constants, n) && given.iter().any(|g| n.starts_with(g)));
    (has(constants, "c") && beside(&["a", "b"])) || (has(constants, "C") && beside(&["R", "L", "V", "Q", "I", "E"]))
}

/// Whether a letter of an expression without a name may be any number: one with an index, one that is added at the
/// end, one beside what grows or swings. Others are quantities of the question: `c/n`, `2Cx`.
fn is_free(e: &Expr, name: &str) -> bool {
    let alone = |t: &Expr| t.variables() == [name];
    let added = matches!(e, Expr::Add(terms) if terms.iter().any(alone));
    let moving = |e: &Expr| e.variables().iter().any(|n| INDEPENDENT.contains(&n.as_str()));
    let solution = || {
        e.any(|p| match p {
            Expr::Pow(_, exponent) => moving(exponent),
            Expr::Call("sin" | "cos" | "exp" | "sinh" | "cosh" | "ln", args) => args.iter().any(moving),
            _ => false,
        })
    };
    numbered(name) || added || solution()
}

/// Whether the constants, at most two, only change their names.
fn renamed(e: &Expr, own: &[String], f: &Expr, other: &[String], steps: &Steps) -> bool {
    let orders: &[&[usize]] = match own.len() {
        1 => &[&[0]],
        2 => &[&[0, 1], &[1, 0]],
        _ => return false,
    };
    let new = |n: usize| format!("constant {n}");
    let fixed = own.iter().enumerate().fold(e.clone(), |e, (n, c)| e.replace(c, &var(&new(n))));
    orders.iter().any(|order| {
        let g = order.iter().enumerate().fold(f.clone(), |f, (n, &c)| f.replace(&other[c], &var(&new(n))));
        decide(&fixed, &g, steps).is_equal()
    })
}

/// The constants of both, when the other letters are the same.
fn constants(a: &[String], b: &[String], functions: &[&Option<String>]) -> Option<(Vec<String>, Vec<String>)> {
    let plain = |names: &[String]| names.iter().filter(|n| plainly(n)).cloned().collect::<Vec<_>>();
    let rest = |names: &[String], constants: &[String]| -> Vec<String> {
        names.iter().filter(|n| !constants.contains(n)).cloned().collect()
    };
    let (p, q) = (plain(a), plain(b));
    let is_function = |n: &String| functions.iter().any(|f| f.as_ref() == Some(n));
    let (own, other) = if !p.is_empty() {
        let fixed = rest(a, &p);
        (p, rest(b, &fixed))
    } else if !q.is_empty() {
        let fixed = rest(b, &q);
        (rest(a, &fixed), q)
    } else {
        // A and B on both sides.
        let pair = |names: &[String]| ["A", "B"].iter().all(|n| names.iter().any(|m| m == n));
        if !pair(a) || !pair(b) || functions.iter().all(|f| f.is_none()) {
            return None;
        }
        let both = vec!["A".to_owned(), "B".to_owned()];
        (both.clone(), both)
    };
    // On the other side the function's letter stands for itself.
    let other: Vec<String> = other.into_iter().filter(|n| !is_function(n)).collect();
    let own: Vec<String> = own.into_iter().filter(|n| !is_function(n)).collect();
    let known = |names: &[String]| names.iter().all(|n| plainly(n) || LETTERS.contains(&n.as_str()));
    let fixed = |names: &[String], constants: &[String]| {
        let mut fixed: Vec<String> = rest(names, constants).into_iter().filter(|n| !is_function(n)).collect();
        fixed.sort();
        fixed
    };
    let shared = fixed(a, &own);
    let free = shared.iter().any(|n| INDEPENDENT.contains(&n.as_str()));
    (known(&own) && known(&other) && !own.is_empty() && free && shared == fixed(b, &other)).then_some((own, other))
}

/// `A \cos(u + \phi)` with both constants arbitrary, as `A \cos u + \phi \sin u`, which runs through the same functions.
fn without_phase(e: &Expr, constants: &[String]) -> Expr {
    let terms = match e {
        Expr::Add(terms) => terms.clone(),
        e => vec![e.clone()],
    };
    let count = |name: &str| {
        let mut n = 0;
        e.walk(&mut |p| n += usize::from(matches!(p, Expr::Var(v) if v == name)));
        n
    };
    let waved = |t: &Expr| -> Option<Expr> {
        let mut factors = Vec::new();
        flatten(t, &mut factors);
        let size = factors.iter().position(|f| matches!(f, Expr::Var(n) if constants.contains(n) && count(n) == 1))?;
        let wave = factors.iter().position(|f| matches!(f, Expr::Call("sin" | "cos", _)))?;
        let Expr::Call(_, arguments) = &factors[wave] else { return None };
        let [Expr::Add(sum)] = arguments.as_slice() else { return None };
        let shift = |t: &Expr| match t {
            Expr::Var(n) => Some(n.clone()),
            Expr::Mul(f) => match f.as_slice() {
                [Expr::Num { .. }, Expr::Var(n)] => Some(n.clone()),
                _ => None,
            },
            _ => None,
        };
        let at = sum.iter().position(|t| shift(t).is_some_and(|n| constants.contains(&n) && count(&n) == 1))?;
        let phase = shift(&sum[at])?;
        let rest: Vec<Expr> = sum.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, t)| t.clone()).collect();
        let u = vec![Expr::Add(rest)];
        let both = Expr::Add(vec![
            Expr::Mul(vec![factors[size].clone(), Expr::Call("cos", u.clone())]),
            Expr::Mul(vec![var(&phase), Expr::Call("sin", u)]),
        ]);
        let mut kept: Vec<Expr> =
            factors.iter().enumerate().filter(|(n, _)| *n != size && *n != wave).map(|(_, f)| f.clone()).collect();
        kept.push(both);
        Some(Expr::Mul(kept))
    };
    Expr::Add(terms.iter().map(|t| waved(t).unwrap_or_else(|| t.clone())).collect())
}

fn flatten(e: &Expr, out: &mut Vec<Expr>) {
    match e {
        Expr::Mul(factors) => factors.iter().for_each(|f| flatten(f, out)),
        e => out.push(e.clone()),
    }
}

/// The particular function and those that the constants multiply.
fn parts(e: &Expr, constants: &[String], steps: &Steps) -> Option<(Expr, Vec<Expr>)> {
    let with = |one: Option<&String>| {
        constants.iter().fold(e.clone(), |e, n| e.replace(n, &integer(i64::from(Some(n) == one))))
    };
    let first = with(None);
    let simple = |e: Expr| exact(&e, steps).map_or(e, number);
    let span: Vec<Expr> = constants.iter().map(|n| simple(minus(with(Some(n)), first.clone()))).collect();
    let first = simple(first);
    let mut terms: Vec<Expr> = constants.iter().zip(&span).map(|(n, f)| Expr::Mul(vec![var(n), f.clone()])).collect();
    terms.push(first.clone());
    decide(e, &Expr::Add(terms), steps).is_equal().then_some((first, span))
}

/// Whether two families, linear in their constants, have the same members.
fn same_span(a: &(Expr, Vec<Expr>), b: &(Expr, Vec<Expr>), steps: &Steps) -> bool {
    let independent = |f: &[Expr]| matches!(decide(&determinant(f), &integer(0), steps), Decision::Unequal(_));
    if !independent(&a.1) || !independent(&b.1) {
        return false;
    }
    let within = |g: &Expr| {
        let all: Vec<Expr> = a.1.iter().cloned().chain([g.clone()]).collect();
        *g == integer(0) || decide(&determinant(&all), &integer(0), steps).is_equal()
    };
    b.1.iter().all(within) && (decide(&a.0, &b.0, steps).is_equal() || within(&minus(b.0.clone(), a.0.clone())))
}

/// The determinant of the values of some functions at as many places.
fn determinant(f: &[Expr]) -> Expr {
    let at =
        |e: &Expr, row: usize| INDEPENDENT.iter().fold(e.clone(), |e, n| e.replace(n, &var(&format!("{n} at {row}"))));
    fn expanded(rows: &[Vec<Expr>]) -> Expr {
        let [first, rest @ ..] = rows else { return integer(1) };
        let minor = |column: usize| -> Vec<Vec<Expr>> {
            let keep =
                |r: &Vec<Expr>| r.iter().enumerate().filter(|(n, _)| *n != column).map(|(_, e)| e.clone()).collect();
            rest.iter().map(keep).collect()
        };
        let term = |(n, e): (usize, &Expr)| {
            let sign = if n % 2 == 0 { 1 } else { -1 };
            Expr::Mul(vec![integer(sign), e.clone(), expanded(&minor(n))])
        };
        Expr::Add(first.iter().enumerate().map(term).collect())
    }
    let rows: Vec<Vec<Expr>> = (0..f.len()).map(|row| f.iter().map(|e| at(e, row)).collect()).collect();
    expanded(&rows)
}

/// Families of solved functions with one constant each.
fn same_levels(e: &Expr, own: &[String], f: &Expr, other: &[String], steps: &Steps) -> bool {
    let ([c], [k]) = (own, other) else { return false };
    let level = |e: &Expr, c: &str| isolated(&minus(var(UNNAMED), e.clone()), c, steps);
    match (level(e, c), level(f, k)) {
        (Some(a), Some(b)) => level_sets(&a, &b, steps),
        _ => false,
    }
}

/// Whether one function is a linear function of the other, and so has the same level curves for all constants.
fn level_sets(a: &Expr, b: &Expr, steps: &Steps) -> bool {
    let mut letters = a.variables();
    letters.extend(b.variables());
    // Somewhere both have a value.
    let places = [(1i64, 2i64, 1i64), (3, 4, 1), (1, 3, 2)];
    places.iter().any(|(over, under, step)| {
        let fixed = |e: &Expr| {
            letters.iter().enumerate().fold(e.clone(), |e, (n, name)| {
                let value = Rational::new((over + step * n as i64).into(), (*under).into());
                e.replace(name, &number(value))
            })
        };
        let rise = |e: &Expr| minus(e.clone(), fixed(e));
        proportional(&rise(a), &rise(b), steps).is_some()
    })
}

/// The constant as a function of the other letters, from an expression that vanishes.
fn isolated(f: &Expr, c: &str, steps: &Steps) -> Option<Expr> {
    let at = |n: i64| f.replace(c, &integer(n));
    let slope = minus(at(1), at(0));
    let straight = decide(f, &Expr::Add(vec![at(0), Expr::Mul(vec![slope.clone(), var(c)])]), steps).is_equal();
    if straight {
        return Some(super::expr::negate(divide(at(0), slope)));
    }
    peeled(integer(0), f, c, steps)
}

/// What `c` is, where `e` is `target` and `c` occurs in one of its parts only.
fn peeled(target: Expr, e: &Expr, c: &str, steps: &Steps) -> Option<Expr> {
    let has = |e: &Expr| e.variables().iter().any(|n| n == c);
    let split = |list: &[Expr]| -> Option<(Expr, Vec<Expr>)> {
        let (own, rest): (Vec<&Expr>, Vec<&Expr>) = list.iter().partition(|t| has(t));
        let [own] = own.as_slice() else { return None };
        Some(((*own).clone(), rest.into_iter().cloned().collect()))
    };
    match e {
        Expr::Var(n) if n == c => Some(target),
        Expr::Add(terms) => {
            let (own, rest) = split(terms)?;
            peeled(minus(target, Expr::Add(rest)), &own, c, steps)
        }
        Expr::Mul(factors) => {
            let (own, rest) = split(factors)?;
            peeled(divide(target, Expr::Mul(rest)), &own, c, steps)
        }
        Expr::Pow(base, exponent) if has(base) => {
            let n = exact(exponent, steps)?;
            // Only where the power has one inverse.
            let odd = n.numer().bit(0);
            odd.then(|| peeled(power(target, number(Rational::from_integer(1.into()) / n)), base, c, steps))?
        }
        Expr::Pow(base, exponent) if !has(base) => {
            let log = |e: Expr| Expr::Call("ln", vec![e]);
            peeled(Expr::Mul(vec![log(target), invert(log((**base).clone()))]), exponent, c, steps)
        }
        Expr::Call("ln", a) => peeled(power(var("e"), target), &a[0], c, steps),
        Expr::Call("tan", a) => peeled(Expr::Call("arctan", vec![target]), &a[0], c, steps),
        Expr::Call("tanh", a) => peeled(Expr::Call("arctanh", vec![target]), &a[0], c, steps),
        _ => None,
    }
}
