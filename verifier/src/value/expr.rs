//! Expression trees, before any computation.

use crate::lexicon::{self, Kind};
use crate::steps::Rational;
use num_bigint::BigInt;
use num_traits::Signed;

/// A scalar expression, or a matrix of them.
#[derive(Clone, PartialEq, Debug)]
pub enum Expr {
    /// A number as written.
    Num {
        /// Exact value of the number.
        value: Rational,
        /// Number of digits after the decimal point, if the number has one.
        decimals: Option<u32>,
    },
    /// A variable or constant by name. `pi`, `e`, `i` and `infty` are constants unless they are bound.
    Var(String),
    /// Sum.
    Add(Vec<Expr>),
    /// Product.
    Mul(Vec<Expr>),
    /// Power. Roots are powers, too.
    Pow(Box<Expr>, Box<Expr>),
    /// A known function and its arguments.
    Call(&'static str, Vec<Expr>),
    /// A function of which only the name is known: `f(x)`, `f'(x)`.
    Apply(String, Vec<Expr>),
    /// Sum, product, integral, limit or derivative over a bound variable.
    Bound(Box<Bound>),
    /// Rows of a matrix.
    Matrix(Vec<Vec<Expr>>),
}

/// Operator that binds a variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binder {
    /// `\sum`.
    Sum,
    /// `\prod`.
    Product,
    /// `\int`.
    Integral,
    /// `\lim`. In its [`Bound`], `from` is the point.
    Limit,
    /// `d/dx`.
    Derivative,
}

/// An operator over a bound variable.
#[derive(Clone, PartialEq, Debug)]
pub struct Bound {
    /// The operator.
    pub binder: Binder,
    /// The bound variable.
    pub var: String,
    /// Lower end. Not used by a derivative.
    pub from: Expr,
    /// Upper end. Not used by a limit and a derivative.
    pub to: Expr,
    /// The expression to which the operator is applied.
    pub body: Expr,
}

/// Returns an integer as an expression.
pub fn integer(value: i64) -> Expr {
    Expr::Num { value: Rational::from_integer(value.into()), decimals: None }
}

/// Returns a rational number as an expression.
pub fn number(value: Rational) -> Expr {
    Expr::Num { value, decimals: None }
}

/// Returns `-x`.
pub fn negate(x: Expr) -> Expr {
    match x {
        Expr::Num { value, decimals } => Expr::Num { value: -value, decimals },
        x => Expr::Mul(vec![integer(-1), x]),
    }
}

/// Returns `1 / x`.
pub fn invert(x: Expr) -> Expr {
    power(x, integer(-1))
}

/// Returns `a / b`.
pub fn divide(a: Expr, b: Expr) -> Expr {
    Expr::Mul(vec![a, invert(b)])
}

/// Returns `a - b`.
pub fn minus(a: Expr, b: Expr) -> Expr {
    Expr::Add(vec![a, negate(b)])
}

/// Returns `a ^ b`.
pub fn power(a: Expr, b: Expr) -> Expr {
    Expr::Pow(Box::new(a), Box::new(b))
}

/// Returns a variable.
pub fn var(name: &str) -> Expr {
    Expr::Var(name.to_owned())
}

/// Returns true for names that are constants unless they are bound.
pub fn is_constant(name: &str) -> bool {
    matches!(name, "pi" | "e" | "i" | "infty")
}

impl Expr {
    /// Calls `f` on each direct subexpression.
    fn each(&self, f: &mut dyn FnMut(&Expr)) {
        match self {
            Expr::Num { .. } | Expr::Var(_) => {}
            Expr::Add(list) | Expr::Mul(list) | Expr::Call(_, list) | Expr::Apply(_, list) => list.iter().for_each(f),
            Expr::Pow(a, b) => [&**a, b].into_iter().for_each(f),
            Expr::Bound(b) => [&b.from, &b.to, &b.body].into_iter().for_each(f),
            Expr::Matrix(rows) => rows.iter().flatten().for_each(f),
        }
    }

    /// Calls `f` on every subexpression, parents first.
    pub fn walk(&self, f: &mut dyn FnMut(&Expr)) {
        f(self);
        self.each(&mut |e| e.walk(f));
    }

