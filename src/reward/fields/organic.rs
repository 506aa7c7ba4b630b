//! Names of organic compounds, systematic and common, as molecules: "propan-2-ol", "2-propanol", "isopropyl alcohol".

use super::molecule::{Molecule, condensed};

/// Common names by systematic ones.
const COMMON: [(&str, &str); 57] = [
    ("acetic acid", "ethanoic acid"),
    ("formic acid", "methanoic acid"),
    ("propionic acid", "propanoic acid"),
    ("butyric acid", "butanoic acid"),
    ("oxalic acid", "ethanedioic acid"),
    ("lactic acid", "2-hydroxypropanoic acid"),
    ("acrylic acid", "prop-2-enoic acid"),
    ("formaldehyde", "methanal"),
    ("acetaldehyde", "ethanal"),
    ("propionaldehyde", "propanal"),
    ("acetone", "propan-2-one"),
    ("dimethyl ketone", "propan-2-one"),
    ("methyl ethyl ketone", "butan-2-one"),
    ("ethyl methyl ketone", "butan-2-one"),
    ("diethyl ketone", "pentan-3-one"),
    ("ethylene", "ethene"),
    ("propylene", "propene"),
    ("isobutylene", "2-methylpropene"),
    ("isobutene", "2-methylpropene"),
    ("acetylene", "ethyne"),
    ("methylpropane", "2-methylpropane"),
    ("methylbutane", "2-methylbutane"),
    ("dimethylpropane", "2,2-dimethylpropane"),
    ("methylpropene", "2-methylpropene"),
    ("succinic acid", "butanedioic acid"),
    ("isobutane", "2-methylpropane"),
    ("isopentane", "2-methylbutane"),
    ("neopentane", "2,2-dimethylpropane"),
    ("isoprene", "2-methylbuta-1,3-diene"),
    ("butadiene", "buta-1,3-diene"),
    ("methylene chloride", "dichloromethane"),
    ("chloroform", "trichloromethane"),
    ("iodoform", "triiodomethane"),
    ("carbon tetrachloride", "tetrachloromethane"),
    ("vinyl chloride", "chloroethene"),
    ("toluene", "methylbenzene"),
    ("phenol", "hydroxybenzene"),
    ("aniline", "aminobenzene"),
    ("phenylamine", "aminobenzene"),
    ("anisole", "methoxybenzene"),
    ("isopropanol", "propan-2-ol"),
    ("rubbing alcohol", "propan-2-ol"),
    ("wood alcohol", "methanol"),
    ("grain alcohol", "ethanol"),
    ("isobutanol", "2-methylpropan-1-ol"),
    ("sec-butanol", "butan-2-ol"),
    ("tert-butanol", "2-methylpropan-2-ol"),
    ("t-butanol", "2-methylpropan-2-ol"),
    ("ethylene glycol", "ethane-1,2-diol"),
    ("propylene glycol", "propane-1,2-diol"),
    ("glycerol", "propane-1,2,3-triol"),
    ("glycerin", "propane-1,2,3-triol"),
    ("glycerine", "propane-1,2,3-triol"),
    ("acetonitrile", "ethanenitrile"),
    ("glycine", "2-aminoethanoic acid"),
    ("alanine", "2-aminopropanoic acid"),
    ("chloral", "2,2,2-trichloroethanal"),
];

/// Chains by their numbers of carbon atoms; of two that begin alike the longer stands first.
const STEMS: [(&str, usize); 12] = [
    ("meth", 1),
    ("eth", 2),
    ("prop", 3),
    ("but", 4),
    ("pent", 5),
    ("hex", 6),
    ("hept", 7),
    ("oct", 8),
    ("non", 9),
    ("undec", 11),
    ("dodec", 12),
    ("dec", 10),
];

/// Groups that are bound to a chain, as condensed formulas with the atom first that is bound.
const BRANCHES: [(&str, &str); 25] = [
    ("tert-butyl", "C(CH3)3"),
    ("t-butyl", "C(CH3)3"),
    ("sec-butyl", "CH(CH3)CH2CH3"),
    ("isobutyl", "CH2CH(CH3)2"),
    ("isopropyl", "CH(CH3)2"),
    ("(propan-2-yl)", "CH(CH3)2"),
    ("(1-methylethyl)", "CH(CH3)2"),
    ("methyl", "CH3"),
    ("ethyl", "CH2CH3"),
    ("propyl", "CH2CH2CH3"),
    ("butyl", "CH2CH2CH2CH3"),
    ("pentyl", "CH2CH2CH2CH2CH3"),
    ("phenyl", "C6H5"),
    ("vinyl", "CH=CH2"),
    ("ethenyl", "CH=CH2"),
    ("allyl", "CH2CH=CH2"),
    ("methoxy", "OCH3"),
    ("ethoxy", "OCH2CH3"),
    ("hydroxy", "HO"),
    ("amino", "NH2"),
    ("nitro", "NO2"),
    ("fluoro", "F"),
    ("chloro", "Cl"),
    ("bromo", "Br"),
    ("iodo", "I"),
];

