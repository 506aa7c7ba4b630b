//! Tells a number from a calculation. If the gold answer is a number, an answer must be one, too: a model that repeats
//! the question as its answer has solved nothing.

use crate::normalise::normalise;
use crate::steps::{BUDGET, Steps};
use crate::value::exact::exact;
use crate::value::expr::{Expr, divide, integer};
use crate::value::{Unit, Value};

/// Reason of a verdict on an answer that is a calculation although the gold answer is a number.
pub const UNEVALUATED: &str = "unevaluated";

/// Returns true if `gold` is a number and `answer`, which is written as `text`, is a calculation or an expression that
/// stands in `question`. A number is a literal, a fraction, a decimal, scientific notation, a power, a root, a
/// factorial, or a sum or product of such numbers that cannot be combined: `2\sqrt{3}`, `1+\pi`. The answer to a
/// rational number in the same unit has no sums and functions, unless the number is a rounded decimal.
pub fn is_calculation(gold: &Value, answer: &Value, text: &str, question: Option<&str>, steps: &Steps) -> bool {
    let (Some((gold, unit)), Some((answer, other))) = (number(gold), number(answer)) else { return false };
    let rational = (unit.is_none() || unit == other) && gold.decimal().is_none() && exact(&gold, steps).is_some();
    let computed = |part: &Expr| match part {
        Expr::Call(function, _) => !matches!(*function, "factorial" | "binom" | "abs"),
        _ => matches!(part, Expr::Add(_) | Expr::Bound(_) | Expr::Apply(..)),
    };
    let repeats = gold != answer && !matches!(answer, Expr::Num { .. });
    let calculated = || has_steps(&answer, steps) || (rational && answer.any(computed));
    let asked = || repeats && question.is_some_and(|question| stands_in(question, text));
    !gold.has_variables() && !has_steps(&gold, steps) && (calculated() || asked())
}

/// Returns the expression and the unit of a value that stands for one number.
fn number(value: &Value) -> Option<(Expr, Option<&Unit>)> {
    match value.unnamed() {
        Value::Scalar(e, unit) => Some((e.clone(), unit.as_ref())),
        Value::Ratio(parts) if parts.len() == 2 => Some((divide(parts[0].clone(), parts[1].clone()), None)),
        Value::Residue(value, modulus) => {
            let (rest, steps) = (Expr::Call("mod", vec![number(value)?.0, modulus.clone()]), Steps::new(BUDGET));
            (exact(&rest, &steps) != exact(&number(value)?.0, &steps)).then_some((rest, None))
        }
        Value::Set(items) | Value::List(items) if items.len() == 1 => number(&items[0]),
        _ => None,
    }
}

/// Returns true if a part of the expression is a sum or product of rational numbers. The product of a number and a power
/// of ten is scientific notation. A fraction in a denominator stands for a product.
fn has_steps(e: &Expr, steps: &Steps) -> bool {
    let rational = |e: &&Expr| exact(e, steps).is_some();
    let divides = |e: &&Expr| matches!(e, Expr::Pow(_, n) if **n == integer(-1));
    let scales = |e: &Expr| matches!(e, Expr::Pow(base, _) if **base == integer(10));
    e.any(|part| match part {
        Expr::Add(terms) => terms.iter().filter(rational).count() > 1,
        Expr::Mul(factors) => {
            let numbers = || factors.iter().filter(|f| **f != integer(-1)).filter(rational);
            let alone = numbers().all(scales);
            let (under, over): (Vec<_>, Vec<_>) = numbers().filter(|f| alone || !scales(f)).partition(divides);
            over.len() > 1 || under.len() > 1
        }
        Expr::Pow(base, _) => divides(&part) && matches!(**base, Expr::Mul(_)) && rational(&&**base),
        _ => false,
    })
}

/// Returns true if the question contains the expression that ends in a number: `156 / 2`, `156 divided by 2`.
fn stands_in(question: &str, expression: &str) -> bool {
    let plain = |text: &str| {
        let marks = [("}{", "/"), ("\\frac", ""), ("\\div", "/"), ("divided by", "/"), (":", "/")];
        let text = marks.iter().fold(normalise(text).into_owned(), |text, (mark, sign)| text.replace(mark, sign));
        text.replace(|c: char| "{}$ ".contains(c), "")
    };
    let (question, expression) = (plain(question), plain(expression.rsplit('=').next().unwrap_or(expression)));
    // A unit may follow the expression.
    let expression = expression.trim_end_matches(char::is_alphabetic);
    let digit = |c: char| c.is_ascii_digit();
    let alone = |at: usize| !question[..at].ends_with(digit) && !question[at + expression.len()..].starts_with(digit);
    expression.ends_with(digit) && question.match_indices(expression).any(|(at, _)| alone(at))
}
