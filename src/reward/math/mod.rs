//! Mathematical answers: LaTeX or plain text to a [`Value`], and whether two values are equal.
//!
//! Rational arithmetic is exact; what contains roots, functions or variables is compared at fixed sample
//! points. Everything runs under budgets of nodes, depth and bits, so that any text takes bounded time.

mod compare;
mod expr;
mod lex;
mod parse;
mod scalar;
mod unit;

pub use compare::{Comparison, equal, words};
pub use expr::{BigRational as Rational, Expr};
pub use parse::{Bound, Value, parse};

/// A number as a value; a decimal's digits are not counted beyond those of its shortest form.
pub fn scalar(value: Rational, decimal: bool, unit: Option<String>) -> Value {
    Value::Scalar(Expr::Num { value, decimals: decimal.then_some(0) }, unit)
}
