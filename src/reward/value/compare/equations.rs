//! Equations beside each other and beside their solutions.
//! Names of what an answer gives a value: which of them are the same.

use crate::reward::steps::Steps;
use crate::reward::value::Value;
use crate::reward::value::compare::{Comparison, no, yes};
use crate::reward::value::decide::{decide, proportional};
use crate::reward::value::expr::{Expr, divide, integer, minus, var};

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
pub(crate) fn root(f: &Expr, name: &str, steps: &Steps) -> Option<Expr> {
    let at = |n: i64| f.replace(name, &integer(n));
    let slope = minus(at(1), at(0));
    let bend = minus(minus(at(2), at(1)), slope.clone());
    if !decide(&bend, &integer(0), steps).is_equal() || decide(&slope, &integer(0), steps).is_equal() {
        return None;
    }
    Some(divide(crate::reward::value::expr::negate(at(0)), slope))
}

/// True for sums, products and quotients of letters without coefficients.
pub(crate) fn only_letters(e: &Expr) -> bool {
    let minus_one = crate::reward::steps::Rational::from_integer((-1).into());
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

/// The letter of a function and its one variable: `g(t)`.
pub(crate) fn applied(name: &str) -> Option<(&str, &str)> {
    let (f, rest) = name.split_once('(')?;
    let x = rest.strip_suffix(')')?;
    (f.chars().count() <= 2 && x.chars().count() == 1 && x.chars().all(char::is_alphabetic)).then_some((f, x))
}

/// A name of up to three letters as their product.
pub(crate) fn letters(name: &str) -> Option<Expr> {
    let plain = name.len() <= 3 && name.chars().all(|c| c.is_ascii_alphabetic());
    plain.then(|| Expr::Mul(name.chars().map(|c| var(&c.to_string())).collect()))
}
