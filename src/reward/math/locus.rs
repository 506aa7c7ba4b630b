//! Sets of points that parameters run through. With integer parameters they are lattices, with real ones lines and
//! planes, which equations name as well: each is brought to one form and compared in it.
//!
//! A flat (a line, a plane, a point) is the reduced row echelon form of the linear equations between its coordinates,
//! where the parameters are eliminated first: parametric, symmetric, vector and implicit forms all come to it.

use super::Steps;
use super::compare::{Comparison, yes};
use super::decide::{Decision, decide};
use super::domain::{Domain, Domains};
use super::exact::exact;
use super::expr::{Expr, divide, integer, minus, number, var};
use super::family::{components, whole};
use super::matrix::{Folded, fold};
use super::parse::Value;
use super::said_sets::ends;

/// Most coordinates and parameters together.
const MAX_UNKNOWNS: usize = 9;
/// Letters that are parameters of a line in space also where nobody says so.
const PARAMETERS: [&str; 9] = ["t", "s", "u", "v", "lambda", "mu", "tau", "alpha", "beta"];
/// Letters that count where nobody says what they are.
const COUNTERS: [&str; 10] = ["k", "n", "m", "j", "l", "i", "t", "s", "p", "q"];
/// Names of a position in space.
const POSITIONS: [&str; 10] = ["r", "vec r", "bar r", "hat r", "x", "vec x", "L", "l", "P", "p"];

/// Both as sets of points, where they are and say the same.
pub(super) fn loci(gold: &Value, answer: &Value, steps: &Steps) -> Option<Comparison> {
    if lattices(gold, answer, steps) == Some(true) {
        return Some(yes("the same points for whole parameters"));
    }
    flats(gold, answer, steps).filter(|same| *same).map(|_| yes("the same line or plane"))
}

/// A point whose coordinates depend on parameters.
struct Point {
    /// Names of the coordinates in order, or how an interval closes.
    names: Vec<String>,
    coordinates: Vec<Expr>,
    domains: Option<Domains>,
}

fn point(v: &Value) -> Option<Point> {
    let plain = |v: &Value| if let Value::Scalar(e, None) = v { Some(e.clone()) } else { None };
    let tuple = |items: &[Value]| items.iter().map(plain).collect::<Option<Vec<_>>>();
    let of = |names, coordinates| Some(Point { names, coordinates, domains: None });
    match v {
        Value::Over(inner, domains) => {
            let mut p = point(inner)?;
            let used = |n: &String| p.coordinates.iter().any(|e| e.variables().contains(n));
            p.domains = Some(domains.iter().filter(|(n, _)| used(n)).cloned().collect());
            Some(p)
        }
        Value::Scalar(e, None) => of(Vec::new(), vec![e.clone()]),
        Value::Tuple(items) => of(Vec::new(), tuple(items)?),
        Value::Assignment(name, inner) => match &**inner {
            Value::Tuple(items) => of(Vec::new(), tuple(items)?),
            Value::Scalar(e, None) => of(vec![name.clone()], vec![e.clone()]),
            _ => None,
        },
        Value::Region(r) => match r.spans.as_slice() {
            [s] => {
                let (coordinates, closed) = ends(s);
                of(vec![closed], coordinates)
            }
            _ => None,
        },
        Value::List(items) => {
            let named = |v: &Value| match v {
                Value::Assignment(n, x) => Some((n.clone(), plain(x)?)),
                _ => None,
            };
            let mut all = items.iter().map(named).collect::<Option<Vec<_>>>()?;
            all.sort_by(|a, b| a.0.cmp(&b.0));
            if all.windows(2).any(|w| w[0].0 == w[1].0) {
                return None;
            }
            let (names, coordinates) = all.into_iter().unzip();
            of(names, coordinates)
        }
        _ => None,
    }
}

