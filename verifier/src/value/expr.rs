//! Expressions as trees, before anything is computed.

use crate::lexicon::{self, Kind};
use crate::steps::Rational;
use num_bigint::BigInt;

/// A scalar expression, or a matrix of them.
#[derive(Clone, PartialEq, Debug)]
pub enum Expr {
    /// A number as written; `decimals` counts digits after the point of a decimal.
    Num {
        /// Its exact value.
        value: Rational,
        /// Digits after the point, when it has one.
        decimals: Option<u32>,
    },
    /// A variable or constant by name: `pi`, `e`, `i` and `infty` are constants where nothing binds them.
    Var(String),
    /// Sum.
    Add(Vec<Expr>),
    /// Product.
    Mul(Vec<Expr>),
    /// Power; roots are powers too.
    Pow(Box<Expr>, Box<Expr>),
    /// A known function of its arguments.
    Call(&'static str, Vec<Expr>),
    /// A function that is only named: `f(x)`, `f'(x)`.
    Apply(String, Vec<Expr>),
    /// Sum, product, integral, limit or derivative over a bound variable.
    Bound(Box<Bound>),
    /// Rows of a matrix.
    Matrix(Vec<Vec<Expr>>),
}

/// What binds a variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binder {
    /// `\sum`.
    Sum,
    /// `\prod`.
    Product,
    /// `\int`.
    Integral,
    /// `\lim`; `from` is the place, `to` the side: -1, 0 or 1.
    Limit,
    /// `d/dx`.
    Derivative,
}

/// An operator over a bound variable.
#[derive(Clone, PartialEq, Debug)]
pub struct Bound {
    /// Which.
    pub binder: Binder,
    /// The variable.
    pub var: String,
    /// Lower end; not used by a derivative.
    pub from: Expr,
    /// Upper end; not used by a derivative.
    pub to: Expr,
    /// What is summed, integrated and so on.
    pub body: Expr,
}

/// An integer as a number.
pub fn integer(value: i64) -> Expr {
    Expr::Num { value: Rational::from_integer(value.into()), decimals: None }
}

/// A rational number.
pub fn number(value: Rational) -> Expr {
    Expr::Num { value, decimals: None }
}

/// `-x`.
pub fn negate(x: Expr) -> Expr {
    match x {
        Expr::Num { value, decimals } => Expr::Num { value: -value, decimals },
        x => Expr::Mul(vec![integer(-1), x]),
    }
}

/// `1 / x`.
pub fn invert(x: Expr) -> Expr {
    power(x, integer(-1))
}

/// `a / b`.
pub fn divide(a: Expr, b: Expr) -> Expr {
    Expr::Mul(vec![a, invert(b)])
}

/// `a - b`.
pub fn minus(a: Expr, b: Expr) -> Expr {
    Expr::Add(vec![a, negate(b)])
}

/// `a ^ b`.
pub fn power(a: Expr, b: Expr) -> Expr {
    Expr::Pow(Box::new(a), Box::new(b))
}

/// A variable.
pub fn var(name: &str) -> Expr {
    Expr::Var(name.to_owned())
}

/// True for names that are constants where nothing binds them.
pub fn is_constant(name: &str) -> bool {
    matches!(name, "pi" | "e" | "i" | "infty")
}

impl Expr {
    /// Calls `f` on each of the expressions that it is made of.
    fn each(&self, f: &mut dyn FnMut(&Expr)) {
        match self {
            Expr::Num { .. } | Expr::Var(_) => {}
            Expr::Add(list) | Expr::Mul(list) | Expr::Call(_, list) | Expr::Apply(_, list) => list.iter().for_each(f),
            Expr::Pow(a, b) => [&**a, b].into_iter().for_each(f),
            Expr::Bound(b) => [&b.from, &b.to, &b.body].into_iter().for_each(f),
            Expr::Matrix(rows) => rows.iter().flatten().for_each(f),
        }
    }

    /// Calls `f` on every part, parents first.
    pub fn walk(&self, f: &mut dyn FnMut(&Expr)) {
        f(self);
        self.each(&mut |e| e.walk(f));
    }

    /// Names of the free variables, each once, in the order of their first occurrence.
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
            // The variable of a derivative is the one it is taken at.
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

    /// True when a free variable occurs.
    pub fn has_variables(&self) -> bool {
        !self.variables().is_empty()
    }

    /// True when some part satisfies `test`.
    pub fn any(&self, test: impl Fn(&Expr) -> bool) -> bool {
        let mut found = false;
        self.walk(&mut |e| found |= test(e));
        found
    }

    /// True when a number occurs.
    pub fn has_numbers(&self) -> bool {
        self.any(|e| matches!(e, Expr::Num { .. }))
    }

    /// True when it is one variable, constants aside.
    pub fn as_variable(&self) -> Option<&str> {
        match self {
            Expr::Var(name) if !is_constant(name) => Some(name),
            _ => None,
        }
    }

    /// True for infinity and its negative.
    pub fn is_infinite(&self) -> Option<i32> {
        match self {
            Expr::Var(name) if name == "infty" => Some(1),
            Expr::Mul(factors) => match factors.as_slice() {
                [Expr::Num { value, .. }, inner] if *value.denom() == 1.into() => {
                    let sign = if *value.numer() < BigInt::from(0) { -1 } else { 1 };
                    inner.is_infinite().map(|s| s * sign)
                }
                [inner] => inner.is_infinite(),
                _ => None,
            },
            Expr::Add(terms) if terms.len() == 1 => terms[0].is_infinite(),
            _ => None,
        }
    }

    /// Digits after the point when the expression is one decimal, with or without sign, and how many of its
    /// digits are significant.
    pub fn decimal(&self) -> Option<(u32, u32)> {
        match self {
            Expr::Num { value, decimals: Some(d) } => {
                let scaled = value * Rational::from_integer(BigInt::from(10).pow(*d));
                Some((*d, scaled.to_integer().magnitude().to_string().len() as u32))
            }
            _ => None,
        }
    }

    /// The expression with every free occurrence of a variable replaced.
    pub fn replace(&self, name: &str, with: &Expr) -> Expr {
        let all = |list: &[Expr]| list.iter().map(|e| e.replace(name, with)).collect::<Vec<_>>();
        match self {
            Expr::Num { .. } => self.clone(),
            Expr::Var(n) => {
                if n == name {
                    with.clone()
                } else {
                    self.clone()
                }
            }
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

/// Functions of several arguments in brackets.
pub(crate) const LISTED: [&str; 5] = ["max", "min", "gcd", "lcm", "binom"];

/// The function of a name in LaTeX or in plain text.
pub(crate) fn function(name: &str) -> Option<&'static str> {
    lexicon::look(Kind::Function, name)
}

/// True for the name of a function.
pub(crate) fn is_function(name: &str) -> bool {
    function(name).is_some() || name == "diag"
}