/// A molecule by one of its names, and the numbers that a systematic name has.
pub(super) struct Named {
    molecule: Molecule,
    locants: Vec<usize>,
    /// What stands before the name of where its groups lie in space: cis, E, R.
    space: Option<String>,
    /// The one molecule of its formula of atoms, by common agreement: an alkane of a straight chain.
    alkane: Option<usize>,
}

/// Whether two names or condensed formulas are of one molecule; `None` where one of them is neither.
pub(in crate::reward) fn same(gold: &str, answer: &str) -> Option<bool> {
    if let (Some(a), Some(b)) = (named(gold), named(answer)) {
        // A name that counts the chain from its other end is another one.
        let counted = a.locants == b.locants || a.locants.is_empty() || b.locants.is_empty();
        return Some(counted && a.space == b.space && a.molecule.key()? == b.molecule.key()?);
    }
    let key = |t: &str| match named(t) {
        Some(n) => n.molecule.key().filter(|_| n.space.is_none()),
        None => condensed(t)?.key(),
    };
    let sum = |t: &str, formula: &str| {
        named(t).and_then(|n| n.alkane).is_some_and(|n| formula == format!("C{n}H{}", 2 * n + 2))
    };
    if sum(gold, answer) || sum(answer, gold) {
        return Some(true);
    }
    Some(key(gold)? == key(answer)?)
}

fn named(text: &str) -> Option<Named> {
    let lower = text.trim().to_lowercase();
    let lower = lower.strip_prefix("n-").unwrap_or(&lower);
    let (space, lower) = in_space(lower);
    let common = COMMON.iter().find(|c| c.0 == lower).map(|c| c.1);
    let across = on_ring(lower);
    let name = common.or(across.as_deref()).unwrap_or(lower);
    if name.len() > 80 || !name.is_ascii() {
        return None;
    }
    let mut found = parted(name).or_else(|| systematic(name))?;
    if common.is_some() || name.ends_with("benzene") {
        found.locants.clear();
    }
    found.locants.sort_unstable();
    // Along a plain chain cis is Z, and trans is E.
    let branched = name.contains("yl") || BRANCHES.iter().any(|b| name.contains(b.0));
    found.space = space.map(|s| match s.as_str() {
        "cis" if !branched => "z".to_owned(),
        "trans" if !branched => "e".to_owned(),
        _ => s,
    });
    Some(found)
}

/// A ring with two groups, named by the way across it or after one of them: p-xylene, 4-nitrophenol.
fn on_ring(name: &str) -> Option<String> {
    const WAYS: [(&str, usize); 6] = [("ortho-", 2), ("meta-", 3), ("para-", 4), ("o-", 2), ("m-", 3), ("p-", 4)];
    const RINGS: [(&str, &str); 4] =
        [("toluene", "methyl"), ("phenol", "hydroxy"), ("aniline", "amino"), ("anisole", "methoxy")];
    let digit = |t: &str| t.strip_suffix('-').and_then(|t| t.parse::<usize>().ok());
    let (place, rest) = match WAYS.iter().find_map(|(w, n)| Some((*n, name.strip_prefix(w)?))) {
        Some(found) => found,
        None => (digit(name.get(..2)?)?, name.get(2..)?),
    };
    if rest == "xylene" {
        return Some(format!("1,{place}-dimethylbenzene"));
    }
    if let Some(pair) = rest.strip_prefix("di").filter(|p| p.ends_with("benzene")) {
        return Some(format!("1,{place}-di{pair}"));
    }
    let (ring, own) = RINGS.iter().find(|r| rest.ends_with(r.0))?;
    let group = rest.strip_suffix(ring).filter(|g| !g.is_empty())?;
    Some(format!("1-{own}-{place}-{group}benzene"))
}

