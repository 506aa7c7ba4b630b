//! Mathematical answers: LaTeX or plain text to a [`Value`], and whether two values are equal.
//!
//! What is rational is compared exactly. The rest is computed with error bounds at sample points: two values are
//! equal when they agree there to more digits than chance allows, unequal when their errors leave a gap, and
//! otherwise the precision is raised. Everything runs under one budget of [`Steps`](super::steps::Steps), so that any
//! text ends soon, with the same verdict on every machine.

mod ball;
mod compare;
pub(crate) mod comparison;
mod complex;
mod decide;
mod eval;
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
pub use expr::Expr;
use matrix::Rows;
pub use parse::parse;
use region::Region;
pub use unit::Unit;

/// What an answer says.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A number or expression, and its unit.
    Scalar(Expr, Option<Unit>),
    /// `a, b and c`: order does not matter.
    List(Vec<Value>),
    /// `\{a, b\}`: neither order nor repetition matter.
    Set(Vec<Value>),
    /// `(a, b)` and longer: order matters. With two parts it may be an open interval as well.
    Tuple(Vec<Value>),
    /// A set of real numbers.
    Region(Region),
    /// Whole, natural, rational or complex numbers.
    Named(String),
    /// Rows.
    Matrix(Rows),
    /// `name = value`.
    Assignment(String, Box<Value>),
    /// Another equation: both sides.
    Equation(Expr, Expr),
    /// `expr > 0`, or `>= 0`.
    Positive(Expr, bool),
    /// A residue and its modulus.
    Residue(Box<Value>, Expr),
    /// `a : b : c`.
    Ratio(Vec<Expr>),
    /// `a to b`, as it is written, and the unit of both.
    Range(Expr, Expr, Option<Unit>),
    /// A time of day in minutes.
    Time(u32),
    /// `first + k step` for every whole `k`.
    Family(Expr, Expr),
    /// A day: year, month and day, where they are said.
    Date(Option<i32>, u8, Option<u8>),
    /// A value and its direction: 5 m north, 20% off.
    Sided(&'static str, Box<Value>),
    /// Words.
    Text(String),
}

impl Value {
    /// What a name was given, else the value itself.
    fn unnamed(&self) -> &Value {
        if let Value::Assignment(_, value) = self { value } else { self }
    }

    /// `a to b` as a ratio, where the words around it say so; any other value as it is.
    pub(crate) fn into_ratio(self) -> Value {
        if let Value::Range(a, b, None) = self { Value::Ratio(vec![a, b]) } else { self }
    }
}
