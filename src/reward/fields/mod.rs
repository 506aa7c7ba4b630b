//! Answers of single fields that are neither values nor plain words: headings and places on the Earth, changes by a
//! factor, currents with their ends, values with lopsided errors, genotypes, rows of bases and amino acids, oxidation
//! states, counts of nothing, labels with their nouns, matchings, signs, pitches, symmetries, laws of proportion. Each
//! reader takes what is wholly its own, and two answers are compared only where the same reader takes both.

mod absent;
mod bins;
mod charges;
mod crosses;
mod flow;
mod genotype;
mod heading;
pub(super) mod ions;
mod laws;
mod matching;
mod molecule;
mod numbered;
pub(super) mod organic;
mod period;
mod pitch;
mod place;
mod residues;
mod scale;
mod signs;
mod spread;
mod symmetry;
mod tokens;

use super::math::{self, Steps};

/// Longest text that is read here.
const MAX: usize = 200;

/// Whether two answers of one field say the same, and which rule says so; `None` where they are of none.
pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<(bool, &'static str)> {
    if gold.len() > MAX || answer.len() > MAX {
        return None;
    }
    steps.spend((gold.len() + answer.len()) as u64)?;
    let told = |same: Option<bool>, yes, no| same.map(|s| (s, if s { yes } else { no }));
    if super::labels::of_other_kinds(gold, answer) {
        return Some((false, "labels of other kinds"));
    }
    told(absent::same(gold, answer), "a count of none", "")
        .or_else(|| {
            told(flow::same(gold, answer, steps), "the same between the same ends", "another one between the ends")
        })
        .or_else(|| told(place::same(gold, answer), "the same place", "another place"))
        .or_else(|| told(heading::same(gold, answer, steps), "the same direction", "another direction"))
        .or_else(|| told(scale::same(gold, answer, steps), "the same factor", "another factor"))
        .or_else(|| told(spread::same(gold, answer, steps), "the same errors", "other errors"))
        .or_else(|| told(bins::same(gold, answer), "the same class of values", "another class of values"))
        .or_else(|| told(period::same(gold, answer), "the same period", "another period"))
        .or_else(|| told(genotype::same(gold, answer), "the same genotype", "another genotype"))
        .or_else(|| told(crosses::same(gold, answer), "the same cross", "another cross"))
        .or_else(|| told(residues::same(gold, answer), "the same row of residues", "another row of residues"))
        .or_else(|| told(charges::same(gold, answer), "the same charges", "other charges"))
        .or_else(|| told(signs::same(gold, answer), "the same sign", "another sign"))
        .or_else(|| told(pitch::same(gold, answer), "the same pitch or key", "another pitch or key"))
        .or_else(|| told(symmetry::same(gold, answer, steps), "the same symmetry", "another symmetry"))
        .or_else(|| told(unit(gold, answer, steps), "the same unit", ""))
        .or_else(|| told(numbered::same(gold, answer), "the same label", "another label"))
        .or_else(|| told(matching::same(gold, answer), "the same matching", "another matching"))
        .or_else(|| told(math::same_constant(gold, answer), "the same constant function", ""))
        .or_else(|| told(math::same_whole(gold, answer, steps), "the same whole numbers", "other whole numbers"))
        .or_else(|| told(laws::same(gold, answer, steps), "the same law or size", "another law or size"))
}

pub(super) use spread::absolute;

/// Whether two texts have equal values.
fn equal(a: &str, b: &str, steps: &Steps) -> bool {
    math::equal(&math::parse(a, true, steps), &math::parse(b, true, steps), steps).equal
}

/// Whether both are one unit, one at least by its name: `N` and "newton"; letters of options are none.
fn unit(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    let bare = |t: &str| heading::upright(t).trim_matches(['$', '.', ' ']).to_owned();
    let (a, b) = (bare(gold), bare(answer));
    let named = |t: &str| t.split([' ', '-', '/']).any(|w| w.len() > 3 && w.bytes().all(|c| c.is_ascii_alphabetic()));
    let known = |t: &str| {
        let value = math::parse(&format!("1 {t}"), true, steps);
        matches!(value, math::Value::Scalar(e, Some(math::Unit::Measure(m))) if !e.has_variables() && m.is_physical())
    };
    // Digits are powers alone: a turn of 90 degrees is no unit.
    let plain = |t: &str| {
        let powers =
            ["^2", "^3", "^{2}", "^{3}", "^-1", "^{-1}", "^{-2}"].iter().fold(t.to_owned(), |t, p| t.replace(p, ""));
        t.len() < 40 && !powers.contains(|c: char| c.is_ascii_digit() || "(){}\\^=,".contains(c))
    };
    let letter = super::choice::letter(gold).is_some();
    let one = !letter && plain(&a) && plain(&b) && (named(&a) || named(&b)) && known(&a) && known(&b);
    (one && equal(&format!("1 {a}"), &format!("1 {b}"), steps)).then_some(true)
}

/// The text, and what stands behind one of the joints where nothing before it is a number or turns the sense.
fn tails<'a>(text: &'a str, joints: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let sound = |head: &str| !head.contains(|c: char| c.is_ascii_digit()) && !super::words::turned(head);
    let behind = joints.iter().flat_map(move |j| {
        text.match_indices(j).filter(move |(at, _)| sound(&text[..*at])).map(move |(at, _)| text[at..].trim_start())
    });
    std::iter::once(text).chain(behind)
}
