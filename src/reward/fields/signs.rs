//! What sign a quantity has: `\\Delta S > 0`, "the entropy change is positive", "positive".

use super::super::words;
use super::super::words::tables::replaced;

/// Words of a comparison with nought, each with its sign; of two that end alike the longer stands first.
const WORDS: [(&str, &str); 25] = [
    ("greater than or equal to zero", ">="),
    ("greater than or equal to 0", ">="),
    ("less than or equal to zero", "<="),
    ("less than or equal to 0", "<="),
    ("non-negative", ">="),
    ("nonnegative", ">="),
    ("not negative", ">="),
    ("non-positive", "<="),
    ("nonpositive", "<="),
    ("not positive", "<="),
    ("greater than zero", ">"),
    ("greater than 0", ">"),
    ("more than zero", ">"),
    ("larger than zero", ">"),
    ("less than zero", "<"),
    ("less than 0", "<"),
    ("smaller than zero", "<"),
    ("below zero", "<"),
    ("above zero", ">"),
    ("equal to zero", "="),
    ("equal to 0", "="),
    ("positive", ">"),
    ("negative", "<"),
    ("zero", "="),
    ("nonzero", "!="),
];

/// Quantities by their letters and words of their names.
const QUANTITIES: [(&str, &[&str]); 11] = [
    ("S", &["entropy"]),
    ("H", &["enthalpy"]),
    ("G", &["gibbs energy", "gibbs free energy", "free energy"]),
    ("U", &["internal energy"]),
    ("W", &["work"]),
    ("w", &["work"]),
    ("Q", &["heat"]),
    ("q", &["heat", "charge"]),
    ("T", &["temperature"]),
    ("a", &["acceleration"]),
    ("v", &["velocity"]),
];

struct Signed {
    /// A symbol, words, or nothing.
    name: String,
    sign: &'static str,
    /// By a sign of comparison, not in words.
    written: bool,
}

fn read(text: &str) -> Option<Signed> {
    const SIGNS: [(&str, &str); 19] = [
        ("\\Delta", "\u{394}"),
        ("\\geq", ">="),
        ("\\ge", ">="),
        ("\\leq", "<="),
        ("\\le", "<="),
        ("\u{2265}", ">="),
        ("\u{2264}", "<="),
        ("\\gt", ">"),
        ("\\lt", "<"),
        ("\\(", ""),
        ("\\)", ""),
        ("$", ""),
        ("\\mathrm", ""),
        ("\\text", ""),
        ("\\,", ""),
        ("\\ ", " "),
        ("{", ""),
        ("}", ""),
        ("\u{394} ", "\u{394}"),
    ];
    let text = replaced(text.trim().trim_end_matches('.'), &SIGNS);
    if let Some((name, sign)) =
        [">=", "<=", ">", "<"].iter().find_map(|s| Some((text.strip_suffix('0')?.trim_end().strip_suffix(s)?, *s)))
    {
        let name = name.trim().to_owned();
        return (!name.is_empty() && !name.contains(['<', '>', '='])).then_some(Signed { name, sign, written: true });
    }
    let lower = text.to_lowercase();
    let (said, sign) = WORDS.iter().find(|w| lower.ends_with(w.0))?;
    let head = text.get(..text.len().checked_sub(said.len())?)?.trim_end();
    let copulas = [" is", " must be", " will be", " has to be", " should be", " would be", " becomes", " was"];
    let name = copulas.iter().find_map(|c| head.strip_suffix(c)).unwrap_or(head);
    let idle = matches!(name.to_lowercase().as_str(), "" | "it" | "it is" | "its sign" | "the sign" | "sign");
    (idle || (name.len() < head.len() && !words::turned(head))).then(|| Signed {
        name: if idle { String::new() } else { name.to_owned() },
        sign,
        written: false,
    })
}

/// Whether both names are of one quantity; the symbol may stand behind its name: "the entropy change \u{394}S".
fn named(symbol: &str, name: &str) -> bool {
    let last = name.rsplit(' ').next().unwrap_or_default();
    let lower = name.to_lowercase();
    let letter = symbol.trim_start_matches('\u{394}');
    let change = symbol.starts_with('\u{394}');
    let mut known = QUANTITIES.iter().filter(|q| q.0 == letter).flat_map(|q| q.1);
    last == symbol
        || (!name.contains('\u{394}') && known.any(|w| lower.contains(w)) && (change || !lower.contains("change")))
}

/// True where both tell one sign of one quantity, one of them by a sign of comparison.
pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let written = |t: &str| t.contains(['<', '>', '\u{2264}', '\u{2265}']) || t.contains("\\g") || t.contains("\\l");
    (written(gold) != written(answer)).then_some(())?;
    let (a, b) = (read(gold)?, read(answer)?);
    let name = |n: &Signed| n.name.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    // A bare letter is an unknown, and its bounds a set.
    let symbol = |n: &Signed| n.name.chars().count() > 1;
    let alike = match (a.written, b.written) {
        (true, false) => (b.name.is_empty() && symbol(&a)) || named(&name(&a), &b.name),
        (false, true) => (a.name.is_empty() && symbol(&b)) || named(&name(&b), &a.name),
        _ => return None,
    };
    (alike && a.sign == b.sign).then_some(true)
}
