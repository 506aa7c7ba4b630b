//! Substances by name and by formula: carbon dioxide and `CO_2`.

use super::chemistry::{self, element};
use super::fields::{ions, organic};
use super::math;

/// Names that are no rule's.
const COMMON: [(&str, &str); 36] = [
    ("water", "H2O"),
    ("heavy water", "D2O"),
    ("ammonia", "NH3"),
    ("methane", "CH4"),
    ("ethane", "C2H6"),
    ("propane", "C3H8"),
    ("ethene", "C2H4"),
    ("ethylene", "C2H4"),
    ("ethyne", "C2H2"),
    ("acetylene", "C2H2"),
    ("benzene", "C6H6"),
    ("glucose", "C6H12O6"),
    ("hydrogen peroxide", "H2O2"),
    ("hydrochloric acid", "HCl"),
    ("hydrofluoric acid", "HF"),
    ("hydrobromic acid", "HBr"),
    ("hydroiodic acid", "HI"),
    ("sulfuric acid", "H2SO4"),
    ("sulfurous acid", "H2SO3"),
    ("nitric acid", "HNO3"),
    ("nitrous acid", "HNO2"),
    ("phosphoric acid", "H3PO4"),
    ("carbonic acid", "H2CO3"),
    ("perchloric acid", "HClO4"),
    ("hypochlorous acid", "HClO"),
    ("nitrous oxide", "N2O"),
    ("nitric oxide", "NO"),
    ("ozone", "O3"),
    ("phosphine", "PH3"),
    ("silica", "SiO2"),
    ("quicklime", "CaO"),
    ("slaked lime", "Ca(OH)2"),
    ("table salt", "NaCl"),
    ("baking soda", "NaHCO3"),
    ("caustic soda", "NaOH"),
    ("laughing gas", "N2O"),
];

/// Elements whose gas or liquid has molecules of two atoms.
const PAIRED: [&str; 7] = ["H", "N", "O", "F", "Cl", "Br", "I"];

/// What the second element of a compound of two is called.
const ENDINGS: [(&str, &str); 7] = [
    ("oxide", "O"),
    ("chloride", "Cl"),
    ("fluoride", "F"),
    ("bromide", "Br"),
    ("iodide", "I"),
    ("sulfide", "S"),
    ("nitride", "N"),
];

/// How many atoms; the longer of two that begin alike stands first.
const COUNTS: [(&str, u32); 14] = [
    ("mono", 1),
    ("mon", 1),
    ("di", 2),
    ("tri", 3),
    ("tetra", 4),
    ("tetr", 4),
    ("penta", 5),
    ("pent", 5),
    ("hexa", 6),
    ("hex", 6),
    ("hepta", 7),
    ("hept", 7),
    ("deca", 10),
    ("dec", 10),
];

/// Whether both name one substance, by its formula or its name; an answer may give its name and its formula.
pub(super) fn same(gold: &str, answer: &str) -> bool {
    if gold.len() > MAX || answer.len() > MAX {
        return false;
    }
    one(gold, answer) || several(gold, answer)
}

fn one(gold: &str, answer: &str) -> bool {
    let a = said(gold);
    let group = |t: &str| group(t);
    (!a.is_empty() && said(answer).iter().any(|x| a.contains(x)))
        || organic::same(&bare(gold), &bare(answer)) == Some(true)
        || group(gold).is_some_and(|g| group(answer) == Some(g))
}

/// Whether both list the same substances, in their order; those joined by "and" in any.
fn several(gold: &str, answer: &str) -> bool {
    let members = |t: &str| -> Vec<String> {
        let joined = t.trim_end_matches('.').replace(", and ", ",").replace(" and ", ",").replace("\\text{,}", ",");
        joined.split([',', ';']).map(|m| m.trim().to_owned()).collect()
    };
    let (a, b) = (members(gold), members(answer));
    if a.len() != b.len() || !(2..=6).contains(&a.len()) {
        return false;
    }
    let same = |x: &String, y: &String| x == y || one(x, y);
    if !gold.contains(" and ") {
        return a.iter().zip(&b).all(|(x, y)| same(x, y));
    }
    let mut rest: Vec<&String> = b.iter().collect();
    a.iter().all(|x| rest.iter().position(|y| same(x, y)).map(|n| rest.swap_remove(n)).is_some())
}

/// A functional group by its name or, with its free bond, by its formula.
fn group(text: &str) -> Option<&'static str> {
    const GROUPS: [(&str, &[&str]); 8] = [
        ("OH", &["hydroxyl", "hydroxy", "alcohol"]),
        ("COOH", &["carboxyl", "carboxylic acid", "carboxylic"]),
        ("NH2", &["amino", "amine", "primary amine"]),
        ("CHO", &["aldehyde", "formyl"]),
        ("SH", &["sulfhydryl", "thiol"]),
        ("CH3", &["methyl"]),
        ("CN", &["nitrile", "cyano"]),
        ("NO2", &["nitro"]),
    ];
    let text = math::ascii(text).replace("\\text", "").replace("\\mathrm", "").replace(['{', '}', '$', '_'], "");
    let text = bare(text.trim()).trim().to_owned();
    let named = text.strip_suffix(" group").or(text.strip_suffix(" functional group"));
    let free = text.strip_prefix('-').or(named.map(|n| n.trim_start_matches('-')));
    let name = named.unwrap_or(&text).trim_end_matches(" functional").to_lowercase();
    GROUPS.iter().find(|g| free == Some(g.0) || g.1.contains(&name.as_str())).map(|g| g.0)
}

/// Longest text that is read as a substance.
const MAX: usize = 120;

