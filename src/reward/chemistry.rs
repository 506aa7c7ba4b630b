//! Chemical notation: equations, isotopes, electron configurations, in LaTeX, mhchem, Unicode or plain text.

use super::math;
use super::words::tables::{all_as, replaced};

/// Signs and names of the elements, by their atomic number.
const ELEMENTS: [(&str, &str); 118] = [
    ("H", "hydrogen"),
    ("He", "helium"),
    ("Li", "lithium"),
    ("Be", "beryllium"),
    ("B", "boron"),
    ("C", "carbon"),
    ("N", "nitrogen"),
    ("O", "oxygen"),
    ("F", "fluorine"),
    ("Ne", "neon"),
    ("Na", "sodium"),
    ("Mg", "magnesium"),
    ("Al", "aluminium"),
    ("Si", "silicon"),
    ("P", "phosphorus"),
    ("S", "sulfur"),
    ("Cl", "chlorine"),
    ("Ar", "argon"),
    ("K", "potassium"),
    ("Ca", "calcium"),
    ("Sc", "scandium"),
    ("Ti", "titanium"),
    ("V", "vanadium"),
    ("Cr", "chromium"),
    ("Mn", "manganese"),
    ("Fe", "iron"),
    ("Co", "cobalt"),
    ("Ni", "nickel"),
    ("Cu", "copper"),
    ("Zn", "zinc"),
    ("Ga", "gallium"),
    ("Ge", "germanium"),
    ("As", "arsenic"),
    ("Se", "selenium"),
    ("Br", "bromine"),
    ("Kr", "krypton"),
    ("Rb", "rubidium"),
    ("Sr", "strontium"),
    ("Y", "yttrium"),
    ("Zr", "zirconium"),
    ("Nb", "niobium"),
    ("Mo", "molybdenum"),
    ("Tc", "technetium"),
    ("Ru", "ruthenium"),
    ("Rh", "rhodium"),
    ("Pd", "palladium"),
    ("Ag", "silver"),
    ("Cd", "cadmium"),
    ("In", "indium"),
    ("Sn", "tin"),
    ("Sb", "antimony"),
    ("Te", "tellurium"),
    ("I", "iodine"),
    ("Xe", "xenon"),
    ("Cs", "caesium"),
    ("Ba", "barium"),
    ("La", "lanthanum"),
    ("Ce", "cerium"),
    ("Pr", "praseodymium"),
    ("Nd", "neodymium"),
    ("Pm", "promethium"),
    ("Sm", "samarium"),
    ("Eu", "europium"),
    ("Gd", "gadolinium"),
    ("Tb", "terbium"),
    ("Dy", "dysprosium"),
    ("Ho", "holmium"),
    ("Er", "erbium"),
    ("Tm", "thulium"),
    ("Yb", "ytterbium"),
    ("Lu", "lutetium"),
    ("Hf", "hafnium"),
    ("Ta", "tantalum"),
    ("W", "tungsten"),
    ("Re", "rhenium"),
    ("Os", "osmium"),
    ("Ir", "iridium"),
    ("Pt", "platinum"),
    ("Au", "gold"),
    ("Hg", "mercury"),
    ("Tl", "thallium"),
    ("Pb", "lead"),
    ("Bi", "bismuth"),
    ("Po", "polonium"),
    ("At", "astatine"),
    ("Rn", "radon"),
    ("Fr", "francium"),
    ("Ra", "radium"),
    ("Ac", "actinium"),
    ("Th", "thorium"),
    ("Pa", "protactinium"),
    ("U", "uranium"),
    ("Np", "neptunium"),
    ("Pu", "plutonium"),
    ("Am", "americium"),
    ("Cm", "curium"),
    ("Bk", "berkelium"),
    ("Cf", "californium"),
    ("Es", "einsteinium"),
    ("Fm", "fermium"),
    ("Md", "mendelevium"),
    ("No", "nobelium"),
    ("Lr", "lawrencium"),
    ("Rf", "rutherfordium"),
    ("Db", "dubnium"),
    ("Sg", "seaborgium"),
    ("Bh", "bohrium"),
    ("Hs", "hassium"),
    ("Mt", "meitnerium"),
    ("Ds", "darmstadtium"),
    ("Rg", "roentgenium"),
    ("Cn", "copernicium"),
    ("Nh", "nihonium"),
    ("Fl", "flerovium"),
    ("Mc", "moscovium"),
    ("Lv", "livermorium"),
    ("Ts", "tennessine"),
    ("Og", "oganesson"),
];

