//! Orders of growth: `O(n \log n)` and `O(n \log_2 n)`, `O(n^2 + n)` and `O(n^2)`.

use super::Steps;
use super::compare::{Comparison, yes};
use super::decide::{decide, proportional};
use super::expr::{Expr, divide, integer, power, var};
use super::family::approximate;

/// Letters of the order of something.
pub(super) const ORDERS: [&str; 4] = ["O", "o", "Theta", "Omega"];

/// Both with one order of growth each: the same one, and the same beside it.
pub(super) fn growth(a: &Expr, b: &Expr, steps: &Steps) -> Option<Comparison> {
    let ((f, p), (g, q)) = (order(a)?, order(b)?);
    let same = f == g
        && (proportional(&p, &q, steps).is_some() || constants(&p, &q) || in_the_end(&p, &q, steps))
        && decide(&beside(a), &beside(b), steps).is_equal();
    same.then(|| yes("the same order of growth"))
}

fn constants(p: &Expr, q: &Expr) -> bool {
    !p.has_variables() && !q.has_variables()
}

/// The one order of growth that occurs, and what it is of.
fn order(e: &Expr) -> Option<(String, Expr)> {
    let mut found = Vec::new();
    e.walk(&mut |p| {
        if let Expr::Apply(name, args) = p
            && ORDERS.contains(&name.as_str())
            && let [x] = args.as_slice()
        {
            found.push((name.clone(), x.clone()));
        }
    });
    (found.len() == 1).then(|| found.remove(0))
}

/// The expression with a letter for the order of growth.
fn beside(e: &Expr) -> Expr {
    match e {
        Expr::Apply(name, _) if ORDERS.contains(&name.as_str()) => var("order of growth"),
        Expr::Add(terms) => Expr::Add(terms.iter().map(beside).collect()),
        Expr::Mul(factors) => Expr::Mul(factors.iter().map(beside).collect()),
        e => e.clone(),
    }
}

/// Whether the quotient settles when the one letter, a count, grows; without powers of fixed numbers, which are told
/// by their proportion.
fn in_the_end(p: &Expr, q: &Expr, steps: &Steps) -> bool {
    let (mut letters, other) = (p.variables(), q.variables());
    letters.retain(|n| other.contains(n));
    let [n] = letters.as_slice() else { return false };
    let fast = |e: &Expr| {
        e.any(|p| match p {
            Expr::Pow(_, n) => n.has_variables(),
            Expr::Call(f, _) => !matches!(*f, "ln" | "log" | "lg"),
            Expr::Apply(..) | Expr::Bound(_) => true,
            _ => false,
        })
    };
    if !matches!(n.as_str(), "n" | "N" | "m" | "V" | "E" | "k") || fast(p) || fast(q) {
        return false;
    }
    let at = |bits: i64| {
        let quotient = divide(p.clone(), q.clone()).replace(n, &power(integer(2), integer(bits)));
        approximate(&quotient, steps).filter(|x| x.is_finite() && *x != 0.0)
    };
    // Logarithms double between the two, and logarithms of logarithms grow by a seventh.
    match (at(200), at(400)) {
        (Some(x), Some(y)) => (x / y - 1.0).abs() < 0.01,
        _ => false,
    }
}
