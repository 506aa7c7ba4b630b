//! Units: their names and signs, what they measure, and how large they are.
//!
//! A row is `common|other|rare, name, dimension, size, zero, prefixes, sign|..., name|...`. Sizes and zeros are in SI
//! units: a whole number, a decimal, a ratio, with a power of ten behind `e` and of pi behind `pi`. A size that is
//! measured, or that nobody writes in full, begins with `~`. Of rows that share a name the more common is meant first.

use std::collections::HashMap;
use std::sync::LazyLock;

use num_bigint::BigInt;

use super::{Kind, folded, is, look, rows};
use crate::reward::math::Rational;

/// The rows of units.
pub(super) const TABLE: &str = include_str!("units.tsv");

/// Base quantities, as their units are written in a dimension: those of the SI, angle, information, level; then tags
/// that keep apart units of one dimension that measure different things.
pub const AXES: [&str; 14] =
    ["m", "kg", "s", "A", "K", "mol", "cd", "rad", "bit", "bel", "cycle", "decay", "absorbed", "equivalent"];

/// Powers of the base quantities, in the order of [`AXES`].
pub type Dimension = [i8; AXES.len()];

/// One meaning of a name.
#[derive(Clone, PartialEq, Debug)]
pub struct Unit {
    /// The name in the table, without a prefix.
    pub name: &'static str,
    /// What it measures.
    pub dimension: Dimension,
    /// Its size in SI units, without the power of pi.
    pub size: Rational,
    /// The power of pi in its size.
    pub pi: i8,
    /// Where its zero lies, in SI units: the degrees of temperatures.
    pub zero: Option<Rational>,
    /// Measured or irrational: compared to the digits that are written.
    pub rough: bool,
}

struct Row {
    unit: Unit,
    prefixes: &'static str,
    signs: &'static str,
    names: &'static str,
}

impl Row {
    /// `None` for a line with a cell that does not parse.
    fn read(line: &'static str) -> Option<Row> {
        let cells: Vec<&'static str> = line.split('\t').collect();
        let cell = |n: usize| cells.get(n).copied().unwrap_or_default();
        let (size, rough) = cell(3).strip_prefix('~').map_or((cell(3), false), |s| (s, true));
        let (size, pi) = factors(size)?;
        let zero = if cell(4).is_empty() { None } else { Some(number(cell(4))?) };
        let unit = Unit { name: cell(1), dimension: dimension(cell(2))?, size, pi, zero, rough };
        Some(Row { unit, prefixes: cell(5), signs: cell(6), names: cell(7) })
    }

    /// True where the unit takes the prefix of a power `base^power`.
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

/// `m2 kg s-2`, `1`.
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

/// The product of numbers and powers of pi: `1/180 pi`.
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

/// `12`, `0.3048`, `5/9`, `1602176634e-28`.
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

type Names = HashMap<String, Vec<Unit>>;

static SIGNS: LazyLock<Names> = LazyLock::new(|| expand(Kind::PrefixSign, |r| r.signs, |t| t.to_owned()));
static NAMES: LazyLock<Names> = LazyLock::new(|| expand(Kind::Prefix, |r| r.names, |t| folded(t).into_owned()));

/// All units by their signs or names, with prefixes; a name by itself goes before one with a prefix.
fn expand(prefixes: Kind, names: impl Fn(&Row) -> &'static str, key: impl Fn(&str) -> String) -> Names {
    let (mut own, mut made) = (Names::new(), Names::new());
    let prefixes: Vec<(u32, i32, &[&str])> = rows(prefixes)
        .iter()
        .filter_map(|(power, forms)| {
            let (base, power) = power.split_once('e')?;
            Some((if base == "2" { 2 } else { 10 }, power.parse().ok()?, &**forms))
        })
        .collect();
    for row in TABLE.lines().filter_map(Row::read) {
        for name in names(&row).split('|').filter(|n| !n.is_empty()) {
            own.entry(key(name)).or_default().push(row.unit.clone());
            for (base, power, forms) in prefixes.iter().filter(|p| row.takes(p.0, p.1)) {
                let size = Rational::from_integer((*base).into()).pow(*power);
                for form in forms.iter().filter(|f| cyrillic(f) == cyrillic(name)) {
                    let unit = Unit { size: &row.unit.size * &size, ..row.unit.clone() };
                    made.entry(key(&format!("{form}{name}"))).or_default().push(unit);
                }
            }
        }
    }
    for (name, units) in made {
        own.entry(name).or_insert(units);
    }
    own
}

fn cyrillic(text: &str) -> bool {
    text.chars().any(|c| ('\u{400}'..'\u{500}').contains(&c))
}

/// What a sign, told by case, or a name in singular or plural may mean, the usual first; nothing for any other word.
pub fn units(text: &str) -> &'static [Unit] {
    let text = text.trim().trim_end_matches('.');
    let sign = |s: &str| SIGNS.get(s).map(Vec::as_slice);
    sign(text).or_else(|| named(&folded(text))).or_else(|| sign(look(Kind::Case, text)?)).unwrap_or_default()
}