/// The text without marks and what stands around a name: "the element", "gas".
fn bare(text: &str) -> String {
    const BEFORE: [&str; 12] = [
        "the element ",
        "the compound ",
        "the ",
        "a ",
        "an ",
        "gaseous ",
        "liquid ",
        "solid ",
        "aqueous ",
        "element ",
        "atomic ",
        "elemental ",
    ];
    const BEHIND: [&str; 5] = [" gas", " metal", " atom", " atoms", " molecule"];
    let plain = || {
        let text =
            math::ascii(text).replace("\\text", "").replace("\\mathrm", "").replace("\\equiv", "#").replace("# ", "#");
        text.replace(['{', '}', '$', '_'], "")
    };
    let text = formula(text).unwrap_or_else(plain);
    let mut text = text.trim().trim_end_matches('.');
    while let Some(rest) = BEFORE.iter().find_map(|b| strip_prefix(text, b)) {
        text = rest;
    }
    BEHIND.iter().find_map(|b| text.strip_suffix(b)).unwrap_or(text).to_owned()
}

fn strip_prefix<'a>(text: &'a str, with: &str) -> Option<&'a str> {
    text.get(..with.len()).filter(|t| t.eq_ignore_ascii_case(with)).map(|_| &text[with.len()..])
}

/// The formulas that a substance may have by its formula, its name or both.
fn said(text: &str) -> Vec<String> {
    let text = text.trim().trim_end_matches('.');
    let all = |t: &str| [names(t), formulas(t)].concat();
    if let Some((first, second)) = text.split_once(", ").or_else(|| text.strip_suffix(')')?.split_once(" (")) {
        // Each says the same as the other.
        let named = |t: &str| !names(t).is_empty();
        if named(first) != named(second) {
            let second = all(second);
            return all(first).into_iter().filter(|f| second.contains(f)).collect();
        }
    }
    all(text)
}

fn formulas(text: &str) -> Vec<String> {
    let marked = || chemistry::species(text).and_then(|s| s.into_iter().next());
    formula(text).or_else(marked).or_else(|| formula(&bare(text))).into_iter().collect()
}

/// A formula as plain letters and digits.
fn formula(text: &str) -> Option<String> {
    let plain = math::formula(text)?;
    let plain: String = plain.chars().filter(|c| !matches!(c, '_' | '{' | '}' | ' ' | '$')).collect();
    // A bond between groups.
    let plain = if plain.ends_with('-') { plain } else { plain.replace('-', "") };
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '(' | ')');
    (plain.starts_with(|c: char| c.is_ascii_uppercase() || c == '(') && plain.chars().all(known)).then_some(plain)
}

fn names(text: &str) -> Vec<String> {
    let gas = text.trim().to_lowercase().ends_with(" gas");
    let lower = bare(text).to_lowercase().replace("sulph", "sulf");
    if let Some((_, formula)) = COMMON.iter().find(|c| c.0 == lower) {
        return vec![(*formula).to_owned()];
    }
    if let Some(sign) = element(&lower) {
        let pair = PAIRED.contains(&sign).then(|| format!("{sign}2"));
        return match pair {
            Some(pair) if gas => vec![pair],
            pair => [sign.to_owned()].into_iter().chain(pair).collect(),
        };
    }
    let counted = counted(&lower);
    if counted.is_some() { counted.into_iter().collect() } else { ions::formulas(&lower) }
}

/// A compound of two elements by how many atoms of each it has.
fn counted(lower: &str) -> Option<String> {
    let (first, second) = lower.split_once(' ')?;
    // Without a count the metals' charges would be needed.
    let counted = |t: &str| COUNTS.iter().find_map(|(w, n)| Some((*n, t.strip_prefix(w)?.to_owned())));
    let (n, first) = match element(first) {
        Some(s) => (1, s),
        None => counted(first).and_then(|(n, t)| Some((n, element(&t)?)))?,
    };
    let (m, second) = COUNTS.iter().find_map(|(w, m)| {
        let rest = second.strip_prefix(w)?;
        ENDINGS.iter().find(|e| e.0 == rest).map(|e| (*m, e.1))
    })?;
    let times = |n: u32| if n == 1 { String::new() } else { n.to_string() };
    Some(format!("{first}{}{second}{}", times(n), times(m)))
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn names_and_formulas_agree() {
        for (a, b, want) in [
            ("CO_2", "carbon dioxide", true),
            ("\\text{CO}_2", "carbon dioxide, CO_2", true),
            ("N2O4", "dinitrogen tetroxide", true),
            ("SO3", "sulfur trioxide (SO3)", true),
            ("C_2H_5OH", "CH3CH2OH", true),
            ("CH3CH2CH2CH3", "CH_3(CH_2)_2CH_3", true),
            ("C_2H_5OH", "CH3OCH3", false),
            ("CO_2", "carbon monoxide", false),
            ("CO_2", "carbon monoxide, CO_2", false),
            ("SO_2", "sulfur trioxide", false),
            ("Na", "sodium", true),
            ("N_2", "nitrogen gas", true),
            ("N", "nitrogen gas", false),
            ("MnO_2", "manganese(IV) oxide", true),
            ("Fe_2(SO_4)_3", "ferric sulfate", true),
            ("FeSO_4", "ferric sulfate", false),
            ("Fe^{3+}", "the iron(III) ion", true),
            ("SO_4^{2-}", "sulfate", true),
            ("CuSO_4\\cdot 5H_2O", "copper(II) sulfate pentahydrate", true),
            ("NaHCO3", "sodium hydrogen carbonate", true),
            ("NaHCO3", "sodium carbonate", false),
        ] {
            assert_eq!(same(a, b), want, "{a} {b}");
        }
    }
}
