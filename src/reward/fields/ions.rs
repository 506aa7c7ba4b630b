//! Ions by their names, and salts by the names of their ions: "the iron(III) ion" is `Fe^{3+}`, aluminium sulfate is
//! `Al2(SO4)3`.

use super::super::chemistry::element;

/// Ions of several atoms, and those whose name does not tell the element; with their charges.
const IONS: [(&str, &str, i32); 40] = [
    ("ammonium", "NH4", 1),
    ("hydronium", "H3O", 1),
    ("oxonium", "H3O", 1),
    ("hydrogen", "H", 1),
    ("ferrous", "Fe", 2),
    ("ferric", "Fe", 3),
    ("cuprous", "Cu", 1),
    ("cupric", "Cu", 2),
    ("stannous", "Sn", 2),
    ("stannic", "Sn", 4),
    ("hydroxide", "OH", -1),
    ("nitrate", "NO3", -1),
    ("nitrite", "NO2", -1),
    ("sulfate", "SO4", -2),
    ("sulfite", "SO3", -2),
    ("carbonate", "CO3", -2),
    ("hydrogencarbonate", "HCO3", -1),
    ("hydrogen carbonate", "HCO3", -1),
    ("bicarbonate", "HCO3", -1),
    ("hydrogensulfate", "HSO4", -1),
    ("hydrogen sulfate", "HSO4", -1),
    ("phosphate", "PO4", -3),
    ("hydrogen phosphate", "HPO4", -2),
    ("dihydrogen phosphate", "H2PO4", -1),
    ("acetate", "CH3COO", -1),
    ("ethanoate", "CH3COO", -1),
    ("permanganate", "MnO4", -1),
    ("chromate", "CrO4", -2),
    ("dichromate", "Cr2O7", -2),
    ("thiosulfate", "S2O3", -2),
    ("chlorate", "ClO3", -1),
    ("perchlorate", "ClO4", -1),
    ("hypochlorite", "ClO", -1),
    ("chlorite", "ClO2", -1),
    ("cyanide", "CN", -1),
    ("thiocyanate", "SCN", -1),
    ("fluoride", "F", -1),
    ("chloride", "Cl", -1),
    ("bromide", "Br", -1),
    ("iodide", "I", -1),
];

/// Ions of nonmetals that share their names' ends with compounds of two.
const NONMETALS: [(&str, &str, i32); 4] =
    [("oxide", "O", -2), ("sulfide", "S", -2), ("nitride", "N", -3), ("phosphide", "P", -3)];

/// Metals that have one charge.
const METALS: [(&str, i32); 15] = [
    ("Li", 1),
    ("Na", 1),
    ("K", 1),
    ("Rb", 1),
    ("Cs", 1),
    ("Ag", 1),
    ("Be", 2),
    ("Mg", 2),
    ("Ca", 2),
    ("Sr", 2),
    ("Ba", 2),
    ("Ra", 2),
    ("Zn", 2),
    ("Cd", 2),
    ("Al", 3),
];

/// The formula and the charge that a name without "ion" gives.
fn one(name: &str) -> Option<(String, i32)> {
    if let Some((metal, rest)) = name.split_once('(') {
        const ROMAN: [&str; 7] = ["i", "ii", "iii", "iv", "v", "vi", "vii"];
        let charge = ROMAN.iter().position(|r| rest.strip_suffix(')') == Some(r))? as i32 + 1;
        return Some((element(metal.trim_end())?.to_owned(), charge));
    }
    let known = IONS.iter().chain(&NONMETALS).find(|i| i.0 == name);
    let metal = || METALS.iter().find(|m| element(name) == Some(m.0)).map(|m| (m.0.to_owned(), m.1));
    known.map(|i| (i.1.to_owned(), i.2)).or_else(metal)
}

fn plain(name: &str) -> String {
    let lower = name.trim().trim_end_matches('.').to_lowercase().replace("sulph", "sulf").replace(" (", "(");
    let lower = lower.replace("\\text", "").replace(['{', '}', '$'], "");
    ["the ", "an ", "a "].iter().find_map(|a| lower.strip_prefix(a)).unwrap_or(&lower).to_owned()
}

/// The formula of an ion by its name, its charge behind it: `SO42-`.
pub(in crate::reward) fn ion(name: &str) -> Option<String> {
    let name = plain(name);
    let stem = [" ion", " ions", " cation", " anion"].iter().find_map(|end| name.strip_suffix(end));
    // Sodium is the metal; what has a charge in its name, or is nothing but an ion, needs no noun.
    let always = name.ends_with(')') || name.ends_with("ate") || name.ends_with("ium") && element(&name).is_none();
    let (formula, charge) = one(stem.or(always.then_some(name.as_str()))?)?;
    let count = if charge.abs() == 1 { String::new() } else { charge.abs().to_string() };
    Some(format!("{formula}{count}{}", if charge > 0 { '+' } else { '-' }))
}

/// The formula of a salt by its name: as many ions of each as their charges need.
pub(in crate::reward) fn salt(name: &str) -> Option<String> {
    let name = plain(name);
    let halves = name.match_indices(' ').find_map(|(at, _)| {
        let (a, b) = (one(&name[..at])?, one(&name[at + 1..])?);
        (a.1 > 0 && b.1 < 0).then_some((a, b))
    });
    let ((first, up), (second, down)) = halves?;
    let (up, down) = (up.unsigned_abs(), down.unsigned_abs());
    let common = (1..=up.min(down)).rev().find(|d| up % d == 0 && down % d == 0)?;
    let times = |formula: &str, n: u32| {
        let several = formula.chars().filter(char::is_ascii_uppercase).count() > 1;
        match n {
            1 => formula.to_owned(),
            n if several => format!("({formula}){n}"),
            n => format!("{formula}{n}"),
        }
    };
    Some(times(&first, down / common) + &times(&second, up / common))
}

#[cfg(test)]
mod tests {
    use super::{ion, salt};

    #[test]
    fn ions_and_salts_by_name() {
        for (name, want) in [
            ("the iron(III) ion", Some("Fe3+")),
            ("sulphate ion", Some("SO42-")),
            ("ammonium", Some("NH4+")),
            ("sodium", None),
            ("calcium ion", Some("Ca2+")),
        ] {
            assert_eq!(ion(name).as_deref(), want, "{name}");
        }
        for (name, want) in [
            ("aluminium sulfate", Some("Al2(SO4)3")),
            ("iron(III) oxide", Some("Fe2O3")),
            ("copper (II) sulfate", Some("CuSO4")),
            ("ammonium carbonate", Some("(NH4)2CO3")),
            ("iron oxide", None),
        ] {
            assert_eq!(salt(name).as_deref(), want, "{name}");
        }
    }
}
