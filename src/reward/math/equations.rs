//! Equations beside each other and beside their solutions.

use super::Steps;
use super::compare::{Comparison, no, yes};
use super::decide::{decide, proportional};
use super::expr::{Expr, divide, integer, minus, var};
use super::family::solutions;
use super::lists::unordered;
use super::parse::Value;

/// `name = value` beside `a = b`.
pub(super) fn as_equation(name: &str, value: &Value, a: &Expr, b: &Expr, steps: &Steps) -> Comparison {
    match value {
        Value::Scalar(e, None) => equations(&minus(var(name), e.clone()), &minus(a.clone(), b.clone()), steps),
        _ => no("different kinds"),
    }
}

/// Equations `f = 0` and `g = 0` are equal when one side is a constant multiple of the other, or when both are
/// linear in a variable and give it the same value.
pub(super) fn equations(f: &Expr, g: &Expr, steps: &Steps) -> Comparison {
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
pub(super) fn root(f: &Expr, name: &str, steps: &Steps) -> Option<Expr> {
    let at = |n: i64| f.replace(name, &integer(n));
    let slope = minus(at(1), at(0));
    let bend = minus(minus(at(2), at(1)), slope.clone());
    if !decide(&bend, &integer(0), steps).is_equal() || decide(&slope, &integer(0), steps).is_equal() {
        return None;
    }
    Some(divide(super::expr::negate(at(0)), slope))
}

/// An equation beside its solutions.
pub(super) fn solved(a: &Expr, b: &Expr, values: &Value, steps: &Steps) -> Comparison {
    let roots = solutions(&minus(a.clone(), b.clone()), steps);
    let Some(roots) = roots.filter(|r| r.len() > 1) else { return no("different kinds") };
    let (Value::Set(items) | Value::List(items)) = values else { return no("different kinds") };
    let value = |v: &Value| if let Value::Assignment(_, x) = v { (**x).clone() } else { v.clone() };
    let roots: Vec<Value> = roots.into_iter().map(|e| Value::Scalar(e, None)).collect();
    unordered(&roots, &items.iter().map(value).collect::<Vec<_>>(), steps)
}

/// True for sums, products and quotients of letters without coefficients.
pub(super) fn only_letters(e: &Expr) -> bool {
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
