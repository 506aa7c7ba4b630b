//! Expressions as the published library builds them. Only those operations are computed here that the library computes
//! while it parses.

use num_bigint::BigInt;

use crate::steps::Rational;

/// A scalar expression or a matrix.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Tree {
    /// An integer or a fraction of integers.
    Exact(Rational),
    /// A decimal, as its exact value.
    Float(Rational),
    /// Infinity. The flag is true for positive infinity.
    Infinite(bool),
    /// A division by zero.
    Undefined,
    /// A letter or name. The flag is true for a real variable; the letters of a complex formula are different symbols.
    Symbol(String, bool),
    /// A constant: `e`, `pi`, `i` (written as a capital letter only) or `gamma`.
    Constant(&'static str),
    /// A sum.
    Add(Vec<Tree>),
    /// A product.
    Mul(Vec<Tree>),
    /// A power.
    Pow(Box<Tree>, Box<Tree>),
    /// A known function.
    Call(&'static str, Vec<Tree>),
    /// A function of which only the name is known.
    Apply(String, Vec<Tree>),
    /// Percent of a value.
    Percent(Box<Tree>),
    /// An operator over a variable: body, variable, lower and upper end.
    Bound(Operator, Box<Tree>, Box<Tree>, Box<[Tree; 2]>),
    /// Rows of a matrix.
    Matrix(Vec<Vec<Tree>>),
}

/// Operator that binds a variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operator {
    /// A sum.
    Sum,
    /// A product.
    Product,
    /// A definite integral.
    Integral,
    /// An indefinite integral.
    Primitive,
    /// A limit, from above.
    Limit,
    /// A derivative.
    Derivative,
}

/// Sign of a relation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// Equal.
    Equal,
    /// Less than.
    Less,
    /// Less than or equal.
    AtMost,
    /// Greater than.
    Greater,
    /// Greater than or equal.
    AtLeast,
    /// Not equal.
    Unequal,
}

impl Sign {
    /// Returns the sign of the relation with its sides swapped. Returns `None` for "not equal", which is missing from
    /// the published table.
    pub(super) fn inverse(self) -> Option<Sign> {
        Some(match self {
            Sign::Equal => Sign::Equal,
            Sign::Less => Sign::Greater,
            Sign::AtMost => Sign::AtLeast,
            Sign::Greater => Sign::Less,
            Sign::AtLeast => Sign::AtMost,
            Sign::Unequal => return None,
        })
    }
}

/// The parsed meaning of a formula.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// An expression.
    Tree(Tree),
    /// A relation.
    Relation(Sign, Box<Value>, Box<Value>),
    /// A chain of relations, in the order of writing.
    Chain(Vec<Value>),
    /// A finite set, in the order of writing.
    Set(Vec<Value>),
    /// An ordered list.
    Tuple(Vec<Value>),
    /// An interval: its two ends, with true for each end that is open.
    Interval([Tree; 2], [bool; 2]),
    /// A named set: `R`, `Z`, `Q`, `N`, `C`.
    Named(char),
    /// A union (`+`), intersection (`*`) or difference (`-`) of sets.
    Combined(char, Box<Value>, Box<Value>),
}

/// Returns an integer.
pub(super) fn integer(n: i64) -> Tree {
    Tree::Exact(Rational::from_integer(n.into()))
}

/// Returns a power.
pub(super) fn power(a: Tree, b: Tree) -> Tree {
    Tree::Pow(Box::new(a), Box::new(b))
}

/// Returns a sum. Operands that are sums are merged into it.
pub(super) fn sum(a: Tree, b: Tree) -> Tree {
    let terms = |t| if let Tree::Add(terms) = t { terms } else { vec![t] };
    let mut all = terms(a);
    all.extend(terms(b));
    Tree::Add(all)
}

