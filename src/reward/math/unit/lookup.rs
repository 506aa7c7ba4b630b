//! The names of units.

use std::collections::HashMap;
use std::sync::LazyLock;

use num_bigint::BigInt;

use super::Reading;
use super::define::{Def, Prefixes};
use super::money;
use super::other::{MATTER, RATES, SPACE};
use super::si::{BINARY, PREFIXES, SI};
use crate::reward::math::Rational;

type Names = HashMap<String, Vec<Reading>>;

/// Signs, told by case, and names, without case and accents.
static SIGNS: LazyLock<Names> = LazyLock::new(|| expand(|d| d.signs, |p| p.0, |b| b.0, |t| t.to_owned()));
static NAMES: LazyLock<Names> = LazyLock::new(|| expand(|d| d.names, |p| p.1, |b| b.1, folded));

fn expand(
    names: impl Fn(&Def) -> &'static [&'static str],
    prefixes: impl Fn(&(&'static [&'static str], &'static [&'static str], i32)) -> &'static [&'static str],
    binary: impl Fn(&(&'static str, &'static str)) -> &'static str,
    fold: impl Fn(&str) -> String,
) -> Names {
    let defs = || [SI, SPACE, MATTER, RATES].into_iter().flatten();
    let (mut own, mut made) = (Names::new(), Names::new());
    for def in defs() {
        for name in names(def) {
            own.entry(fold(name)).or_default().push(def.reading());
        }
    }
    for def in defs().filter(|d| d.prefixes != Prefixes::Bare) {
        let sized = |size: Rational| {
            let mut reading = def.reading();
            reading.size *= size;
            reading
        };
        for name in names(def) {
            for prefix in &PREFIXES {
                let fits = match def.prefixes {
                    Prefixes::Large | Prefixes::Binary => prefix.2 >= 3,
                    Prefixes::Small => prefix.2 < 0,
                    _ => true,
                };
                if !fits {
                    continue;
                }
                let size = Rational::from_integer(BigInt::from(10)).pow(prefix.2);
                for p in prefixes(prefix) {
                    // Prefix and unit in one script.
                    if cyrillic(p) == cyrillic(name) {
                        made.entry(fold(&format!("{p}{name}"))).or_default().push(sized(size.clone()));
                    }
                }
            }
            if def.prefixes == Prefixes::Binary && !cyrillic(name) {
                for (n, b) in (1..).zip(&BINARY) {
                    let size = Rational::from_integer(BigInt::from(1024).pow(n));
                    made.entry(fold(&format!("{}{name}", binary(b)))).or_default().push(sized(size));
                }
            }
        }
    }
    for (name, readings) in made {
        own.entry(name).or_insert(readings);
    }
    own
}

fn cyrillic(text: &str) -> bool {
    text.chars().any(|c| ('\u{400}'..'\u{500}').contains(&c))
}

/// A name without case, accents, hyphens and points.
pub(in crate::reward::math) fn folded(text: &str) -> String {
    let plain = |c: char| match c {
        '\u{e0}'..='\u{e5}' => 'a',
        '\u{e7}' => 'c',
        '\u{e8}'..='\u{eb}' => 'e',
        '\u{ec}'..='\u{ef}' => 'i',
        '\u{f1}' => 'n',
        '\u{f2}'..='\u{f6}' => 'o',
        '\u{f9}'..='\u{fc}' => 'u',
        '-' | '\u{2011}' | '\u{2010}' => ' ',
        c => c,
    };
    text.to_lowercase().chars().filter(|c| *c != '.').map(plain).collect()
}

/// Signs that are often written in another case.
const CASES: [(&str, &str); 38] = [
    ("km", "km"),
    ("kg", "kg"),
    ("cm", "cm"),
    ("mm", "mm"),
    ("kgs", "kg"),
    ("kms", "km"),
    ("cms", "cm"),
    ("gms", "g"),
    ("gm", "g"),
    ("hz", "Hz"),
    ("khz", "kHz"),
    ("mhz", "MHz"),
    ("ghz", "GHz"),
    ("kwh", "kWh"),
    ("mwh", "MWh"),
    ("kw", "kW"),
    ("kj", "kJ"),
    ("kn", "kN"),
    ("kv", "kV"),
    ("kcal", "kcal"),
    ("kpa", "kPa"),
    ("mpa", "MPa"),
    ("ml", "mL"),
    ("cl", "cL"),
    ("dl", "dL"),
    ("sec", "s"),
    ("secs", "s"),
    ("hr", "h"),
    ("hrs", "h"),
    ("min", "min"),
    ("mins", "min"),
    ("lb", "lb"),
    ("lbs", "lb"),
    ("oz", "oz"),
    ("ft", "ft"),
    ("yd", "yd"),
    ("mol", "mol"),
    ("mmhg", "mmHg"),
];