/// Whether two points run through the same places when their parameters run through whole numbers.
fn lattices(gold: &Value, answer: &Value, steps: &Steps) -> Option<bool> {
    let whole_numbers =
        |p: &Point| p.domains.as_ref().is_some_and(|d| !d.is_empty() && d.iter().all(|(_, d)| *d != Domain::Real));
    if !matches!(gold, Value::Over(..)) && !matches!(answer, Value::Over(..)) {
        return None;
    }
    let (mut a, mut b) = (point(gold)?, point(answer)?);
    if !whole_numbers(&a) && !whole_numbers(&b) || a.coordinates.len() != b.coordinates.len() {
        return None;
    }
    // (a, b) may be an open interval; the names may be left out.
    let open = |p: &Point| p.names.is_empty() || p.names == ["(("];
    let told = !a.names.is_empty() && !b.names.is_empty();
    let intervals = [&a, &b].into_iter().any(|p| p.names.first().is_some_and(|n| n.starts_with(['(', '['])));
    if (told && a.names != b.names) || (intervals && !told && !(open(&a) && open(&b))) {
        return None;
    }
    // Where one does not say what its letter is, it is what the other says.
    let said = a.domains.clone().or_else(|| b.domains.clone())?;
    for p in [&mut a, &mut b] {
        if p.domains.is_none() {
            let mut letters: Vec<String> = p.coordinates.iter().flat_map(Expr::variables).collect();
            letters.sort();
            letters.dedup();
            let [letter] = letters.as_slice() else { return None };
            if !COUNTERS.contains(&letter.as_str()) {
                return None;
            }
            p.domains = Some(vec![(letter.clone(), said.first()?.1)]);
        }
    }
    let (x, y) = (a.domains.take()?, b.domains.take()?);
    if x.len() != y.len() {
        return Some(false);
    }
    let [(k, d)] = x.as_slice() else { return Some(renamed(&a, &x, &b, &y, steps)) };
    let (m, e) = &y[0];
    let shifted = |p: &Point, n: &str, d: Domain| -> Vec<Expr> {
        let by = if let Domain::From(n) = d { n } else { 0 };
        let counter = Expr::Add(vec![var(n), integer(by)]);
        p.coordinates.iter().map(|e| e.replace(n, &counter)).collect()
    };
    let (p, q) = (shifted(&a, k, *d), shifted(&b, m, *e));
    match (d, e) {
        (Domain::Whole, Domain::Whole) => {
            Some(line_of_points(&p, k, &q, m, steps).unwrap_or_else(|| turned(&p, k, &q, m, steps)))
        }
        (Domain::From(_), Domain::From(_)) => {
            Some(p.iter().zip(&q).all(|(x, y)| decide(x, &y.replace(m, &var(k)), steps).is_equal()))
        }
        _ => Some(false),
    }
}

/// Whether points at equal steps are the same: steps equal or opposite, and the first ones whole steps apart. `None`
/// where the steps are not equal.
fn line_of_points(p: &[Expr], k: &str, q: &[Expr], m: &str, steps: &Steps) -> Option<bool> {
    let straight = |e: &Expr, n: &str| {
        let at = |i: i64| e.replace(n, &integer(i));
        let step = minus(at(1), at(0));
        let even = decide(&minus(at(2), at(1)), &step, steps).is_equal();
        even.then(|| (at(0), step))
    };
    let a = p.iter().map(|e| straight(e, k)).collect::<Option<Vec<_>>>()?;
    let b = q.iter().map(|e| straight(e, m)).collect::<Option<Vec<_>>>()?;
    let zero = |e: &Expr| decide(e, &integer(0), steps).is_equal();
    let sign = [1i64, -1].into_iter().find(|&s| {
        let fits = |(x, y): (&(Expr, Expr), &(Expr, Expr))| {
            decide(&x.1, &Expr::Mul(vec![integer(s), y.1.clone()]), steps).is_equal()
        };
        a.iter().zip(&b).all(fits)
    });
    if sign.is_none() {
        return Some(false);
    }
    let Some(lead) = a.iter().position(|x| !zero(&x.1)) else { return Some(false) };
    let apart = |n: usize| minus(b[n].0.clone(), a[n].0.clone());
    let Some(times) = whole(&divide(apart(lead), a[lead].1.clone()), steps) else { return Some(false) };
    let on = |n: usize| decide(&apart(n), &Expr::Mul(vec![integer(times), a[n].1.clone()]), steps).is_equal();
    Some((0..a.len()).all(on))
}