/// Returns a product. Operands that are products are merged into it.
pub(super) fn product(a: Tree, b: Tree) -> Tree {
    let factors = |t| if let Tree::Mul(factors) = t { factors } else { vec![t] };
    let mut all = factors(a);
    all.extend(factors(b));
    Tree::Mul(all)
}

/// Returns the negative of an expression: a number directly, otherwise a product.
pub(super) fn negative(t: Tree) -> Tree {
    match t {
        Tree::Exact(x) => Tree::Exact(-x),
        Tree::Float(x) => Tree::Float(-x),
        Tree::Infinite(positive) => Tree::Infinite(!positive),
        t => product(integer(-1), t),
    }
}

/// Returns a quotient: for integers a fraction directly, otherwise a product.
pub(super) fn quotient(a: Tree, b: Tree) -> Tree {
    if let (Some(x), Some(y)) = (a.whole(), b.whole()) {
        return if *y == BigInt::from(0) { Tree::Undefined } else { Tree::Exact(Rational::new(x.clone(), y.clone())) };
    }
    product(a, power(b, integer(-1)))
}

/// Combines factors side by side. An integer before a positive number is a mixed number, even if both are integers.
pub(super) fn beside(a: Tree, b: Tree) -> Tree {
    let zero = Rational::from_integer(0.into());
    if let (Some(n), Tree::Exact(f)) = (a.whole(), &b)
        && *f > zero
    {
        let n = Rational::from_integer(n.clone());
        return Tree::Exact(if n < zero { n - f } else { n + f });
    }
    product(a, b)
}

impl Tree {
    /// Returns the value of an integer.
    pub(super) fn whole(&self) -> Option<&BigInt> {
        match self {
            Tree::Exact(x) if x.is_integer() => Some(x.numer()),
            _ => None,
        }
    }

    /// Returns true for a plain number.
    pub(super) fn is_number(&self) -> bool {
        matches!(self, Tree::Exact(_) | Tree::Float(_) | Tree::Infinite(_))
    }

    /// Returns the direct subexpressions.
    pub(super) fn parts(&self) -> Vec<&Tree> {
        match self {
            Tree::Add(list) | Tree::Mul(list) | Tree::Call(_, list) | Tree::Apply(_, list) => list.iter().collect(),
            Tree::Pow(a, b) => vec![a, b],
            Tree::Percent(a) => vec![a],
            Tree::Bound(_, body, var, ends) => vec![body, var, &ends[0], &ends[1]],
            Tree::Matrix(rows) => rows.iter().flatten().collect(),
            _ => Vec::new(),
        }
    }

    /// Returns true if some subexpression satisfies `test`.
    pub(super) fn any(&self, test: &dyn Fn(&Tree) -> bool) -> bool {
        test(self) || self.parts().into_iter().any(|p| p.any(test))
    }

    /// Returns the number of subexpressions, including this one.
    pub(super) fn size(&self) -> u64 {
        1 + self.parts().into_iter().map(Tree::size).sum::<u64>()
    }

    /// Adds the free symbols to `found`, each once.
    pub(super) fn symbols(&self, found: &mut Vec<(String, bool)>) {
        match self {
            Tree::Symbol(name, real) => {
                let symbol = (name.clone(), *real);
                if !found.contains(&symbol) {
                    found.push(symbol);
                }
            }
            t => t.parts().into_iter().for_each(|p| p.symbols(found)),
        }
    }

    /// Returns true if the expression consists only of letters. Such an expression may be on the left of an assignment.
    pub(super) fn is_of_letters(&self) -> bool {
        match self {
            Tree::Symbol(..) => true,
            // The exponent -1 does not count as a part that is not a letter.
            Tree::Pow(a, b) if **b == integer(-1) => a.parts().into_iter().all(Tree::is_of_letters),
            // The base of a logarithm is also one of its parts, and it is not a letter.
            Tree::Call("log", arguments) if arguments.len() == 1 => false,
            t => {
                let parts = t.parts();
                !parts.is_empty() && parts.into_iter().all(Tree::is_of_letters)
            }
        }
    }
}
