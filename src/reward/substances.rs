//! Substances by name and by formula: carbon dioxide and `CO_2`.

use super::chemistry::element;
use super::fields::salt;
use super::math;

/// Names that are no rule's.
const COMMON: [(&str, &str); 25] = [
    ("water", "H2O"),
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
    ("hydrogen chloride", "HCl"),
    ("hydrogen sulfide", "H2S"),
    ("hydrogen bromide", "HBr"),
    ("hydrogen fluoride", "HF"),
    ("sulfuric acid", "H2SO4"),
    ("sulphuric acid", "H2SO4"),
    ("nitric acid", "HNO3"),
    ("phosphoric acid", "H3PO4"),
    ("carbonic acid", "H2CO3"),
    ("nitrous oxide", "N2O"),
    ("nitric oxide", "NO"),
    ("ozone", "O3"),
];

/// What the second element of a compound of two is called.
const ENDINGS: [(&str, &str); 8] = [
    ("oxide", "O"),
    ("chloride", "Cl"),
    ("fluoride", "F"),
    ("bromide", "Br"),
    ("iodide", "I"),
    ("sulfide", "S"),
    ("sulphide", "S"),
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

/// Whether both name one substance, one by its formula; an answer may give its name and its formula.
pub(super) fn same(gold: &str, answer: &str) -> bool {
    let short = |t: &str| t.len() < 120;
    short(gold) && short(answer) && said(gold).is_some_and(|a| said(answer) == Some(a))
}

/// The formula of a substance by its formula, its name or both.
fn said(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('.');
    if let Some((first, second)) = text.split_once(", ").or_else(|| text.strip_suffix(')')?.split_once(" (")) {
        // Each says the same as the other.
        let (a, b) = (name(first).or_else(|| formula(first))?, name(second).or_else(|| formula(second))?);
        return (a == b && name(first).is_some() != name(second).is_some()).then_some(a);
    }
    name(text).or_else(|| formula(text))
}

/// A formula as plain letters and digits.
fn formula(text: &str) -> Option<String> {
    let plain = math::formula(text)?;
    let plain: String = plain.chars().filter(|c| !matches!(c, '_' | '{' | '}' | ' ' | '$')).collect();
    // A bond between groups.
    let plain = if plain.ends_with('-') { plain } else { plain.replace('-', "") };
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '(' | ')');
    let first = |c: char| c.is_ascii_uppercase() || c == '(';
    (plain.starts_with(first) && plain.chars().all(known)).then(|| groups(&plain))
}

/// A formula with its chains of carbon written out, group by group: `C2H5OH` as `CH3CH2OH`.
fn groups(formula: &str) -> String {
    const LONGEST: usize = 30;
    let ethyl = |t: &str| t.starts_with(|c: char| c.is_ascii_uppercase() || c == '(');
    let mut out = String::with_capacity(formula.len() + 8);
    let mut rest = formula;
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("C2H5")
            && (behind.is_empty() && !out.is_empty() || out.is_empty() && ethyl(behind))
        {
            out.push_str(if behind.is_empty() { "CH2CH3" } else { "CH3CH2" });
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix("(CH2)") {
            let after = behind.trim_start_matches(|c: char| c.is_ascii_digit());
            let count = behind[..behind.len() - after.len()].parse().unwrap_or(1usize);
            if count > LONGEST {
                return formula.to_owned();
            }
            out += &"CH2".repeat(count);
            rest = after;
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

fn name(text: &str) -> Option<String> {
    let lower = text.trim().to_lowercase();
    let lower = ["the ", "gaseous ", "liquid "].iter().find_map(|p| lower.strip_prefix(p)).unwrap_or(&lower);
    let lower = lower.strip_suffix(" gas").unwrap_or(lower);
    if let Some((_, formula)) = COMMON.iter().find(|c| c.0 == lower) {
        return Some((*formula).to_owned());
    }
    if let Some(formula) = salt(lower) {
        return Some(formula);
    }
    let (first, second) = lower.split_once(' ')?;
    // Without a count the metals' charges would be needed.
    let counted = |t: &str| COUNTS.iter().find_map(|(w, n)| Some((*n, t.strip_prefix(w)?.to_owned())));
    let sign = |t: &str| element(t);
    let (n, first) = match sign(first) {
        Some(s) => (1, s),
        None => counted(first).and_then(|(n, t)| Some((n, sign(&t)?)))?,
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
        ] {
            assert_eq!(same(a, b), want, "{a} {b}");
        }
    }
}