/// Whether points are the same with their parameter shifted or turned about.
fn turned(p: &[Expr], k: &str, q: &[Expr], m: &str, steps: &Steps) -> bool {
    let counters = [(1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)];
    counters.into_iter().any(|(sign, by)| {
        let counter = Expr::Add(vec![Expr::Mul(vec![integer(sign), var(k)]), integer(by)]);
        p.iter().zip(q).all(|(x, y)| decide(x, &y.replace(m, &counter), steps).is_equal())
    })
}

/// Whether points are the same when their parameters change names, in any order.
fn renamed(a: &Point, x: &Domains, b: &Point, y: &Domains, steps: &Steps) -> bool {
    let n = x.len();
    if n > 3 || n == 0 {
        return false;
    }
    let orders: &[&[usize]] = if n == 2 {
        &[&[0, 1], &[1, 0]]
    } else {
        &[&[0, 1, 2], &[0, 2, 1], &[1, 0, 2], &[1, 2, 0], &[2, 0, 1], &[2, 1, 0]]
    };
    orders.iter().any(|order| {
        let fits = order.iter().enumerate().all(|(i, &j)| x[i].1 == y[j].1);
        let rename = |e: &Expr| {
            let mid = order.iter().fold(e.clone(), |e, &j| e.replace(&y[j].0, &var(&format!("new {j}"))));
            order.iter().enumerate().fold(mid, |e, (i, &j)| e.replace(&format!("new {j}"), &var(&x[i].0)))
        };
        fits && a.coordinates.iter().zip(&b.coordinates).all(|(p, q)| decide(p, &rename(q), steps).is_equal())
    })
}

/// Linear equations between coordinates and parameters, each an expression that vanishes.
struct Flat {
    equations: Vec<Expr>,
    /// Coordinates in order; those of a tuple are told by their place.
    coordinates: Vec<String>,
    /// Nobody doubts that it is a line or plane: a position vector, a stated domain, several equations.
    sure: bool,
    /// Its letters were said to be parameters.
    parametric: bool,
}

fn place(n: usize) -> String {
    format!("coordinate {n}")
}

