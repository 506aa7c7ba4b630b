//! Genotypes: `Aa`, `TtRr`, `I^A i`, `X^{b}Y`. The case of a letter and what stands above it tell one allele from the
//! other, the order of two alleles tells nothing. Crosses of two, and blood types.

use super::super::answer::bare;
use super::super::math;
use super::super::words::tables::{all_as, is_wordless};

/// Most alleles of a genotype.
const MAX: usize = 12;

/// What genotypes are called.
const ZYGOSITY: [&str; 7] =
    ["heterozygous", "heterozygote", "homozygous", "homozygous dominant", "homozygous recessive", "hybrid", "carrier"];

/// The alleles of each gene, in one order; a text of plain letters is one where they come in pairs.
fn read(text: &str) -> Option<Vec<[String; 2]>> {
    let text = &*bare(text);
    let text = match text.strip_suffix(')').and_then(|t| t.split_once(" (")) {
        Some((genotype, said)) if ZYGOSITY.contains(&&*said.to_lowercase()) => genotype,
        Some((said, genotype)) if ZYGOSITY.contains(&&*said.to_lowercase()) => genotype,
        _ => text,
    };
    let text = all_as(math::ascii(text), &["\\text", "\\mathrm", "\\mathit", "\\,", "\\ ", "$", " "], "");
    let mut rest = text.trim_end_matches('.');
    let mut alleles: Vec<String> = Vec::new();
    while let Some(gene) = rest.chars().next() {
        rest = rest.strip_prefix(gene).filter(|_| gene.is_ascii_alphabetic() && alleles.len() < MAX)?;
        let Some(above) = rest.strip_prefix('^') else {
            alleles.push(gene.to_string());
            continue;
        };
        let (allele, behind) = match above.strip_prefix('{') {
            Some(braced) => braced.split_once('}')?,
            None => above.split_at_checked(1)?,
        };
        let known = allele.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-'));
        (known && (1..=4).contains(&allele.len())).then_some(())?;
        alleles.push(format!("{gene}^{allele}"));
        rest = behind;
    }
    let letter = |a: &String| a.chars().next().map(|c| c.to_ascii_uppercase());
    let sexes = |p: &[String]| p.iter().all(|a| matches!(letter(a), Some('X' | 'Y')));
    let sound = |p: &[String]| p.len() == 2 && (letter(&p[0]) == letter(&p[1]) || sexes(p));
    (!alleles.is_empty() && alleles.chunks(2).all(sound)).then_some(())?;
    let mut genes: Vec<[String; 2]> = alleles
        .chunks(2)
        .filter_map(|p| <[String; 2]>::try_from(p.to_vec()).ok())
        .map(|mut p| {
            p.sort();
            p
        })
        .collect();
    genes.sort();
    Some(genes)
}

/// The parents of a cross, in one order.
fn cross(text: &str) -> Option<[Vec<[String; 2]>; 2]> {
    let text = text.replace("\\times", "\u{d7}").replace(" x ", "\u{d7}").replace(" X ", "\u{d7}");
    let (a, b) = text.split_once('\u{d7}')?;
    let mut parents = [read(a)?, read(b)?];
    parents.sort();
    Some(parents)
}

/// A blood type, and whether it is told by more than its letters: "type O", "AB negative", `O-`.
fn blood(text: &str) -> Option<(String, bool)> {
    let text = super::heading::upright(text).replace('\u{2212}', "-").replace(['$', '^', '{', '}'], "");
    let mut rest = text.trim().trim_end_matches('.');
    while let Some(behind) = ["blood ", "Blood ", "type ", "Type ", "group "].iter().find_map(|w| rest.strip_prefix(w))
    {
        rest = behind;
    }
    let (letters, factor) = ["AB", "A", "B", "O"].iter().find_map(|t| Some((*t, rest.strip_prefix(t)?.trim())))?;
    let sign = match factor.to_lowercase().as_str() {
        "" => "",
        "+" | "positive" | "rh+" => "+",
        "-" | "negative" | "rh-" => "-",
        _ => return None,
    };
    Some((format!("{letters}{sign}"), rest.len() < text.len() || factor.len() > 1))
}

pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    const LONGEST: usize = 120;
    let other = |t: &str| t.len() > LONGEST || t.contains(|c: char| c.is_ascii_digit() || c == '=');
    if other(gold) || other(answer) {
        return None;
    }
    if let (Some(a), Some(b)) = (cross(gold), cross(answer)) {
        return Some(a == b);
    }
    if let (Some((a, told)), Some((b, said))) = (blood(gold), blood(answer))
        && (told || said)
    {
        return Some(a == b);
    }
    if is_wordless(gold) || is_wordless(answer) {
        return None;
    }
    let (a, b) = (read(gold)?, read(answer)?);
    // Where the letters are others, they may be names of something else.
    let letters = |genes: &[[String; 2]]| {
        genes.iter().map(|p| p[0].chars().next().map(|c| c.to_ascii_uppercase())).collect::<Vec<_>>()
    };
    (a == b || letters(&a) == letters(&b)).then_some(a == b)
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn alleles_are_told_by_their_case() {
        for (a, b, want) in [
            ("Aa", "aA", Some(true)),
            ("Aa", "\\text{AA}", Some(false)),
            ("AaBb", "Bb Aa", Some(true)),
            ("X^bY", "X^{b}Y", Some(true)),
            ("X^bY", "X^{B}Y", Some(false)),
            ("I^A i", "I^{A}i", Some(true)),
            ("I^A I^B", "I^A i", Some(false)),
            ("x^2 x", "x^{2}x", None),
            ("AB", "BA", None),
            ("Tt", "Tt (heterozygous)", Some(true)),
            ("Aa \u{d7} aa", "aa x Aa", Some(true)),
            ("Aa x aa", "Aa x Aa", Some(false)),
            ("AB", "blood type AB", Some(true)),
            ("O-", "O positive", Some(false)),
        ] {
            assert_eq!(same(a, b), want, "{a} {b}");
        }
    }
}
