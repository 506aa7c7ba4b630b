//! Units: their names, signs, dimensions and sizes.
//!
//! A row is `common|other|rare, name, dimension, size, zero, prefixes, sign|..., name|...`. Sizes and zeros are in SI
//! units. They are written as a whole number, a decimal or a ratio, with a power of ten after `e` and a power of pi
//! after `pi`. A size begins with `~` if it is a measured or rounded number. If rows share a name, the more common unit
//! is used.

use std::collections::HashMap;
use std::sync::LazyLock;

use num_bigint::BigInt;

use super::{Kind, folded, is, rows};
use crate::steps::Rational;

/// Base quantities, written as their units in a dimension: those of the SI, angle, information, level and money. The
/// last four entries are tags. They separate units that have the same dimension but measure different things.
pub const AXES: [&str; 15] =
    ["m", "kg", "s", "A", "K", "mol", "cd", "rad", "bit", "bel", "$", "cycle", "decay", "absorbed", "equivalent"];

/// Powers of the base quantities, in the order of [`AXES`].
pub type Dimension = [i8; AXES.len()];

/// A unit of measurement.
#[derive(Clone, PartialEq, Debug)]
pub struct Unit {
    /// Name of the unit in the table, without a prefix.
    pub name: &'static str,
    /// Dimension of the quantity that the unit measures.
    pub dimension: Dimension,
    /// Size of the unit in SI units, without the power of pi.
    pub size: Rational,
    /// Power of pi in the unit's size.
    pub pi: i8,
    /// Position of the scale's zero in SI units, for temperatures.
    pub zero: Option<Rational>,
}

struct Row {
    unit: Unit,
    prefixes: &'static str,
    signs: &'static str,
    names: &'static str,
}

impl Row {
    /// Parses one line of the table. Returns `None` if a cell does not parse.
    fn read(line: &'static str) -> Option<Row> {
        let cells: Vec<&'static str> = line.split('\t').collect();
        let cell = |n: usize| cells.get(n).copied().unwrap_or_default();
        let (size, pi) = factors(cell(3).trim_start_matches('~'))?;
        let zero = if cell(4).is_empty() { None } else { Some(number(cell(4))?) };
        let unit = Unit { name: cell(1), dimension: dimension(cell(2))?, size, pi, zero };
        Some(Row { unit, prefixes: cell(5), signs: cell(6), names: cell(7) })
    }

    /// Returns true if the unit accepts the prefix for `base^power`.
    fn takes(&self, base: u32, power: i32) -> bool {
        match self.prefixes {
            "all" => base == 10,
            "large" => base == 10 && power >= 3,
            "small" => base == 10 && power < 0,
            "binary" => base == 2 || power >= 3,
            _ => false,
        }
    }
}

/// Parses a dimension: `m2 kg s-2`, `1`.
fn dimension(text: &str) -> Option<Dimension> {
    let mut out = [0; AXES.len()];
    for factor in text.split(' ').filter(|f| *f != "1") {
        let end = factor.find(|c: char| c == '-' || c.is_ascii_digit()).unwrap_or(factor.len());
        let (axis, power) = factor.split_at(end);
        let at = AXES.iter().position(|a| *a == axis)?;
        out[at] += if power.is_empty() { 1 } else { power.parse().ok()? };
    }
    Some(out)
}

/// Parses a product of numbers and powers of pi: `1/180 pi`.
fn factors(text: &str) -> Option<(Rational, i8)> {
    let (mut size, mut pi) = (Rational::from_integer(1.into()), 0);
    for factor in text.split(' ') {
        match factor.strip_prefix("pi") {
            Some("") => pi += 1,
            Some(power) => pi += power.parse::<i8>().ok()?,
            None => size *= number(factor)?,
        }
    }
    Some((size, pi))
}

