//! Compares equations with each other and with their solutions, and compares the names to which answers assign values.

use crate::steps::Steps;
use crate::value::Value;
use crate::value::comparison::{Comparison, no, outcome};
use crate::value::decide::proportional;
use crate::value::expr::{Expr, integer, minus, var};

/// Compares `name = value` with `a = b`.
pub(crate) fn as_equation(name: &str, value: &Value, a: &Expr, b: &Expr, steps: &Steps) -> Comparison {
    match value {
        Value::Scalar(e, None) => equations(&minus(var(name), e.clone()), &minus(a.clone(), b.clone()), steps),
        _ => no("different kinds"),
    }
}

/// Compares the equations `f = 0` and `g = 0`. They are equal if one side is a constant multiple of the other.
pub(crate) fn equations(f: &Expr, g: &Expr, steps: &Steps) -> Comparison {
    outcome(proportional(f, g, steps).is_some(), "equal equations", "different equations")
}

/// Returns true for a sum, a difference or a product of letters in which every letter occurs once. A question may ask
/// for the value of such an expression, so an equation with it is not a condition on the letters.
pub(crate) fn is_asked(e: &Expr) -> bool {
    fn letters(e: &Expr) -> Option<usize> {
        match e {
            Expr::Add(parts) | Expr::Call("abs", parts) => parts.iter().map(letters).sum(),
            Expr::Mul(parts) => parts.iter().map(|p| if *p == integer(-1) { Some(0) } else { letters(p) }).sum(),
            e => e.as_variable().map(|_| 1),
        }
    }
    letters(e).is_some_and(|n| n > 1 && n == e.variables().len())
}

/// Compares names without case, spaces and accents.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    let accents = ["overline ", "bar ", "vec ", "hat "];
    let plain = |t| accents.iter().fold(t, |t: &str, accent| t.trim_start_matches(accent)).replace([' ', '\\'], "");
    let (a, b) = (plain(a), plain(b));
    // f(x) = ... and y = ... define the same curve.
    let curve = |t: &str| matches!(t, "y" | "f(x)" | "y(x)");
    // The case of the letters never matters: R and r are the same name.
    (curve(&a) && curve(&b)) || a.eq_ignore_ascii_case(&b)
}

/// Returns a name of up to three letters as the product of the letters.
pub(crate) fn letters(name: &str) -> Option<Expr> {
    let plain = name.len() <= 3 && name.chars().all(|c| c.is_ascii_alphabetic());
    plain.then(|| Expr::Mul(name.chars().map(|c| var(&c.to_string())).collect()))
}