/// What a sign or a name may mean; `None` for any other word.
pub(in crate::reward::math) fn readings(text: &str) -> Option<Vec<Reading>> {
    let text = text.trim().trim_end_matches('.');
    if let Some(found) = SIGNS.get(text) {
        return Some(found.clone());
    }
    let name = folded(text);
    if let Some(mut found) = by_name(&name) {
        // Pounds are weighed and spent.
        found.extend(money::readings(&name).unwrap_or_default());
        return Some(found);
    }
    if let Some((_, sign)) = CASES.iter().find(|c| c.0 == name) {
        return SIGNS.get(*sign).cloned();
    }
    money::readings(&name)
}

fn by_name(name: &str) -> Option<Vec<Reading>> {
    let find = |n: &str| NAMES.get(n).cloned();
    if let Some(found) = find(name) {
        return Some(found);
    }
    // The first word of several may be the plural: pounds per square inch are cut before, but degrees Celsius.
    if let Some((first, rest)) = name.split_once(' ')
        && let Some(one) = first.strip_suffix('s')
        && let Some(found) = find(&format!("{one} {rest}"))
    {
        return Some(found);
    }
    if let Some(found) = name.strip_suffix('s').and_then(find) {
        return Some(found);
    }
    // Plurals of other languages: metri, Metern, Tonnen.
    for (ending, singular) in [("i", "o"), ("e", "a"), ("n", "")] {
        let stem = name.strip_suffix(ending).filter(|s| s.len() > 3);
        if let Some(found) = stem.and_then(|s| find(&format!("{s}{singular}"))) {
            return Some(found);
        }
    }
    if cyrillic(name) {
        let endings = [
            "\u{43e}\u{432}",
            "\u{430}\u{43c}\u{438}",
            "\u{430}",
            "\u{44b}",
            "\u{438}",
            "\u{443}",
            "\u{44f}",
            "\u{44c}",
            "\u{435}\u{439}",
        ];
        return endings.iter().find_map(|e| {
            let stem = name.strip_suffix(e)?;
            find(stem).or_else(|| find(&format!("{stem}\u{44c}")))
        });
    }
    None
}

/// True for a sign or a name of a unit.
pub(in crate::reward::math) fn known(text: &str) -> bool {
    readings(text).is_some()
}

/// True for a sign that is a unit wherever it stands right behind a number: no variable is called `cm`.
pub(in crate::reward::math) fn is_sign(text: &str) -> bool {
    const LOWER: [&str; 34] = [
        "km", "cm", "mm", "dm", "nm", "pm", "um", "fm", "kg", "mg", "ug", "ms", "ns", "ps", "us", "ml", "cl", "dl",
        "hl", "lb", "oz", "ft", "yd", "mi", "gal", "lbs", "mol", "min", "mph", "rpm", "rad", "eV", "bar", "atm",
    ];
    const UPPER: [&str; 22] = [
        "MW", "GW", "TW", "MJ", "GJ", "TJ", "MV", "GV", "MB", "GB", "TB", "PB", "KB", "MHz", "GHz", "THz", "MPa",
        "GPa", "MeV", "GeV", "TeV", "Mbps",
    ];
    const SMALL: [&str; 9] = ["nF", "pF", "nC", "pC", "nA", "nH", "dB", "hPa", "nM"];
    let prefixed = || {
        let mut letters = text.chars();
        let thousand = matches!(letters.next(), Some('k' | 'm' | 'u' | '\u{b5}'));
        let unit = letters.as_str();
        thousand && unit.starts_with(char::is_uppercase) && unit != "R" && unit != "P" && SIGNS.contains_key(text)
    };
    LOWER.contains(&text) || UPPER.contains(&text) || SMALL.contains(&text) || prefixed()
}

/// A word in singular and lower case.
pub(in crate::reward::math) fn singular(word: &str) -> String {
    let lower = word.to_lowercase();
    const IRREGULAR: [(&str, &str); 9] = [
        ("people", "person"),
        ("men", "man"),
        ("women", "woman"),
        ("children", "child"),
        ("mice", "mouse"),
        ("dice", "die"),
        ("geese", "goose"),
        ("teeth", "tooth"),
        ("halves", "half"),
    ];
    if let Some((_, one)) = IRREGULAR.iter().find(|p| p.0 == lower) {
        return (*one).to_owned();
    }
    if let Some(stem) = lower.strip_suffix("ies").filter(|s| s.len() > 2) {
        return format!("{stem}y");
    }
    if lower.len() > 3 && lower.ends_with('s') && !lower.ends_with("ss") {
        let stem = &lower[..lower.len() - 1];
        let es = ["xe", "che", "she", "sse"].iter().any(|e| stem.ends_with(e));
        return if es { stem[..stem.len() - 1].to_owned() } else { stem.to_owned() };
    }
    lower
}
