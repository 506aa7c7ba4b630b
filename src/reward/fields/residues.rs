//! Rows of residues: strands of bases, read from the 5' end, and chains of amino acids, read from the N-terminus, in
//! codes of three letters, codes of one letter or full names.

use super::super::math;
use super::super::words::tables::{is_wordless, replaced};

/// The amino acids: codes of one letter and of three, and names.
const AMINO_ACIDS: [(char, &str, &str); 20] = [
    ('A', "ala", "alanine"),
    ('R', "arg", "arginine"),
    ('N', "asn", "asparagine"),
    ('D', "asp", "aspartate"),
    ('C', "cys", "cysteine"),
    ('Q', "gln", "glutamine"),
    ('E', "glu", "glutamate"),
    ('G', "gly", "glycine"),
    ('H', "his", "histidine"),
    ('I', "ile", "isoleucine"),
    ('L', "leu", "leucine"),
    ('K', "lys", "lysine"),
    ('M', "met", "methionine"),
    ('F', "phe", "phenylalanine"),
    ('P', "pro", "proline"),
    ('S', "ser", "serine"),
    ('T', "thr", "threonine"),
    ('W', "trp", "tryptophan"),
    ('Y', "tyr", "tyrosine"),
    ('V', "val", "valine"),
];

fn plain(text: &str) -> String {
    const SIGNS: [(&str, &str); 9] = [
        ("^\\prime", "'"),
        ("^{\\prime}", "'"),
        ("\\text", ""),
        ("\\mathrm", ""),
        ("$", ""),
        ("{", ""),
        ("}", ""),
        ("\\to", "-"),
        ("->", "-"),
    ];
    replaced(math::ascii(text), &SIGNS).trim().trim_end_matches('.').to_owned()
}

/// The amino acid of a code of three letters or a name; behind it others may be bound: glycyl.
fn residue(word: &str) -> Option<char> {
    let lower = word.to_lowercase();
    let coded = word.starts_with(|c: char| c.is_ascii_uppercase());
    let stem = |name: &'static str| name.strip_suffix("ine").or(name.strip_suffix("ate")).unwrap_or(name);
    let known = |a: &&(char, &str, &'static str)| {
        (coded && a.1 == lower) || a.2 == lower || lower.strip_suffix("yl") == Some(stem(a.2))
    };
    AMINO_ACIDS.iter().find(known).map(|a| a.0)
}

/// A chain of amino acids, in plain signs, in codes of one letter.
fn chain(text: &str) -> Option<String> {
    let text = replaced(text, &[("aspartic acid", "aspartate"), ("glutamic acid", "glutamate")]);
    let text = ["H2N-", "NH2-", "N-", "H-"].iter().find_map(|end| text.strip_prefix(end)).unwrap_or(&text);
    let text = ["-COOH", "-CO2H", "-OH", "-C"].iter().find_map(|end| text.strip_suffix(end)).unwrap_or(text);
    text.split('-').map(|word| residue(word.trim())).collect()
}

/// A strand of bases, in plain signs, from its 5' end; one whose ends are not told begins with it.
fn strand(text: &str) -> Option<String> {
    let text: String = text.chars().filter(|c| *c != ' ').collect();
    let inner = |from: &str, to: &str| text.strip_prefix(from)?.strip_suffix(to).map(str::to_owned);
    let bases = match (inner("5'", "3'"), inner("3'", "5'")) {
        (Some(bases), _) => bases,
        (None, Some(bases)) => bases.chars().rev().collect(),
        (None, None) => text,
    };
    let bases: String = bases.chars().filter(|c| *c != '-').collect();
    (bases.len() > 2 && bases.chars().all(|c| "ACGTUN".contains(c))).then_some(bases)
}

/// Whether two rows are the same; `None` where one of them is none, or where both may be something else.
pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    if is_wordless(gold) || is_wordless(answer) {
        return None;
    }
    let (gold, answer) = (&*plain(gold), &*plain(answer));
    let ended = |t: &str| t.contains('\'');
    if ended(gold) || ended(answer) {
        let (a, b) = (strand(gold)?, strand(answer)?);
        // Letters beside a strand told from its 3' end may be in either order.
        let backward = |t: &str| t.trim_start().starts_with('3');
        return (a == b || ended(gold) == ended(answer) || !(backward(gold) || backward(answer))).then(|| a == b);
    }
    let codes =
        |t: &str| (t.len() > 1 && t.chars().all(|c| AMINO_ACIDS.iter().any(|a| a.0 == c))).then(|| t.to_owned());
    match (chain(gold), chain(answer)) {
        (Some(a), Some(b)) => Some(a == b),
        (Some(a), None) => Some(a == codes(answer)?),
        (None, Some(b)) => Some(codes(gold)? == b),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn rows_are_read_from_their_beginnings() {
        assert_eq!(same("3'-TACGG-5'", "5'-GGCAT-3'"), Some(true));
        assert_eq!(same("3'-TACGG-5'", "5'-TACGG-3'"), Some(false));
        assert_eq!(same("Met-Ala-Gly", "methionine\u{2013}alanine\u{2013}glycine"), Some(true));
        assert_eq!(same("Met-Ala-Gly", "Met-Gly-Ala"), Some(false));
        assert_eq!(same("MAG", "Met-Ala-Gly"), Some(true));
        assert_eq!(same("Ala-Ser", "alanylserine"), None);
    }
}
