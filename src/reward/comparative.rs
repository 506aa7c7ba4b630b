//! "Tom is 4 years older than Ana" and "Ana is 4 years younger than Tom".

use super::math::{self, Steps};
use super::words;

/// Words and their opposites.
const PAIRS: [(&str, &str); 22] = [
    ("older", "younger"),
    ("taller", "shorter"),
    ("longer", "shorter"),
    ("higher", "lower"),
    ("heavier", "lighter"),
    ("faster", "slower"),
    ("bigger", "smaller"),
    ("larger", "smaller"),
    ("greater", "less"),
    ("greater", "smaller"),
    ("more", "less"),
    ("more", "fewer"),
    ("hotter", "colder"),
    ("warmer", "cooler"),
    ("wider", "narrower"),
    ("deeper", "shallower"),
    ("richer", "poorer"),
    ("stronger", "weaker"),
    ("thicker", "thinner"),
    ("farther", "nearer"),
    ("later", "earlier"),
    ("cheaper", "dearer"),
];

/// Two that are compared, by how much, and in what.
struct Comparative<'a> {
    first: &'a str,
    amount: &'a str,
    word: &'a str,
    second: &'a str,
}

fn read(text: &str) -> Option<Comparative<'_>> {
    let text = text.trim().trim_end_matches('.');
    let (left, second) = text.split_once(" than ")?;
    let (first, rest) = left.split_once(" is ").or_else(|| left.split_once(" are "))?;
    let (amount, word) = rest.rsplit_once(' ').unwrap_or(("", rest));
    let known = PAIRS.iter().any(|p| p.0 == word || p.1 == word);
    known.then_some(Comparative { first, amount, word, second })
}

/// Whether two comparisons say the same; `None` where one of the texts is none.
pub(super) fn same(gold: &str, answer: &str, steps: &Steps) -> Option<bool> {
    let (a, b) = (read(gold)?, read(answer)?);
    let named = |x: &str, y: &str| words::same(x, y);
    let amounts = || {
        let value = |t: &str| math::parse(t, true, steps);
        (a.amount.is_empty() && b.amount.is_empty()) || math::equal(&value(a.amount), &value(b.amount), steps).equal
    };
    let opposite = PAIRS.iter().any(|p| (p.0 == a.word && p.1 == b.word) || (p.1 == a.word && p.0 == b.word));
    let straight = a.word == b.word && named(a.first, b.first) && named(a.second, b.second);
    let turned = opposite && named(a.first, b.second) && named(a.second, b.first);
    Some((straight || turned) && amounts())
}
