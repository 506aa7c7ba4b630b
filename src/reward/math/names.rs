//! Names of what an answer gives a value: which of them are the same.

use super::expr::{Expr, var};
use super::relation::SAME;

/// Names without case, spaces and accents.
pub fn same_name(a: &str, b: &str) -> bool {
    // x = y = 3 names both.
    if a.contains(SAME) != b.contains(SAME) {
        return a.split(SAME).any(|x| b.split(SAME).any(|y| same_name(x, y)));
    }
    let plain = |t: &str| {
        let t = t
            .trim_start_matches("overline ")
            .trim_start_matches("bar ")
            .trim_start_matches("vec ")
            .trim_start_matches("hat ");
        t.replace([' ', '\\'], "")
    };
    // Q_1 and Q1 are one name, and an angle is named by its measure.
    let joined = |t: String| {
        let digit = t.split_once('_').is_some_and(|(_, i)| i.chars().all(|c| c.is_ascii_digit()));
        let t = if digit { t.replace('_', "") } else { t };
        t.strip_prefix("mangle").map_or(t.clone(), |rest| format!("angle{rest}"))
    };
    let (a, b) = (joined(plain(a)), joined(plain(b)));
    if let (Some(x), Some(y)) = (derivative(&a), derivative(&b)) {
        return x.0 == y.0 && x.1 == y.1 && (x.2 == y.2 || x.2.is_none() || y.2.is_none());
    }
    // y = ... and y(t) = ...: one may leave out what it depends on.
    let head = |t: &str| applied(t).map(|(f, _)| f.to_owned());
    if head(&a).is_some_and(|f| f == b) || head(&b).is_some_and(|f| f == a) {
        return true;
    }
    // a(n) and a_n
    let member = |t: &str| applied(t).map(|(f, n)| format!("{f}_{n}"));
    if member(&a).is_some_and(|f| f == b) || member(&b).is_some_and(|f| f == a) {
        return true;
    }
    // f(x) = ... and y = ... define the same curve.
    let curve = |t: &str| matches!(t, "y" | "f(x)" | "y(x)");
    if curve(&a) && curve(&b) {
        return true;
    }
    let inverse = |t: &str| matches!(t, "f^-1(x)" | "f^-1");
    if (inverse(&a) && b == "y") || (inverse(&b) && a == "y") {
        return true;
    }
    // One letter tells by its case: R and r may be two radii.
    if a.chars().count() == 1 { a == b || a.eq_ignore_ascii_case(&b) } else { a.eq_ignore_ascii_case(&b) }
}

/// The function a derivative is of, its order, and the variable where it is said: `dy/dx`, `y'`, `f''(x)`, `f_x`.
pub(super) fn derivative(name: &str) -> Option<(char, usize, Option<char>)> {
    // A dot is a derivative in time.
    let dots = [("ddot", 2), ("dot", 1)].into_iter().find_map(|(dot, n)| Some((name.strip_prefix(dot)?, n)));
    if let Some((f, order)) = dots {
        let mut letters = f.trim_end_matches("(t)").chars();
        return letters.next().filter(|_| letters.next().is_none()).map(|f| (f, order, Some('t')));
    }
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
pub(super) fn applied(name: &str) -> Option<(&str, &str)> {
    let (f, rest) = name.split_once('(')?;
    let x = rest.strip_suffix(')')?;
    // P(X = k)
    let x = x.strip_prefix("X=").unwrap_or(x);
    (f.chars().count() <= 2 && x.chars().count() == 1 && x.chars().all(char::is_alphabetic)).then_some((f, x))
}

/// A name of up to three letters as their product.
pub(super) fn letters(name: &str) -> Option<Expr> {
    let plain = name.len() <= 3 && name.chars().all(|c| c.is_ascii_alphabetic());
    plain.then(|| Expr::Mul(name.chars().map(|c| var(&c.to_string())).collect()))
}