fn flat(v: &Value, steps: &Steps) -> Option<Flat> {
    let known = |n: &str| matches!(n, "x" | "y" | "z") || n.strip_prefix("x_").is_some_and(|i| i.parse::<u8>().is_ok());
    let of_tuple = |items: &[Expr], sure: bool| {
        let equations = items.iter().enumerate().map(|(n, e)| minus(var(&place(n)), e.clone())).collect();
        let parametric = items.iter().any(Expr::has_variables);
        let coordinates = (0..items.len()).map(place).collect();
        (2..=4).contains(&items.len()).then_some(Flat { equations, coordinates, sure, parametric })
    };
    let plain = |v: &Value| if let Value::Scalar(e, None) = v { Some(e.clone()) } else { None };
    match v {
        Value::Over(inner, domains) => {
            let real = domains.iter().all(|(_, d)| *d == Domain::Real);
            let f = flat(inner, steps).filter(|_| real)?;
            Some(Flat { sure: true, ..f })
        }
        Value::Tuple(items) => of_tuple(&items.iter().map(plain).collect::<Option<Vec<_>>>()?, false),
        Value::Matrix(rows) if rows.len() == 1 || rows.iter().all(|r| r.len() == 1) => {
            of_tuple(&rows.iter().flatten().cloned().collect::<Vec<_>>(), false)
        }
        Value::Assignment(name, inner) => {
            let bare = name.split('(').next().unwrap_or(name);
            let position = POSITIONS.contains(&bare);
            match &**inner {
                Value::Tuple(items) => of_tuple(&items.iter().map(plain).collect::<Option<Vec<_>>>()?, position),
                Value::Matrix(rows) if position => of_tuple(&rows.iter().flatten().cloned().collect::<Vec<_>>(), true),
                Value::Scalar(e, None) if position && bare != "x" => of_tuple(&components(e, steps)?, true),
                Value::Scalar(e, None) if known(name) => {
                    equations_of(vec![minus(var(name), e.clone())], &known, std::slice::from_ref(name))
                }
                _ => None,
            }
        }
        Value::Equation(a, b) => {
            let e = minus(a.clone(), b.clone());
            let scalar = dotted(&e, steps)?;
            let sure = scalar != e;
            equations_of(vec![scalar], &known, &[]).map(|f| Flat { sure: f.sure || sure, ..f })
        }
        Value::List(items) if items.len() <= 6 => {
            let (mut equations, mut names) = (Vec::new(), Vec::new());
            for item in items {
                equations.push(match item {
                    Value::Assignment(n, x) => {
                        names.push(n.clone());
                        minus(var(n), plain(x)?)
                    }
                    Value::Equation(a, b) => minus(a.clone(), b.clone()),
                    _ => return None,
                });
            }
            let distinct = (1..names.len()).all(|i| !names[..i].contains(&names[i]));
            distinct.then(|| equations_of(equations, &known, &names))?
        }
        _ => None,
    }
}

/// The flat of equations in named coordinates.
fn equations_of(equations: Vec<Expr>, known: &impl Fn(&str) -> bool, names: &[String]) -> Option<Flat> {
    let mut letters: Vec<String> = equations.iter().flat_map(Expr::variables).collect();
    letters.sort();
    letters.dedup();
    let all_known = names.iter().all(|n| known(n));
    let coordinates: Vec<String> =
        letters.iter().filter(|n| if all_known { known(n) } else { names.contains(n) }).cloned().collect();
    let parameters: Vec<&String> = letters.iter().filter(|n| !coordinates.contains(n)).collect();
    // A line in space by its three coordinates.
    let line =
        names.len() >= 3 && !parameters.is_empty() && parameters.iter().all(|p| PARAMETERS.contains(&p.as_str()));
    let sure = line || (parameters.is_empty() && equations.len() > 1);
    let parametric = !parameters.is_empty();
    (!coordinates.is_empty()).then_some(Flat { equations, coordinates, sure, parametric })
}

