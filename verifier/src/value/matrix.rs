//! Matrix arithmetic on entries that are expressions.

use crate::steps::Steps;
use crate::value::expr::Expr;

/// Rows of a matrix.
pub(crate) type Rows = Vec<Vec<Expr>>;

/// Result of the matrix arithmetic in an expression.
pub(crate) enum Folded {
    /// A matrix.
    Matrix(Rows),
    /// An expression without a matrix.
    Scalar(Expr),
}

fn each(rows: Rows, f: impl Fn(Expr) -> Expr) -> Rows {
    rows.into_iter().map(|r| r.into_iter().map(&f).collect()).collect()
}

/// Performs the matrix arithmetic of an expression. Returns `None` if an operation is not defined.
pub(crate) fn fold(e: &Expr, steps: &Steps) -> Option<Folded> {
    if !e.any(|p| matches!(p, Expr::Matrix(_))) {
        return Some(Folded::Scalar(e.clone()));
    }
    steps.spend(10)?;
    match e {
        Expr::Matrix(rows) => Some(Folded::Matrix(rows.clone())),
        Expr::Mul(factors) => {
            let (mut scale, mut total): (Vec<Expr>, Option<Rows>) = (Vec::new(), None);
            for f in factors {
                match (fold(f, steps)?, total.take()) {
                    (Folded::Scalar(s), rows) => {
                        scale.push(s);
                        total = rows;
                    }
                    (Folded::Matrix(rows), None) => total = Some(rows),
                    (Folded::Matrix(_), Some(_)) => return None,
                }
            }
            let scaled = |x: Expr| Expr::Mul(scale.iter().cloned().chain([x]).collect());
            let rows = total?;
            Some(Folded::Matrix(if scale.is_empty() { rows } else { each(rows, scaled) }))
        }
        _ => None,
    }
}