/// Other spellings.
const SPELLINGS: [(&str, &str); 4] = [("aluminum", "Al"), ("sulphur", "S"), ("cesium", "Cs"), ("wolfram", "W")];

/// What the noble gases stand for in configurations.
const NOBLE: [(&str, &str); 6] = [
    ("He", "1s2"),
    ("Ne", "1s2 2s2 2p6"),
    ("Ar", "1s2 2s2 2p6 3s2 3p6"),
    ("Kr", "1s2 2s2 2p6 3s2 3p6 3d10 4s2 4p6"),
    ("Xe", "1s2 2s2 2p6 3s2 3p6 3d10 4s2 4p6 4d10 5s2 5p6"),
    ("Rn", "1s2 2s2 2p6 3s2 3p6 3d10 4s2 4p6 4d10 5s2 5p6 4f14 5d10 6s2 6p6"),
];

/// The sign of an element by its name, in small letters.
pub(super) fn element(name: &str) -> Option<&'static str> {
    let by_name = ELEMENTS.iter().find(|e| e.1 == name).map(|e| e.0);
    by_name.or_else(|| SPELLINGS.iter().find(|s| s.0 == name).map(|s| s.1))
}

/// The sign of an element by its letters in any case.
pub(super) fn signed(letters: &str) -> Option<&'static str> {
    ELEMENTS.iter().map(|e| e.0).find(|s| s.eq_ignore_ascii_case(letters))
}

/// Longest text that is read as chemistry.
const MAX: usize = 300;

/// Whether both texts are chemical notation of one kind, and say the same; `None` where they are not.
pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    if gold.len() > MAX || answer.len() > MAX {
        return None;
    }
    let pair = |read: fn(&str) -> Option<Vec<String>>| Some(read(gold)? == read(answer)?);
    pair(decay)
        .or_else(|| pair(equation))
        .or_else(|| pair(particle))
        .or_else(|| pair(isotope))
        .or_else(|| pair(configuration))
        .or_else(|| pair(hybrid))
        .or_else(|| pair(species))
}

/// The text in plain signs: no faces, braces, spaces; indices on the line, exponents behind `^`.
fn plain(text: &str) -> String {
    const SIGNS: [(&str, &str); 24] = [
        ("\\longrightarrow", "->"),
        ("\\rightarrow", "->"),
        ("\\xrightarrow", "->"),
        ("\\to", "->"),
        ("-->", "->"),
        ("\\rightleftharpoons", "<->"),
        ("\\leftrightarrow", "<->"),
        ("\u{21cc}", "<->"),
        ("<=>", "<->"),
        ("\\uparrow", ""),
        ("\\downarrow", ""),
        ("\u{2191}", ""),
        ("\u{2193}", ""),
        ("\\ce", ""),
        ("\\mathrm", ""),
        ("\\text", ""),
        ("\\rm", ""),
        ("\\left", ""),
        ("\\right", ""),
        ("\\,", ""),
        ("\\;", ""),
        ("\\ ", ""),
        ("~", ""),
        ("$", ""),
    ];
    let text = replaced(math::ascii(text), &SIGNS);
    text.chars().filter(|c| !matches!(c, '{' | '}' | '_' | ' ')).collect()
}

