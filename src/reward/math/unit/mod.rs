//! Units: what they measure, how large they are, and the words for them.
//!
//! A unit is a product of powers of named units; every name has its prefixes, and some names mean several things
//! (a ton, an ounce, C). A [`Measure`] keeps all its readings: two amounts are equal when they are so in one of them.

mod agree;
mod define;
mod dimension;
mod language;
mod lookup;
mod money;
mod other;
mod si;

pub(super) use agree::same;
pub use dimension::Dimension;
pub(super) use language::{english, is_dense};
pub(super) use lookup::{folded, is_sign, known, readings, singular};
pub(super) use money::{CURRENCIES, currency, money};

use super::Rational;

/// What stands behind a number.
#[derive(Clone, PartialEq, Debug)]
pub enum Unit {
    /// Percent.
    Percent,
    /// Degrees of arc.
    Degree,
    /// A measure, an amount of money, or a rate of counted things.
    Measure(Measure),
    /// The digits and the base they were written in.
    Base(String, u32),
    /// Any other word, in singular and lower case: apples, ways, points.
    Word(String),
}

/// One thing a unit may mean.
#[derive(Clone, PartialEq, Debug)]
pub struct Reading {
    /// What it measures.
    pub(super) dimension: Dimension,
    /// Its size in SI units, without the power of pi.
    pub(super) size: Rational,
    /// The power of pi in its size.
    pub(super) pi: i8,
    /// Where its zero lies, in SI units: the degrees of temperatures.
    pub(super) zero: Option<Rational>,
    /// Measured or irrational: compared to the digits that are written.
    pub(super) rough: bool,
    /// Currencies and counted things, with their powers, in the order of their names.
    pub(super) things: Vec<(String, i8)>,
}

/// What a unit may mean, the usual meaning first.
#[derive(Clone, PartialEq, Debug)]
pub struct Measure(pub(super) Vec<Reading>);

/// Most readings of one unit that are followed.
const MAX_READINGS: usize = 24;

impl Measure {
    /// True for a measure of lengths, times, forces and so on, and no money or counted things.
    pub fn is_physical(&self) -> bool {
        self.0.first().is_some_and(|r| r.dimension != dimension::NONE && r.things.is_empty())
    }
}

impl Reading {
    /// The number one.
    pub(super) fn one() -> Self {
        Reading {
            dimension: dimension::NONE,
            size: Rational::from_integer(1.into()),
            pi: 0,
            zero: None,
            rough: false,
            things: Vec::new(),
        }
    }

    /// A currency or a counted thing.
    pub(super) fn thing(name: &str) -> Self {
        Reading { things: vec![(name.to_owned(), 1)], ..Reading::one() }
    }

    /// The size without dimension or sort: the same quantity in SI units.
    pub(super) fn in_si(&self) -> Self {
        Reading { size: Rational::from_integer(1.into()), zero: None, ..self.clone() }
    }

    /// True for a measure of `other`'s kind.
    pub(super) fn is_like(&self, other: &Reading) -> bool {
        self.dimension == other.dimension && self.things == other.things && self.pi == other.pi
    }

    /// True for the unit of money or of counted things alone.
    pub(super) fn is_counted(&self) -> bool {
        self.dimension == dimension::NONE && !self.things.is_empty()
    }

    /// True for a part of a whole: percent, parts per million.
    pub(super) fn is_share(&self) -> bool {
        self.dimension == dimension::NONE && self.things.is_empty()
    }

    fn power(&self, power: i8) -> Option<Self> {
        let mut dimension = self.dimension;
        for d in &mut dimension {
            *d = d.checked_mul(power)?;
        }
        let things: Option<Vec<_>> =
            self.things.iter().map(|(n, p)| Some((n.clone(), p.checked_mul(power)?))).collect();
        Some(Reading {
            dimension,
            size: self.size.pow(i32::from(power)),
            pi: self.pi.checked_mul(power)?,
            // Only a temperature by itself counts from a zero of its own.
            zero: self.zero.clone().filter(|_| power == 1),
            rough: self.rough,
            things: things?,
        })
    }

    fn times(&self, other: &Reading) -> Option<Self> {
        let mut dimension = self.dimension;
        for (d, e) in dimension.iter_mut().zip(other.dimension) {
            *d = d.checked_add(e)?;
        }
        let mut things = self.things.clone();
        for (name, power) in &other.things {
            match things.iter_mut().find(|t| t.0 == *name) {
                Some(t) => t.1 = t.1.checked_add(*power)?,
                None => things.push((name.clone(), *power)),
            }
        }
        things.retain(|t| t.1 != 0);
        things.sort();
        Some(Reading {
            dimension,
            size: &self.size * &other.size,
            pi: self.pi.checked_add(other.pi)?,
            zero: None,
            rough: self.rough || other.rough,
            things,
        })
    }
}

impl Measure {
    /// A plain number: what products of units begin with.
    pub(super) fn one() -> Self {
        Measure(vec![Reading::one()])
    }

    /// Times a number.
    pub(super) fn scaled(mut self, by: &Rational) -> Self {
        for r in &mut self.0 {
            r.size *= by;
        }
        self
    }

    /// Times a power of `other`.
    pub(super) fn times(&self, other: &[Reading], power: i8) -> Option<Self> {
        let one = *self == Measure::one();
        let mut all = Vec::new();
        for b in other {
            let b = b.power(power)?;
            for a in &self.0 {
                let product = if one { b.clone() } else { a.times(&b)? };
                if !all.contains(&product) && all.len() < MAX_READINGS {
                    all.push(product);
                }
            }
        }
        (!all.is_empty()).then_some(Measure(all))
    }

    /// The usual meaning.
    pub(super) fn first(&self) -> &Reading {
        // A measure has at least one reading.
        &self.0[0]
    }
}

/// The unit that one name says, by itself.
pub(super) fn named(name: &str) -> Option<Unit> {
    let found = readings(name)?;
    Some(match found.first()? {
        r if r.is_share() && r.size == Rational::new(1.into(), 100.into()) => Unit::Percent,
        r if r.dimension == dimension::TURN && r.pi == 1 && r.size == Rational::new(1.into(), 180.into()) => {
            Unit::Degree
        }
        _ => Unit::Measure(Measure(found)),
    })
}

impl Unit {
    /// The unit as a measure, where it is one.
    pub(super) fn measure(&self) -> Option<Measure> {
        match self {
            Unit::Measure(m) => Some(m.clone()),
            Unit::Percent => readings("%").map(Measure),
            Unit::Degree => readings("deg").map(Measure),
            Unit::Word(w) => Some(Measure(vec![Reading::thing(w)])),
            Unit::Base(..) => None,
        }
    }
}

/// True when two words for counted things may mean the same: one names it more closely.
pub(super) fn same_word(a: &str, b: &str) -> bool {
    let last = |t: &str| t.rsplit(' ').next().unwrap_or(t).to_owned();
    let first = |t: &str| t.split(' ').next().unwrap_or(t).to_owned();
    a == b || last(a) == last(b) || first(a) == first(b) || last(a) == first(b) || first(a) == last(b)
}
