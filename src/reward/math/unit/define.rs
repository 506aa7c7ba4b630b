//! How a unit is written down in the tables.

use num_bigint::BigInt;

use super::Reading;
use super::dimension::Dimension;
use crate::reward::math::Rational;

/// Which prefixes a unit takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefixes {
    /// None.
    Bare,
    /// All of the SI.
    All,
    /// Those for thousand and above.
    Large,
    /// Those below one.
    Small,
    /// Those for thousand and above, and the powers of 1024.
    Binary,
}

/// One unit: signs (told by case), names (singular, without case), dimension and size in SI units.
pub(super) struct Def {
    pub(super) signs: &'static [&'static str],
    pub(super) names: &'static [&'static str],
    pub(super) dimension: Dimension,
    pub(super) prefixes: Prefixes,
    size: (i128, i128, i32),
    pi: i8,
    zero: (i64, i64),
    rough: bool,
}

/// A unit of `over / under` SI units.
pub(super) const fn unit(
    signs: &'static [&'static str],
    names: &'static [&'static str],
    dimension: Dimension,
    over: i128,
    under: i128,
) -> Def {
    let size = (over, under, 0);
    Def { signs, names, dimension, prefixes: Prefixes::Bare, size, pi: 0, zero: (0, 1), rough: false }
}

impl Def {
    /// With prefixes.
    pub(super) const fn takes(mut self, prefixes: Prefixes) -> Self {
        self.prefixes = prefixes;
        self
    }

    /// Times a power of ten.
    pub(super) const fn ten(mut self, exponent: i32) -> Self {
        self.size.2 = exponent;
        self
    }

    /// Times a power of pi.
    pub(super) const fn pi(mut self, power: i8) -> Self {
        self.pi = power;
        self
    }

    /// Its zero, in SI units.
    pub(super) const fn zero(mut self, over: i64, under: i64) -> Self {
        self.zero = (over, under);
        self
    }

    /// Measured, or with so many digits that nobody writes them all: compared to the digits that are written.
    pub(super) const fn rough(mut self) -> Self {
        self.rough = true;
        self
    }

    /// The unit as one reading of its signs.
    pub(super) fn reading(&self) -> Reading {
        let ten = Rational::from_integer(BigInt::from(10)).pow(self.size.2);
        Reading {
            dimension: self.dimension,
            size: Rational::new(self.size.0.into(), self.size.1.into()) * ten,
            pi: self.pi,
            zero: (self.zero.0 != 0).then(|| Rational::new(self.zero.0.into(), self.zero.1.into())),
            rough: self.rough,
            things: Vec::new(),
        }
    }
}
