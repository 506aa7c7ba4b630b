//! Names of salts and ions as their formulas: "iron(III) sulfate" is `Fe2(SO4)3`, "ferric ion" is `Fe3+`.

use super::super::chemistry::{element, signed};
use super::super::math;

/// Metals and groups of one charge.
const CATIONS: [(&str, &str, u32); 22] = [
    ("lithium", "Li", 1),
    ("sodium", "Na", 1),
    ("potassium", "K", 1),
    ("rubidium", "Rb", 1),
    ("cesium", "Cs", 1),
    ("caesium", "Cs", 1),
    ("silver", "Ag", 1),
    ("ammonium", "NH4", 1),
    ("hydrogen", "H", 1),
    ("hydronium", "H3O", 1),
    ("oxonium", "H3O", 1),
    ("beryllium", "Be", 2),
    ("magnesium", "Mg", 2),
    ("calcium", "Ca", 2),
    ("strontium", "Sr", 2),
    ("barium", "Ba", 2),
    ("radium", "Ra", 2),
    ("zinc", "Zn", 2),
    ("cadmium", "Cd", 2),
    ("aluminium", "Al", 3),
    ("aluminum", "Al", 3),
    ("scandium", "Sc", 3),
];

/// Charges of metals that have several, by their older names.
const OLDER: [(&str, &str, u32); 16] = [
    ("ferrous", "Fe", 2),
    ("ferric", "Fe", 3),
    ("cuprous", "Cu", 1),
    ("cupric", "Cu", 2),
    ("stannous", "Sn", 2),
    ("stannic", "Sn", 4),
    ("plumbous", "Pb", 2),
    ("plumbic", "Pb", 4),
    ("mercuric", "Hg", 2),
    ("mercurous", "Hg2", 2),
    ("manganous", "Mn", 2),
    ("chromous", "Cr", 2),
    ("chromic", "Cr", 3),
    ("cobaltous", "Co", 2),
    ("cobaltic", "Co", 3),
    ("aurous", "Au", 1),
];

const ANIONS: [(&str, &str, u32); 55] = [
    ("hydride", "H", 1),
    ("fluoride", "F", 1),
    ("chloride", "Cl", 1),
    ("bromide", "Br", 1),
    ("iodide", "I", 1),
    ("oxide", "O", 2),
    ("sulfide", "S", 2),
    ("selenide", "Se", 2),
    ("nitride", "N", 3),
    ("phosphide", "P", 3),
    ("peroxide", "O2", 2),
    ("hydroxide", "OH", 1),
    ("cyanide", "CN", 1),
    ("thiocyanate", "SCN", 1),
    ("nitrate", "NO3", 1),
    ("nitrite", "NO2", 1),
    ("sulfate", "SO4", 2),
    ("sulfite", "SO3", 2),
    ("thiosulfate", "S2O3", 2),
    ("hydrogen sulfate", "HSO4", 1),
    ("hydrogensulfate", "HSO4", 1),
    ("bisulfate", "HSO4", 1),
    ("hydrogen sulfite", "HSO3", 1),
    ("bisulfite", "HSO3", 1),
    ("carbonate", "CO3", 2),
    ("hydrogen carbonate", "HCO3", 1),
    ("hydrogencarbonate", "HCO3", 1),
    ("bicarbonate", "HCO3", 1),
    ("phosphate", "PO4", 3),
    ("hydrogen phosphate", "HPO4", 2),
    ("monohydrogen phosphate", "HPO4", 2),
    ("dihydrogen phosphate", "H2PO4", 1),
    ("phosphite", "PO3", 3),
    ("silicate", "SiO3", 2),
    ("hypochlorite", "ClO", 1),
    ("chlorite", "ClO2", 1),
    ("chlorate", "ClO3", 1),
    ("perchlorate", "ClO4", 1),
    ("bromate", "BrO3", 1),
    ("iodate", "IO3", 1),
    ("permanganate", "MnO4", 1),
    ("manganate", "MnO4", 2),
    ("chromate", "CrO4", 2),
    ("dichromate", "Cr2O7", 2),
    ("oxalate", "C2O4", 2),
    ("borate", "BO3", 3),
    ("arsenate", "AsO4", 3),
    ("tungstate", "WO4", 2),
    ("molybdate", "MoO4", 2),
    ("amide", "NH2", 1),
    ("acetate", "CH3COO", 1),
    ("ethanoate", "CH3COO", 1),
    ("formate", "HCOO", 1),
    ("methanoate", "HCOO", 1),
    ("hydrogen oxalate", "HC2O4", 1),
];

const WATERS: [(&str, u32); 9] = [
    ("monohydrate", 1),
    ("dihydrate", 2),
    ("trihydrate", 3),
    ("tetrahydrate", 4),
    ("pentahydrate", 5),
    ("hexahydrate", 6),
    ("heptahydrate", 7),
    ("octahydrate", 8),
    ("decahydrate", 10),
];