/// One ion or hydrate, or a formula marked as such: `Na+`, `SO_4^{2-}`, `CuSO4.5H2O`.
pub(super) fn species(text: &str) -> Option<Vec<String>> {
    let marked = text.contains("\\ce");
    let plain = replaced(plain(text), &[("\\cdot", "*")]);
    let charged = plain.ends_with(['+', '-']);
    let sound = plain.matches(['+', '-']).count() <= 1 && !plain.starts_with(|c: char| c.is_ascii_digit());
    // O_2^- is no O^{2-}.
    let several = plain.split_once('^').filter(|(atoms, charge)| {
        let element = atoms.trim_end_matches(|c: char| c.is_ascii_digit());
        matches!(*charge, "+" | "-") && element.len() < atoms.len() && ELEMENTS.iter().any(|e| e.0 == element)
    });
    if let Some((atoms, charge)) = several {
        return Some(vec![format!("{atoms}^{charge}")]);
    }
    (sound && (marked || charged || plain.contains('*'))).then(|| Some(vec![member(&plain)?]))?
}

/// True for two formulas that differ in the case of a letter: CO and Co.
pub(super) fn other_case(gold: &str, answer: &str) -> bool {
    fn elements(text: &str) -> bool {
        text.is_empty()
            || (1..=2).any(|n| text.get(..n).is_some_and(|t| ELEMENTS.iter().any(|e| e.0 == t)) && elements(&text[n..]))
    }
    let letters =
        |t: &str| t.chars().filter(|c| !c.is_ascii_digit() && !matches!(c, '_' | '{' | '}')).collect::<String>();
    let (a, b) = (letters(gold), letters(answer));
    // Words in capital letters.
    if matches!(
        a.to_lowercase().as_str(),
        "no" | "in" | "as" | "he" | "us" | "is" | "on" | "so" | "ho" | "oh" | "of" | "yes"
    ) {
        return false;
    }
    (2..=8).contains(&a.len()) && a != b && a.eq_ignore_ascii_case(&b) && elements(&a) && elements(&b)
}

/// The sides of a reaction, the members of each in order.
fn equation(text: &str) -> Option<Vec<String>> {
    // States of matter may be left out.
    let text = all_as(plain(text), &["(s)", "(l)", "(g)", "(aq)"], "");
    let (left, right, arrow) = match text.split_once("<->") {
        Some((l, r)) => (l, r, "<->"),
        // An equals sign stands for the arrow between sums of formulas of elements.
        None => match text.split_once("->") {
            Some((l, r)) => (l, r, "->"),
            None => text
                .split_once('=')
                .filter(|(l, r)| (l.contains('+') || r.contains('+')) && text.matches('=').count() == 1)
                .map(|(l, r)| (l, r, "->"))
                .filter(|_| text.chars().any(|c| c.is_ascii_lowercase() || c.is_ascii_digit()))?,
        },
    };
    let side = |t: &str| {
        let mut members: Vec<String> = members(t).into_iter().map(member).collect::<Option<_>>()?;
        members.sort();
        Some(members.join("+"))
    };
    Some(vec![side(left)?, arrow.to_owned(), side(right)?])
}

/// The sides of a nuclear reaction, the nuclides and particles of each in order.
fn decay(text: &str) -> Option<Vec<String>> {
    const ARROWS: [&str; 5] = ["\\longrightarrow", "\\rightarrow", "\\to", "\u{2192}", "-->"];
    let text = all_as(text, &ARROWS, "->");
    let (left, right) = text.split_once("->").filter(|(_, r)| !r.contains("->") && text.contains('^'))?;
    let side = |t: &str| {
        let (mut depth, mut from, mut found) = (0, 0, Vec::new());
        for (at, c) in t.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                '+' if depth == 0 && !t[..at].trim_end().ends_with(['^', '_']) => {
                    found.push(&t[from..at]);
                    from = at + 1;
                }
                _ => {}
            }
        }
        found.push(&t[from..]);
        let one = |t: &str| {
            let t = all_as(t, FACES, "");
            let t = t.trim().trim_end_matches('.');
            let of = t.trim_start_matches(|c: char| c.is_ascii_digit());
            Some(format!("{} {}", &t[..t.len() - of.len()], particle(of).or_else(|| isotope(of))?.join("-")))
        };
        let mut members = found.into_iter().map(one).collect::<Option<Vec<_>>>()?;
        members.sort();
        Some(members.join("+"))
    };
    Some(vec![side(left)?, side(right)?])
}

