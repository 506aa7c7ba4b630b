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
        Expr::Add(terms) => {
            let mut total: Option<Rows> = None;
            for t in terms {
                let Folded::Matrix(rows) = fold(t, steps)? else { return None };
                total = Some(match total {
                    None => rows,
                    Some(sum) => {
                        if sum.len() != rows.len() || sum.first()?.len() != rows.first()?.len() {
                            return None;
                        }
                        let add = |(a, b): (Vec<Expr>, Vec<Expr>)| {
                            a.into_iter().zip(b).map(|(x, y)| Expr::Add(vec![x, y])).collect()
                        };
                        sum.into_iter().zip(rows).map(add).collect()
                    }
                });
            }
            total.map(Folded::Matrix)
        }
        Expr::Mul(factors) => {
            let (mut scale, mut total): (Vec<Expr>, Option<Rows>) = (Vec::new(), None);
            for f in factors {
                match (fold(f, steps)?, total.take()) {
                    (Folded::Scalar(s), rows) => {
                        scale.push(s);
                        total = rows;
                    }
                    (Folded::Matrix(rows), None) => total = Some(rows),
                    // The scalar product of two vectors in the plane. In space, the sign could also mean the cross
                    // product.
                    (Folded::Matrix(b), Some(a))
                        if a.len() == 1 && b.len() == 1 && a[0].len() == 2 && b[0].len() == 2 =>
                    {
                        let terms = a[0].iter().zip(&b[0]).map(|(x, y)| Expr::Mul(vec![x.clone(), y.clone()]));
                        scale.push(Expr::Add(terms.collect()));
                    }
                    (Folded::Matrix(_), Some(_)) => return None,
                }
            }
            let scaled = |x: Expr| Expr::Mul(scale.iter().cloned().chain([x]).collect());
            match total {
                Some(rows) if scale.is_empty() => Some(Folded::Matrix(rows)),
                Some(rows) => Some(Folded::Matrix(each(rows, scaled))),
                None => Some(Folded::Scalar(Expr::Mul(scale))),
            }
        }
        _ => None,
    }
}