/// An equation with its scalar products done: `(2i - j + 3k) \cdot r`, where `r` is the position.
fn dotted(e: &Expr, steps: &Steps) -> Option<Expr> {
    let vectors =
        |p: &Expr| matches!(p, Expr::Matrix(_)) || matches!(p, Expr::Var(n) if POSITIONS[..4].contains(&n.as_str()));
    if !e.any(vectors) {
        return Some(e.clone());
    }
    fn parts(e: &Expr, steps: &Steps) -> Option<Vec<Expr>> {
        let here = e.clone();
        if let Expr::Var(n) = e
            && POSITIONS[..4].contains(&n.as_str())
        {
            return Some(["x", "y", "z"].map(var).to_vec());
        }
        if let Expr::Add(terms) = e {
            let all = terms.iter().map(|t| parts(t, steps)).collect::<Option<Vec<_>>>();
            if let Some(all) = all {
                let width = all.first()?.len();
                let sum = |n: usize| Expr::Add(all.iter().map(|t| t[n].clone()).collect());
                return all.iter().all(|t| t.len() == width).then(|| (0..width).map(sum).collect());
            }
        }
        if let Expr::Mul(factors) = e
            && let [Expr::Num { .. }, rest] = factors.as_slice()
        {
            let each = parts(rest, steps)?;
            return Some(each.into_iter().map(|x| Expr::Mul(vec![factors[0].clone(), x])).collect());
        }
        match fold(&here, steps)? {
            Folded::Matrix(rows) if rows.len() == 1 || rows.iter().all(|r| r.len() == 1) => {
                Some(rows.into_iter().flatten().collect())
            }
            Folded::Matrix(_) => None,
            Folded::Scalar(e) => components(&e, steps),
        }
    }
    match e {
        Expr::Add(terms) => terms.iter().map(|t| dotted(t, steps)).collect::<Option<_>>().map(Expr::Add),
        Expr::Mul(factors) => {
            let (mut scalars, mut vectors) = (Vec::new(), Vec::new());
            for f in factors {
                match parts(f, steps) {
                    Some(v) => vectors.push(v),
                    None => scalars.push(f.clone()),
                }
            }
            match vectors.as_slice() {
                [] => Some(e.clone()),
                [a, b] if a.len() == b.len() => {
                    let terms = a.iter().zip(b).map(|(x, y)| Expr::Mul(vec![x.clone(), y.clone()])).collect();
                    scalars.push(Expr::Add(terms));
                    Some(Expr::Mul(scalars))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn flats(gold: &Value, answer: &Value, steps: &Steps) -> Option<bool> {
    let shaped = |v: &Value| {
        matches!(v, Value::Tuple(_) | Value::Matrix(_) | Value::List(_) | Value::Over(..) | Value::Equation(..))
            || matches!(v, Value::Assignment(..))
    };
    // Two single equations are compared as such, and so are plain tuples.
    let vectors = |v: &Value| match v {
        Value::Over(..) | Value::List(_) => true,
        Value::Assignment(_, x) => matches!(**x, Value::Tuple(_) | Value::Matrix(_)) || has_axes(x),
        Value::Equation(a, b) => [a, b].iter().any(|e| has_axes(&Value::Scalar((*e).clone(), None))),
        _ => false,
    };
    if !shaped(gold) || !shaped(answer) || !(vectors(gold) || vectors(answer)) {
        return None;
    }
    let (a, b) = (flat(gold, steps)?, flat(answer, steps)?);
    // A bare tuple in the same letter is a point.
    let bare = |v: &Value, f: &Flat| matches!(v, Value::Tuple(_)) && f.parametric;
    let said = matches!(gold, Value::Over(..)) || matches!(answer, Value::Over(..));
    if !said && (bare(gold, &a) && b.parametric || bare(answer, &b) && a.parametric) {
        return None;
    }
    // Two parametric forms of the same letters may also be two points; something must say that they are lines.
    if !(a.sure || b.sure || a.parametric != b.parametric) {
        return None;
    }
    let ordinal = |f: &Flat| f.coordinates.iter().any(|n| n.starts_with("coordinate"));
    let mut axes: Vec<String> = a.coordinates.iter().chain(&b.coordinates).cloned().collect();
    axes.retain(|n| !n.starts_with("coordinate"));
    axes.sort();
    axes.dedup();
    let size = [&a, &b].iter().filter(|f| ordinal(f)).map(|f| f.coordinates.len()).max().unwrap_or(axes.len());
    if axes.is_empty() {
        axes = (0..size).map(place).collect();
    }
    // A coordinate that an equation does not name is free.
    if axes.len() < size && axes.iter().all(|n| matches!(n.as_str(), "x" | "y" | "z")) && size <= 3 {
        axes = ["x", "y", "z"][..size].iter().map(|s| (*s).to_owned()).collect();
    }
    if axes.len() != size || [&a, &b].iter().any(|f| ordinal(f) && f.coordinates.len() != size) {
        return None;
    }
    let (x, y) = (echelon(&a, &axes, steps)?, echelon(&b, &axes, steps)?);
    let proper = !x.is_empty() && x.len() < axes.len();
    let same = x.len() == y.len()
        && x.iter().zip(&y).all(|(r, s)| r.iter().zip(s).all(|(p, q)| decide(p, q, steps).is_equal()));
    Some(proper && same)
}

fn has_axes(v: &Value) -> bool {
    matches!(v, Value::Scalar(e, None) if e.any(|p| match p {
        Expr::Matrix(_) => true,
        Expr::Var(n) => matches!(n.as_str(), "j" | "k" | "r") || n.starts_with("hat ") || n.starts_with("vec "),
        _ => false,
    }))
}

/// The reduced equations between the coordinates alone; `None` where an equation is not linear.
fn echelon(f: &Flat, axes: &[String], steps: &Steps) -> Option<Vec<Vec<Expr>>> {
    let by_place = f.coordinates.iter().any(|n| n.starts_with("coordinate"));
    let rename = |e: &Expr| {
        let named = axes.iter().enumerate();
        if by_place { named.fold(e.clone(), |e, (n, axis)| e.replace(&place(n), &var(axis))) } else { e.clone() }
    };
    let equations: Vec<Expr> = f.equations.iter().map(rename).collect();
    let mut letters: Vec<String> = equations.iter().flat_map(Expr::variables).collect();
    letters.sort();
    letters.dedup();
    let parameters: Vec<String> = letters.into_iter().filter(|n| !axes.contains(n)).collect();
    let unknowns: Vec<&String> = parameters.iter().chain(axes).collect();
    if unknowns.len() > MAX_UNKNOWNS {
        return None;
    }
    let simple = |e: Expr| exact(&e, steps).map_or(e, number);
    let row = |e: &Expr| {
        let none = |but: Option<&String>| {
            unknowns.iter().fold(e.clone(), |e, n| e.replace(n, &integer(i64::from(Some(*n) == but))))
        };
        let constant = none(None);
        let mut row: Vec<Expr> = unknowns.iter().map(|n| simple(minus(none(Some(n)), constant.clone()))).collect();
        let mut terms: Vec<Expr> = unknowns.iter().zip(&row).map(|(n, c)| Expr::Mul(vec![c.clone(), var(n)])).collect();
        terms.push(constant.clone());
        row.push(simple(constant));
        decide(e, &Expr::Add(terms), steps).is_equal().then_some(row)
    };
    let mut rows = equations.iter().map(row).collect::<Option<Vec<_>>>()?;
    let (mut rank, mut first) = (0, 0);
    for column in 0..unknowns.len() {
        let mut pivot = None;
        for (n, r) in rows.iter().enumerate().skip(rank) {
            match decide(&r[column], &integer(0), steps) {
                Decision::Equal(_) => {}
                Decision::Unequal(_) => {
                    pivot = Some(n);
                    break;
                }
                Decision::Open(_) => return None,
            }
        }
        let Some(pivot) = pivot else { continue };
        rows.swap(rank, pivot);
        let lead = rows[rank][column].clone();
        let scaled: Vec<Expr> = rows[rank].iter().map(|e| simple(divide(e.clone(), lead.clone()))).collect();
        for (n, r) in rows.iter_mut().enumerate() {
            if n == rank {
                continue;
            }
            let by = r[column].clone();
            for (x, y) in r.iter_mut().zip(&scaled) {
                *x = simple(minus(x.clone(), Expr::Mul(vec![by.clone(), y.clone()])));
            }
        }
        rows[rank] = scaled;
        rank += 1;
        if column < parameters.len() {
            first = rank;
        }
    }
    // What is left of the rows says that 0 = 0, or there is no such point.
    let rest = &rows[rank..];
    if !rest.iter().all(|r| r.last().is_some_and(|c| decide(c, &integer(0), steps).is_equal())) {
        return None;
    }
    Some(rows[first..rank].iter().map(|r| r[parameters.len()..].to_vec()).collect())
}