    /// Returns the names of the free variables, each once, in the order of their first occurrence.
    pub fn variables(&self) -> Vec<String> {
        let mut names = Vec::new();
        self.free(&mut Vec::new(), &mut names);
        names
    }

    fn free(&self, bound: &mut Vec<String>, names: &mut Vec<String>) {
        match self {
            Expr::Var(name) => {
                if !is_constant(name) && !bound.contains(name) && !names.contains(name) {
                    names.push(name.clone());
                }
            }
            // The variable of a derivative stays free: it is also the point at which the derivative is taken.
            Expr::Bound(b) if b.binder != Binder::Derivative => {
                b.from.free(bound, names);
                b.to.free(bound, names);
                bound.push(b.var.clone());
                b.body.free(bound, names);
                bound.pop();
            }
            e => e.each(&mut |part| part.free(bound, names)),
        }
    }

    /// Returns true if the expression contains a free variable.
    pub fn has_variables(&self) -> bool {
        !self.variables().is_empty()
    }

    /// Returns true if some subexpression satisfies `test`.
    pub fn any(&self, test: impl Fn(&Expr) -> bool) -> bool {
        let mut found = false;
        self.walk(&mut |e| found |= test(e));
        found
    }

    /// Returns true if the expression contains a number.
    pub fn has_numbers(&self) -> bool {
        self.any(|e| matches!(e, Expr::Num { .. }))
    }

    /// Returns the name if the expression is a single variable and not a constant.
    pub fn as_variable(&self) -> Option<&str> {
        match self {
            Expr::Var(name) if !is_constant(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the sign of an infinite expression, 1 or -1. Returns `None` for any other expression.
    pub fn is_infinite(&self) -> Option<i32> {
        match self {
            Expr::Var(name) if name == "infty" => Some(1),
            Expr::Mul(factors) => match factors.as_slice() {
                [Expr::Num { value, .. }, inner] if value.is_integer() => {
                    inner.is_infinite().map(|s| if value.is_negative() { -s } else { s })
                }
                _ => None,
            },
            Expr::Add(terms) if terms.len() == 1 => terms[0].is_infinite(),
            _ => None,
        }
    }

    /// If the expression is one decimal, with or without sign, returns its number of digits after the point and its
    /// number of significant digits.
    pub fn decimal(&self) -> Option<(u32, u32)> {
        match self {
            Expr::Num { value, decimals: Some(d) } => {
                let scaled = value * Rational::from_integer(BigInt::from(10).pow(*d));
                Some((*d, scaled.to_integer().magnitude().to_string().len() as u32))
            }
            _ => None,
        }
    }

    /// Returns the expression with every free occurrence of a variable replaced.
    pub fn replace(&self, name: &str, with: &Expr) -> Expr {
        let all = |list: &[Expr]| list.iter().map(|e| e.replace(name, with)).collect::<Vec<_>>();
        match self {
            Expr::Var(n) if n == name => with.clone(),
            Expr::Num { .. } | Expr::Var(_) => self.clone(),
            Expr::Add(list) => Expr::Add(all(list)),
            Expr::Mul(list) => Expr::Mul(all(list)),
            Expr::Pow(a, b) => power(a.replace(name, with), b.replace(name, with)),
            Expr::Call(f, list) => Expr::Call(f, all(list)),
            Expr::Apply(f, list) => Expr::Apply(f.clone(), all(list)),
            Expr::Bound(b) => Expr::Bound(Box::new(Bound {
                from: b.from.replace(name, with),
                to: b.to.replace(name, with),
                body: if b.var == name { b.body.clone() } else { b.body.replace(name, with) },
                ..(**b).clone()
            })),
            Expr::Matrix(rows) => Expr::Matrix(rows.iter().map(|r| all(r)).collect()),
        }
    }
}

/// Functions that take several arguments in brackets.
pub(crate) const LISTED: [&str; 5] = ["max", "min", "gcd", "lcm", "binom"];

/// Returns the function for a name in LaTeX or in plain text.
pub(crate) fn function(name: &str) -> Option<&'static str> {
    lexicon::look(Kind::Function, name)
}

/// Returns true for the name of a function.
pub(crate) fn is_function(name: &str) -> bool {
    function(name).is_some() || name == "diag"
}