/// The members of a sum; a plus sign at the end of a member, or with another behind it, is one of a charge.
fn members(side: &str) -> Vec<&str> {
    let bytes = side.as_bytes();
    let (mut out, mut from) = (Vec::new(), 0);
    for i in 1..bytes.len() {
        let begins = bytes.get(i + 1).is_some_and(|n| n.is_ascii_alphanumeric() || matches!(n, b'(' | b'['));
        if bytes[i] == b'+' && begins && i > from {
            out.push(&side[from..i]);
            from = i + 1;
        }
    }
    out.push(&side[from..]);
    out
}

/// A coefficient and a formula, without the coefficient one.
fn member(text: &str) -> Option<String> {
    let formula = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let first = formula.chars().next()?;
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '(' | ')' | '[' | ']' | '^' | '+' | '-' | '*');
    // An electron is the only member in a small letter.
    let fits =
        first.is_ascii_uppercase() || matches!(first, '(' | '[') || formula.starts_with("e^-") || formula == "e-";
    let count = &text[..text.len() - formula.len()];
    (fits && formula.chars().all(known))
        .then(|| format!("{}{}", if count == "1" { "" } else { count }, formula.replace('^', "")))
}

/// Names of particles, and their signs on the line without faces, with and without their numbers of mass and charge.
const PARTICLES: [(&str, &[&str]); 6] = [
    (
        "electron",
        &[
            "beta",
            "\\beta",
            "beta-minus",
            "beta minus",
            "e-",
            "^0_-1e",
            "_-1^0e",
            "beta-particle",
            "beta-minus particle",
            "beta particle",
            "\\beta-",
            "^0_-1\\beta",
        ],
    ),
    (
        "positron",
        &[
            "beta-plus",
            "beta plus",
            "e+",
            "^0_+1e",
            "^0_1e",
            "_+1^0e",
            "_1^0e",
            "beta-plus particle",
            "\\beta+",
            "^0_+1\\beta",
            "^0_1\\beta",
        ],
    ),
    ("neutron", &["^1_0n", "_0^1n", "^1n"]),
    ("proton", &["^1_1p", "_1^1p", "p+", "hydrogen nucleus"]),
    (
        "alpha particle",
        &[
            "\\alpha",
            "alpha",
            "\\alpha particle",
            "helium nucleus",
            "helium-4 nucleus",
            "^4_2He",
            "_2^4He",
            "^4_2\\alpha",
        ],
    ),
    ("gamma ray", &["\\gamma", "gamma", "gamma photon", "\\gamma ray", "^0_0\\gamma"]),
];

/// Faces of letters, and blanks that only set one number below the other.
const FACES: &[&str] = &["\\mathrm", "\\text", "\\ce", "$", "\\,", "\\;", "\\!", "\\ ", "~", "\\phantom{0}"];

/// A particle by its name, in words or notation.
fn particle(text: &str) -> Option<Vec<String>> {
    let text = math::ascii(text);
    let text = all_as(text, FACES, "");
    let text = all_as(text, &["{", "}"], "");
    let text = text.trim();
    let text = ["a ", "an ", "the "].iter().find_map(|a| text.strip_prefix(a)).unwrap_or(text);
    let text = replaced(text, &[("^-", "-"), ("^+", "+")]).into_owned();
    // The decay is called after what comes out.
    let emitted = text.strip_suffix("decay").or(text.strip_suffix("emission")).map(|t| t.trim_end().to_owned());
    let (text, kind) = emitted.map_or((text, ""), |t| (t, " decay"));
    let spaced = text.chars().filter(|c| *c != ' ').collect::<String>();
    let known = |p: &(&str, &[&str])| {
        text.eq_ignore_ascii_case(p.0) || p.1.contains(&text.as_str()) || p.1.contains(&spaced.as_str())
    };
    Some(vec![format!("{}{kind}", PARTICLES.iter().find(|p| known(p))?.0)])
}