/// A metal or group with its charge: sodium, ferric, copper(II).
fn cation(name: &str) -> Option<(&'static str, u32)> {
    let name = name.trim();
    if let Some((metal, charge)) = name.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let charge = charge.trim().to_uppercase();
        let charge = match charge.as_str() {
            "I" => 1,
            "V" => 5,
            roman => math::roman(roman)?,
        };
        let metal = metal.trim();
        // Mercury's ion of charge one has two atoms.
        return if metal == "mercury" && charge == 1 {
            Some(("Hg2", 2))
        } else {
            Some((element(metal).or_else(|| signed(metal))?, charge))
        };
    }
    CATIONS.iter().chain(&OLDER).find(|c| c.0 == name).map(|c| (c.1, c.2))
}

/// The formulas of a salt or ion by its name in small letters; charges stand behind, `*` before water of crystals.
pub(in crate::reward) fn formulas(name: &str) -> Vec<String> {
    let name = name.replace("sulph", "sulf");
    let (name, water) = match WATERS.iter().find_map(|(w, n)| Some((name.strip_suffix(w)?.trim_end(), *n))) {
        Some((rest, 1)) => (rest, "*H2O".to_owned()),
        Some((rest, n)) => (rest, format!("*{n}H2O")),
        None => (name.as_str(), String::new()),
    };
    let bare = name.strip_suffix(" ion").or(name.strip_suffix(" ions")).or(name.strip_suffix(" cation"));
    let bare = bare.or(name.strip_suffix(" anion")).unwrap_or(name);
    let anion = |t: &str| ANIONS.iter().find(|a| a.0 == t).map(|a| (a.1, a.2));
    let size = |n: u32| if n == 1 { String::new() } else { n.to_string() };
    // Alone, an element's name is no ion's, unless it is said or its charge stands behind it.
    let told = bare.len() < name.len() || bare.ends_with(')') || element(bare).is_none();
    if let Some((sign, charge)) = cation(bare).filter(|_| told) {
        return vec![format!("{sign}{}+", size(charge))];
    }
    if let Some((sign, charge)) = anion(bare) {
        return vec![format!("{sign}{}-", size(charge))];
    }
    // The metal is the first word, with its charge in brackets behind it.
    let cut = match name.find(')') {
        Some(at) => at + 1,
        None => name.find(' ').unwrap_or(0),
    };
    let (Some(first), Some(second)) = (name.get(..cut), name.get(cut..)) else { return Vec::new() };
    let (Some((metal, plus)), Some((rest, minus))) = (cation(first), anion(second.trim())) else { return Vec::new() };
    let common = (1..=plus.min(minus)).rev().find(|n| plus % n == 0 && minus % n == 0).unwrap_or(1);
    let part = |sign: &str, n: u32| {
        let group =
            sign.chars().filter(|c| c.is_ascii_uppercase()).count() > 1 || sign.ends_with(|c: char| c.is_ascii_digit());
        if n > 1 && group { format!("({sign}){n}") } else { format!("{sign}{}", size(n)) }
    };
    let (m, n) = (minus / common, plus / common);
    let mut out = vec![format!("{}{}{water}", part(metal, m), part(rest, n))];
    // The rest of an organic acid may stand before the metal, and be written as a sum.
    if rest.ends_with("COO") {
        out.push(format!("{}{}{water}", part(rest, n), part(metal, m)));
        let sum = if rest == "HCOO" { "HCO2" } else { "C2H3O2" };
        out.push(format!("{}{}{water}", part(metal, m), part(sum, n)));
    }
    if metal == "Hg2" && m == 1 {
        out[0] = format!("Hg2{}{water}", part(rest, n));
    }
    if (metal, rest) == ("Na", "O2") || (metal, rest) == ("H", "O2") {
        out = vec![format!("{metal}2O2{water}")];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::formulas;

    #[test]
    fn ions_and_salts_by_name() {
        for (name, want) in [
            ("iron(iii) ion", Some("Fe3+")),
            ("sulphate ion", Some("SO42-")),
            ("ammonium", Some("NH4+")),
            ("sodium", None),
            ("calcium ion", Some("Ca2+")),
            ("aluminium sulfate", Some("Al2(SO4)3")),
            ("iron(iii) oxide", Some("Fe2O3")),
            ("copper (ii) sulfate", Some("CuSO4")),
            ("ammonium carbonate", Some("(NH4)2CO3")),
            ("mercury(i) chloride", Some("Hg2Cl2")),
            ("iron oxide", None),
        ] {
            assert_eq!(formulas(name).first().map(String::as_str), want, "{name}");
        }
    }
}
