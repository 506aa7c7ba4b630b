//! Mathematical answers: parses LaTeX or plain text to a [`Value`] and decides whether two values are equal.
//!
//! Rational values are compared exactly. Other values are computed with error bounds at sample points. They are equal
//! if they agree there to more digits than could happen by chance, and unequal if their error intervals do not overlap.
//! If neither holds, the precision is raised. All work runs under one budget of [`Steps`](super::steps::Steps), so
//! every input ends soon and gives the same verdict on every machine.

mod ball;
mod compare;
pub(crate) mod comparison;
mod complex;
mod decide;
mod eval;
mod evaluated;
mod exact;
mod expr;
mod family;
mod lex;
mod matrix;
mod parse;
mod region;
mod scalar;
mod unit;

pub use compare::equal;
pub use comparison::Comparison;
pub(crate) use decide::approximate;
pub use evaluated::{UNEVALUATED, is_calculation};
pub use expr::Expr;
use matrix::Rows;
pub use parse::parse;
use region::Region;
pub use unit::Unit;

/// The parsed meaning of an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A number or expression, and its unit.
    Scalar(Expr, Option<Unit>),
    /// `a, b and c`: order does not matter.
    List(Vec<Value>),
    /// `\{a, b\}`: neither order nor repetition matters.
    Set(Vec<Value>),
    /// `(a, b)` and longer: order matters. A tuple of two may also be an open interval.
    Tuple(Vec<Value>),
    /// A set of real numbers.
    Region(Region),
    /// A matrix as rows.
    Matrix(Rows),
    /// `name = value`.
    Assignment(String, Box<Value>),
    /// Any other equation: both sides.
    Equation(Expr, Expr),
    /// `expr > 0` or `expr >= 0`; the flag is true for the strict inequality.
    Positive(Expr, bool),
    /// A residue and its modulus.
    Residue(Box<Value>, Expr),
    /// `a : b : c`.
    Ratio(Vec<Expr>),
    /// `a to b` as written, and the unit of both ends.
    Range(Expr, Expr, Option<Unit>),
    /// A time of day in minutes.
    Time(u32),
    /// `first + k step` for every whole `k`.
    Family(Expr, Expr),
    /// A date: year, month and day. The year and the day may be absent.
    Date(Option<i32>, u8, Option<u8>),
    /// A value and its direction: 5 m north, 20% off.
    Sided(&'static str, Box<Value>),
    /// Words.
    Text(String),
}

impl Value {
    /// Returns the value without its name, if it has one.
    pub(crate) fn unnamed(&self) -> &Value {
        if let Value::Assignment(_, value) = self { value } else { self }
    }

    /// Converts the range `a to b` to a ratio. The caller uses it if the surrounding words call the value a ratio.
    /// Other values stay as they are.
    pub(crate) fn into_ratio(self) -> Value {
        if let Value::Range(a, b, None) = self { Value::Ratio(vec![a, b]) } else { self }
    }
}