/// The element and its mass number: `^{14}C`, `C-14`, carbon-14.
fn isotope(text: &str) -> Option<Vec<String>> {
    let digits =
        |t: &str| (!t.is_empty() && t.len() < 4 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.to_owned());
    if let Some((name, mass)) = text.trim().rsplit_once(['-', ' ']) {
        let lower = name.trim().to_lowercase();
        let by_name = ELEMENTS.iter().find(|e| e.1 == lower || e.0 == name.trim()).map(|e| e.0);
        let sign = by_name.or_else(|| SPELLINGS.iter().find(|s| s.0 == lower).map(|s| s.1));
        if let (Some(sign), Some(mass)) = (sign, digits(mass.trim())) {
            return Some(vec![sign.to_owned(), mass]);
        }
    }
    let bare = text.trim().to_lowercase();
    let bare = ["a ", "the "].iter().find_map(|a| bare.strip_prefix(a)).unwrap_or(&bare);
    if let Some((_, mass)) = [("protium", "1"), ("deuterium", "2"), ("tritium", "3")].iter().find(|h| h.0 == bare) {
        return Some(vec!["H".to_owned(), (*mass).to_owned()]);
    }
    // The mass number stands above, the atomic number below, in any order.
    let text = math::ascii(text);
    let text = all_as(text, FACES, "");
    let text: String = text.chars().filter(|c| !matches!(c, '{' | '}' | ' ')).collect();
    let sign = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '^' | '_'));
    let number = ELEMENTS.iter().position(|e| e.0 == sign)? + 1;
    let (mut mass, mut rest) = (None, &text[..text.len() - sign.len()]);
    while let Some(c) = rest.chars().next() {
        let end = rest[1..].find(['^', '_']).map_or(rest.len(), |n| n + 1);
        match c {
            '^' => mass = Some(digits(&rest[1..end])?),
            '_' if rest[1..end].parse() == Ok(number) => {}
            _ => return None,
        }
        rest = &rest[end..];
    }
    Some(vec![sign.to_owned(), mass?])
}

/// Hybrid orbitals: `sp^3`, "sp3 hybridized".
fn hybrid(text: &str) -> Option<Vec<String>> {
    const KINDS: [&str; 9] = ["sp", "sp2", "sp3", "sp3d", "sp3d2", "sp3d3", "dsp2", "dsp3", "d2sp3"];
    let text = plain(text).replace('^', "");
    let kind = text.split("-hybridi").next()?.split("hybridi").next()?;
    KINDS.contains(&kind).then(|| vec![kind.to_owned()])
}

/// The subshells of an electron configuration and how many electrons each has, in order.
fn configuration(text: &str) -> Option<Vec<String>> {
    let text: String = math::ascii(text).chars().filter(|c| !matches!(c, '{' | '}' | '^' | '$' | '\\' | ',')).collect();
    let text = all_as(text, &["mathrm", "text"], "");
    let text = text.trim();
    let (core, rest) = match text.strip_prefix('[') {
        Some(t) => {
            let (gas, rest) = t.split_once(']')?;
            (NOBLE.iter().find(|n| n.0 == gas.trim())?.1, rest)
        }
        None => ("", text),
    };
    let mut shells: Vec<String> = core.split_whitespace().map(str::to_owned).collect();
    let letters: Vec<char> = rest.chars().filter(|c| !c.is_whitespace()).collect();
    // Written together, the digit before a letter is the shell: 1s22s22p6.
    let starts: Vec<usize> =
        (1..letters.len()).filter(|&i| matches!(letters[i], 's' | 'p' | 'd' | 'f')).map(|i| i - 1).collect();
    if starts.first() != Some(&0) || !letters.iter().all(|c| c.is_ascii_digit() || matches!(c, 's' | 'p' | 'd' | 'f')) {
        return None;
    }
    for (n, from) in starts.iter().enumerate() {
        let to = starts.get(n + 1).copied().unwrap_or(letters.len());
        let shell: String = letters[*from..to].iter().collect();
        let count: u32 = shell.get(2..)?.parse().ok()?;
        (count <= 14).then(|| shells.push(format!("{}{count}", &shell[..2])))?;
    }
    shells.sort();
    Some(shells)
}