/// The usual meaning of a sign or a name.
pub fn unit(text: &str) -> Option<&'static Unit> {
    units(text).first()
}

/// True for a sign that is a unit wherever it stands right behind a number: no variable is called `cm`.
pub fn is_sign(text: &str) -> bool {
    let prefixed = || {
        let mut letters = text.chars();
        let thousand = matches!(letters.next(), Some('k' | 'm' | 'u' | '\u{b5}'));
        let unit = letters.as_str();
        // `mR` and `mP` are products more often than units.
        thousand && unit.starts_with(char::is_uppercase) && unit != "R" && unit != "P" && SIGNS.contains_key(text)
    };
    is(Kind::Sign, text) || prefixed()
}

fn named(name: &str) -> Option<&'static [Unit]> {
    let find = |n: &str| NAMES.get(n).map(Vec::as_slice);
    // The first word of several may be the plural: degrees Celsius.
    let first = || {
        let (first, rest) = name.split_once(' ')?;
        find(&format!("{} {rest}", first.strip_suffix('s')?))
    };
    let foreign = || {
        let all = rows(Kind::Ending).iter().flat_map(|(one, many)| many.iter().map(move |m| (*one, *m)));
        all.filter(|(_, many)| cyrillic(many) == cyrillic(name)).find_map(|(one, many)| {
            let stem = name.strip_suffix(many).filter(|s| s.chars().count() > 2 + usize::from(s.is_ascii()))?;
            find(&format!("{stem}{}", if one == "-" { "" } else { one }))
        })
    };
    find(name).or_else(first).or_else(|| find(name.strip_suffix('s')?)).or_else(foreign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(text: &str) -> Rational {
        number(text).expect("a number")
    }

    #[test]
    fn every_unit_has_a_dimension_and_a_size() {
        for line in TABLE.lines() {
            let row = Row::read(line).unwrap_or_else(|| panic!("{line}"));
            assert!(row.unit.size > ratio("0"), "{line}");
            assert!(matches!(row.prefixes, "" | "all" | "large" | "small" | "binary"), "{line}");
            for forms in [row.signs, row.names] {
                let all: Vec<String> = forms.split('|').filter(|f| !f.is_empty()).map(str::to_owned).collect();
                let mut once = all.clone();
                once.sort();
                once.dedup();
                assert_eq!(all.len(), once.len(), "{line}");
            }
        }
    }

    #[test]
    fn units_of_exact_size() {
        for (name, size) in [
            ("km", "1000"),
            ("kilometres", "1000"),
            ("Kilometern", "1000"),
            ("in", "0.0254"),
            ("feet", "0.3048"),
            ("minutes", "60"),
            ("khz", "1000"),
            ("KiB", "8192"),
            ("degrees Fahrenheit", "5/9"),
            ("\u{441}\u{435}\u{43a}\u{443}\u{43d}\u{434}\u{44b}", "1"),
        ] {
            assert_eq!(unit(name).map(|u| u.size.clone()), Some(ratio(size)), "{name}");
        }
        assert_eq!(unit("deg").map(|u| (u.size.clone(), u.pi)), Some((ratio("1/180"), 1)));
        assert_eq!(unit("\u{b0}C").and_then(|u| u.zero.clone()), Some(ratio("273.15")));
    }

    #[test]
    fn names_of_several_units_mean_the_usual_first() {
        let names = |t: &str| units(t).iter().map(|u| u.name).collect::<Vec<_>>();
        assert_eq!(names("C"), ["coulomb", "celsius (C)"]);
        assert_eq!(names("pounds"), ["pound", "pound force"]);
        assert_eq!(names("lb"), ["pound", "pound force"]);
        assert_eq!(names("ton"), ["ton", "us ton", "imperial ton"]);
        assert!(names("apples").is_empty() && names("").is_empty());
    }

    #[test]
    fn case_tells_signs_apart() {
        assert_ne!(unit("mW").map(|u| u.size.clone()), unit("MW").map(|u| u.size.clone()));
        assert!(is_sign("cm") && is_sign("kW") && !is_sign("mR") && !is_sign("x"));
    }
}