/// The prefix of a name that says where groups lie in space, and the name behind it.
fn in_space(name: &str) -> (Option<String>, &str) {
    let told = name.strip_prefix('(').and_then(|t| t.split_once(")-"));
    let bracketed =
        told.filter(|(t, _)| t.chars().all(|c| c.is_ascii_digit() || matches!(c, 'r' | 's' | 'e' | 'z' | ',')));
    let prefix = || {
        ["cis", "trans", "r", "s", "e", "z"].iter().find_map(|p| Some((*p, name.strip_prefix(p)?.strip_prefix('-')?)))
    };
    match bracketed.or_else(prefix) {
        // The one place need not be said.
        Some((space, rest)) if space.len() == 2 => {
            (Some(space.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned()), rest)
        }
        Some((space, rest)) => (Some(space.to_owned()), rest),
        None => (None, name),
    }
}

/// Names in several words: esters, ethers, alcohols, halides, and amines in one.
fn parted(name: &str) -> Option<Named> {
    let done = |molecule: Molecule| Some(Named { molecule, locants: Vec::new(), space: None, alkane: None });
    let benzoic = |m: &mut Molecule| {
        let (ring, c, o, link) = (m.atom("C6H5", None)?, m.atom("C", None)?, m.atom("O", None)?, m.atom("O", None)?);
        m.bond(ring, c, 1);
        m.bond(c, o, 2);
        m.bond(c, link, 1);
        Some(link)
    };
    if name == "benzoic acid" {
        let mut m = Molecule::default();
        benzoic(&mut m)?;
        return done(m);
    }
    if let Some(acid) = name.strip_suffix("ate").filter(|t| t.contains(' ')) {
        let (alkyl, acid) = acid.split_once(' ')?;
        let (mut m, link) = if acid == "benzo" {
            let mut m = Molecule::default();
            let link = benzoic(&mut m)?;
            (m, link)
        } else {
            let acid = [("acet", "ethano"), ("form", "methano"), ("propion", "propano")]
                .iter()
                .find(|a| a.0 == acid)
                .map_or(acid, |a| a.1);
            // The carbon of the acid is made first, then its two oxygens.
            let acid = systematic(&format!("{acid}ic acid"))?;
            let link = acid.molecule.last()?;
            (acid.molecule, link)
        };
        branch(&mut m, alkyl, link)?;
        return done(m);
    }
    let (groups, kind) = match name.rsplit_once(' ') {
        Some(parts) => parts,
        None => (name.strip_suffix("amine").filter(|g| g.ends_with("yl"))?, "amine"),
    };
    let groups: Vec<String> = groups.split(' ').map(str::to_owned).collect();
    let groups: Vec<&str> = match groups.as_slice() {
        [one] => match (one.strip_prefix("di"), one.strip_prefix("tri")) {
            (Some(group), _) => vec![group, group],
            (None, Some(group)) => vec![group, group, group],
            (None, None) => vec![one],
        },
        all => all.iter().map(String::as_str).collect(),
    };
    let (center, most) = match kind {
        "ether" => ("O", 2),
        "alcohol" => ("O", 1),
        "amine" => ("N", 3),
        "fluoride" => ("F", 1),
        "chloride" => ("Cl", 1),
        "bromide" => ("Br", 1),
        "iodide" => ("I", 1),
        _ => return None,
    };
    let sound = groups.len() <= most && (kind != "ether" || groups.len() == 2);
    let mut m = Molecule::default();
    let at = m.atom(center, None)?;
    sound.then_some(())?;
    for group in groups {
        branch(&mut m, group, at)?;
    }
    done(m)
}

/// Binds a group by its name to an atom.
fn branch(m: &mut Molecule, name: &str, at: usize) -> Option<()> {
    let group = condensed_branch(BRANCHES.iter().find(|b| b.0 == name)?.1)?;
    m.graft(&group, at)
}

fn condensed_branch(formula: &str) -> Option<Molecule> {
    match formula {
        "F" | "Cl" | "Br" | "I" | "NO2" => {
            let mut m = Molecule::default();
            m.atom(formula, None)?;
            Some(m)
        }
        formula => condensed(formula),
    }
}

/// Numbers of places at the beginning of a text: `2,3-`.
fn places<'a>(text: &mut &'a str) -> Vec<usize> {
    let rest: &'a str = text.strip_prefix('-').unwrap_or(text);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(rest.len());
    let found: Option<Vec<usize>> = rest[..end].split(',').map(|n| n.parse().ok()).collect();
    match (found, rest[end..].strip_prefix('-')) {
        (Some(found), Some(behind)) if end > 0 => {
            *text = behind;
            found
        }
        _ => Vec::new(),
    }
}

