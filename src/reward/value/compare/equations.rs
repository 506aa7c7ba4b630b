//! Equations beside each other and beside their solutions.
//! Names of what an answer gives a value: which of them are the same.

use crate::reward::steps::Steps;
use crate::reward::value::Value;
use crate::reward::value::decide::proportional;
use crate::reward::value::expr::{Expr, minus, var};
use crate::reward::value::{Comparison, no, outcome};

/// `name = value` beside `a = b`.
pub(crate) fn as_equation(name: &str, value: &Value, a: &Expr, b: &Expr, steps: &Steps) -> Comparison {
    match value {
        Value::Scalar(e, None) => equations(&minus(var(name), e.clone()), &minus(a.clone(), b.clone()), steps),
        _ => no("different kinds"),
    }
}

/// Equations `f = 0` and `g = 0` are equal when one side is a constant multiple of the other, or when both are
/// linear in a variable and give it the same value.
pub(crate) fn equations(f: &Expr, g: &Expr, steps: &Steps) -> Comparison {
    outcome(proportional(f, g, steps).is_some(), "equal equations", "different equations")
}

/// Names without case, spaces and accents.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
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
pub(crate) fn derivative(name: &str) -> Option<(char, usize, Option<char>)> {
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

/// A name of up to three letters as their product.
pub(crate) fn letters(name: &str) -> Option<Expr> {
    let plain = name.len() <= 3 && name.chars().all(|c| c.is_ascii_alphabetic());
    plain.then(|| Expr::Mul(name.chars().map(|c| var(&c.to_string())).collect()))
}