/// Parses a number: `12`, `0.3048`, `5/9`, `1602176634e-28`.
fn number(text: &str) -> Option<Rational> {
    if let Some((over, under)) = text.split_once('/') {
        return Some(Rational::new(over.parse().ok()?, under.parse().ok()?));
    }
    let (digits, power) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let value: BigInt = format!("{whole}{decimals}").parse().ok()?;
    let ten = Rational::from_integer(10.into());
    Some(Rational::from_integer(value) * ten.pow(power.parse::<i32>().ok()? - decimals.len() as i32))
}

/// Units by sign and by name, and the prefixes of signs and of names. A prefix is its form, its base and its power.
struct Names {
    rows: Vec<Row>,
    signs: HashMap<String, usize>,
    names: HashMap<String, usize>,
    prefix_signs: Vec<(&'static str, u32, i32)>,
    prefix_names: Vec<(&'static str, u32, i32)>,
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let rows: Vec<Row> = include_str!("units.tsv").lines().filter_map(Row::read).collect();
    let (mut signs, mut names) = (HashMap::new(), HashMap::new());
    for (n, row) in rows.iter().enumerate() {
        for sign in row.signs.split('|') {
            signs.entry(sign.to_owned()).or_insert(n);
        }
        for name in row.names.split('|') {
            names.entry(folded(name).into_owned()).or_insert(n);
        }
    }
    let (prefix_signs, prefix_names) = (prefixes(Kind::PrefixSign), prefixes(Kind::Prefix));
    Names { rows, signs, names, prefix_signs, prefix_names }
});

fn prefixes(kind: Kind) -> Vec<(&'static str, u32, i32)> {
    let row = |(power, forms): &'static super::Row| {
        let (base, power) = power.split_once('e')?;
        let (base, power) = (if base == "2" { 2 } else { 10 }, power.parse().ok()?);
        Some(forms.iter().map(move |form| (*form, base, power)))
    };
    rows(kind).iter().filter_map(row).flatten().collect()
}

/// Returns the unit with exactly this name, otherwise the unit with a prefix before its name.
fn find(text: &str, own: &HashMap<String, usize>, prefixes: &[(&str, u32, i32)]) -> Option<Unit> {
    if text.is_empty() {
        return None;
    }
    let row = |name: &str| own.get(name).and_then(|n| NAMES.rows.get(*n));
    let made = || {
        prefixes.iter().find_map(|(form, base, power)| {
            let row = row(text.strip_prefix(form)?).filter(|r| r.takes(*base, *power))?;
            let size = Rational::from_integer((*base).into()).pow(*power) * &row.unit.size;
            Some(Unit { size, ..row.unit.clone() })
        })
    };
    row(text).map(|r| r.unit.clone()).or_else(made)
}

/// Returns the unit for a sign (case matters) or for a name in the singular or plural. Returns `None` for any other
/// word.
pub fn unit(text: &str) -> Option<Unit> {
    let text = text.trim().trim_end_matches('.');
    let sign = |s: &str| find(s, &NAMES.signs, &NAMES.prefix_signs);
    let name = |s: &str| find(s, &NAMES.names, &NAMES.prefix_names);
    let plain = folded(text);
    // The first of several words may be in the plural: degrees Celsius.
    let first = || {
        let (first, rest) = plain.split_once(' ')?;
        name(&format!("{} {rest}", first.strip_suffix('s')?))
    };
    sign(text).or_else(|| name(&plain)).or_else(first).or_else(|| name(plain.strip_suffix('s')?))
}

/// Returns true for a sign that is always a unit directly after a number, because no variable has such a name: `cm`.
pub fn is_sign(text: &str) -> bool {
    let prefixed = || {
        let mut letters = text.chars();
        let thousand = matches!(letters.next(), Some('k' | 'm' | 'u'));
        let unit = letters.as_str();
        // `mR` and `mP` are products more often than units.
        thousand
            && unit.starts_with(char::is_uppercase)
            && !matches!(unit, "R" | "P")
            && find(text, &NAMES.signs, &NAMES.prefix_signs).is_some()
    };
    is(Kind::UnitSign, text) || prefixed()
}