/// How often what follows comes: `di`, `tri`.
fn times(text: &mut &str) -> usize {
    let found = [("di", 2), ("tri", 3), ("tetra", 4)].iter().find_map(|(w, n)| Some((text.strip_prefix(w)?, *n)));
    let Some((rest, n)) = found else { return 1 };
    *text = rest;
    n
}

/// A chain with its branches and groups: "4-ethyl-2-methylhexane", "but-2-en-1-ol".
fn systematic(name: &str) -> Option<Named> {
    let name = name.strip_suffix(" acid").filter(|n| n.ends_with("oic")).or((!name.contains(' ')).then_some(name))?;
    let mut rest = name;
    let mut branches: Vec<(Vec<usize>, usize, &str)> = Vec::new();
    let leading = loop {
        let mut here = rest;
        let at = places(&mut here);
        let before = here;
        let mut n = times(&mut here);
        let group = |t: &str| BRANCHES.iter().find(|b| t.starts_with(b.0));
        let found = group(here).or_else(|| {
            (n, here) = (1, before);
            group(here)
        });
        match found {
            // "Ethanol" begins with no ethyl, and "methylene" is no methyl.
            Some((word, _)) if branches.len() < 8 => {
                branches.push((at, n, word));
                rest = here[word.len()..].trim_start_matches('-');
            }
            _ => {
                rest = before;
                break at;
            }
        }
    };
    let mut m = Molecule::default();
    if rest == "benzene" {
        let at: Vec<usize> = branches.iter().flat_map(|b| b.0.clone()).collect();
        let words: Vec<&str> = branches.iter().flat_map(|b| std::iter::repeat_n(b.2, b.1)).collect();
        let ring = match (at.as_slice(), words.len()) {
            ([] | [1], 1) => "C6H5",
            // Places across the ring, either way round.
            ([a, b], 2) if (1..=6).contains(a) && (1..=6).contains(b) && a != b => {
                ["o-C6H4", "m-C6H4", "p-C6H4", "m-C6H4", "o-C6H4"][a.abs_diff(*b) - 1]
            }
            _ => return None,
        };
        let ring = m.atom(ring, None)?;
        for word in words {
            branch(&mut m, word, ring)?;
        }
        return Some(Named { molecule: m, locants: Vec::new(), space: None, alkane: None });
    }
    let (stem, size) = STEMS.iter().find(|s| rest.starts_with(s.0))?;
    rest = &rest[stem.len()..];
    let chain: Vec<usize> = (0..*size).map(|_| m.atom("C", None)).collect::<Option<_>>()?;
    chain.windows(2).for_each(|w| m.bond(w[0], w[1], 1));
    let tail = tail(rest, *size, leading)?;
    let mut locants: Vec<usize> = tail.locants;
    for (places, order) in tail.multiple {
        for p in places {
            m.raise(*chain.get(p.checked_sub(1)?)?, *chain.get(p)?, order)?;
        }
    }
    let plain = branches.is_empty() && tail.group.is_none() && name.ends_with("ane");
    for (at, n, word) in &branches {
        // The one place of short chains need not be said.
        let places = if at.is_empty() && (*size == 1 || (*size == 2 && *n == 1)) { vec![1; *n] } else { at.clone() };
        (places.len() == *n).then_some(())?;
        locants.extend(at);
        for p in places {
            branch(&mut m, word, *chain.get(p.checked_sub(1)?)?)?;
        }
    }
    if let Some((suffix, places)) = tail.group {
        for p in places {
            let c = *chain.get(p.checked_sub(1)?)?;
            let atoms: &[(&str, u8)] = match suffix {
                "ol" => &[("O", 1)],
                "thiol" => &[("S", 1)],
                "amine" => &[("N", 1)],
                "al" | "one" => &[("O", 2)],
                "oic" => &[("O", 2), ("O", 1)],
                _ => &[("N", 3)],
            };
            for (kind, order) in atoms {
                let x = m.atom(kind, None)?;
                m.bond(c, x, *order);
            }
        }
    }
    m.key()?;
    Some(Named { molecule: m, locants, space: None, alkane: plain.then_some(*size) })
}

/// What stands behind the stem of a chain.
struct Tail {
    multiple: Vec<(Vec<usize>, u8)>,
    group: Option<(&'static str, Vec<usize>)>,
    locants: Vec<usize>,
}

fn tail(text: &str, size: usize, leading: Vec<usize>) -> Option<Tail> {
    const SUFFIXES: [&str; 7] = ["ol", "al", "one", "oic", "amine", "nitrile", "thiol"];
    let mut rest = text;
    let mut multiple: Vec<(Vec<usize>, usize, u8)> = Vec::new();
    if let Some(behind) = rest.strip_prefix("an") {
        rest = behind;
    } else {
        for _ in 0..2 {
            // Buta-1,3-diene, butadiene.
            let mut here = rest.strip_prefix('a').unwrap_or(rest);
            let at = places(&mut here);
            let n = times(&mut here);
            let order = if here.starts_with("en") { 2 } else { 3 };
            let Some(behind) = here.strip_prefix("en").or_else(|| here.strip_prefix("yn")) else { break };
            multiple.push((at, n, order));
            rest = behind;
        }
        (!multiple.is_empty()).then_some(())?;
    }
    let closed = rest.strip_prefix('e');
    rest = closed.unwrap_or(rest);
    let mut locants = Vec::new();
    let mut leading = Some(leading);
    let mut group = None;
    if !rest.is_empty() {
        let mut at = places(&mut rest);
        let n = times(&mut rest);
        let suffix = SUFFIXES.iter().find(|s| **s == rest)?;
        let end = matches!(*suffix, "al" | "oic" | "nitrile");
        if at.is_empty() && !end {
            at = leading.take()?;
        }
        locants.extend(&at);
        if at.is_empty() {
            at = match (*suffix, size, n) {
                (_, _, 1) if end => vec![1],
                (_, _, 2) if end => vec![1, size],
                ("one", 3 | 4, 1) => vec![2],
                ("ol" | "amine" | "thiol", 1 | 2, 1) => vec![1],
                _ => return None,
            };
        }
        (at.len() == n).then_some(())?;
        group = Some((*suffix, at));
    } else {
        closed?;
    }
    let mut found = Vec::new();
    for (mut at, n, order) in multiple {
        if at.is_empty() {
            at = leading.take().unwrap_or_default();
        }
        locants.extend(&at);
        if at.is_empty() && n == 1 && size < 4 && (size == 2 || group.is_none()) {
            at = vec![1];
        }
        (at.len() == n).then_some(())?;
        found.push((at, order));
    }
    // Numbers that nothing took.
    leading.unwrap_or_default().is_empty().then_some(Tail { multiple: found, group, locants })
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn names_and_formulas_of_one_molecule_agree() {
        for (a, b, want) in [
            ("ethanol", "CH3CH2OH", true),
            ("ethanol", "C2H5OH", true),
            ("ethanol", "CH3OCH3", false),
            ("propan-2-ol", "2-propanol", true),
            ("propan-2-ol", "CH3CH(OH)CH3", true),
            ("propan-2-ol", "CH3CHOHCH3", true),
            ("propan-2-ol", "propan-1-ol", false),
            ("acetic acid", "ethanoic acid", true),
            ("acetic acid", "CH3COOH", true),
            ("methanoic acid", "HCOOH", true),
            ("formaldehyde", "HCHO", true),
            ("1-butene", "but-1-ene", true),
            ("1-butene", "CH2=CHCH2CH3", true),
            ("2-butene", "but-1-ene", false),
            ("2-methylbutane", "3-methylbutane", false),
            ("isopentane", "2-methylbutane", true),
            ("4-ethyl-2-methylhexane", "2-methyl-4-ethylhexane", true),
            ("ethyl ethanoate", "CH3COOCH2CH3", true),
            ("ethyl acetate", "methyl propanoate", false),
            ("2-methylpropan-2-ol", "(CH3)3COH", true),
            ("acetone", "(CH3)2CO", true),
            ("butanone", "CH3COCH2CH3", true),
            ("diethyl ether", "C2H5OC2H5", true),
            ("methylamine", "CH3NH2", true),
            ("1,2-dibromoethane", "CH2BrCH2Br", true),
            ("toluene", "C6H5CH3", true),
            ("hexane", "CH3(CH2)4CH3", true),
            ("octane", "C8H18", true),
            ("cis-2-butene", "(Z)-but-2-ene", true),
            ("cis-2-butene", "trans-2-butene", false),
            ("(R)-2-butanol", "(2R)-butan-2-ol", true),
            ("p-xylene", "1,4-dimethylbenzene", true),
            ("p-xylene", "1,3-dimethylbenzene", false),
            ("4-nitrotoluene", "1-methyl-4-nitrobenzene", true),
            ("glycine", "H2NCH2COOH", true),
        ] {
            assert_eq!(same(a, b), Some(want), "{a} {b}");
        }
        assert_eq!(same("ethanol", "glass"), None);
    }
}
