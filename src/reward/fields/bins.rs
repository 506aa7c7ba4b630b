//! Classes of a histogram and groups of ages: "from 18 to 24", "18-24 years", "65 and over", `65+`, "under 18", `<18`.

use super::tails;

/// Words before a number and what they make of it; of two that begin alike the longer stands first.
const BEFORE: [(&str, Edge); 33] = [
    ("greater than or equal to", Edge::Least),
    ("less than or equal to", Edge::Most),
    ("no less than", Edge::Least),
    ("not less than", Edge::Least),
    ("no fewer than", Edge::Least),
    ("at least", Edge::Least),
    ("a minimum of", Edge::Least),
    (">=", Edge::Least),
    ("\u{2265}", Edge::Least),
    ("\\geq", Edge::Least),
    ("\\ge", Edge::Least),
    ("no more than", Edge::Most),
    ("not more than", Edge::Most),
    ("at most", Edge::Most),
    ("up to", Edge::Most),
    ("a maximum of", Edge::Most),
    ("<=", Edge::Most),
    ("\u{2264}", Edge::Most),
    ("\\leq", Edge::Most),
    ("\\le", Edge::Most),
    ("over", Edge::Over),
    ("above", Edge::Over),
    ("more than", Edge::Over),
    ("greater than", Edge::Over),
    ("older than", Edge::Over),
    ("larger than", Edge::Over),
    (">", Edge::Over),
    ("under", Edge::Under),
    ("below", Edge::Under),
    ("less than", Edge::Under),
    ("fewer than", Edge::Under),
    ("younger than", Edge::Under),
    ("<", Edge::Under),
];

/// Words behind "and" or "or".
const UPWARD: [&str; 9] = ["over", "older", "above", "more", "up", "greater", "higher", "later", "upwards"];
const DOWNWARD: [&str; 8] = ["under", "younger", "below", "less", "fewer", "lower", "earlier", "smaller"];

/// Words of frame before a class and behind it.
const FRAME: [&str; 18] = [
    "season", "the", "age", "ages", "aged", "years", "year", "yrs", "old", "of", "group", "range", "bin", "class",
    "category", "interval", "people", "$",
];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Edge {
    Least,
    Most,
    Over,
    Under,
    Between,
}

/// Where a class begins or ends, and in what it is counted.
#[derive(PartialEq, Debug)]
struct Bin {
    edge: Edge,
    ends: [f64; 2],
    unit: String,
}

/// The number a text begins with, and what is behind it.
fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim_start_matches(['$', '\u{20ac}', '\u{a3}', ' ']);
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | ',')).unwrap_or(text.len());
    let digits = text[..end].trim_end_matches([',', '.']);
    let plain = digits.replace(',', "");
    let found = plain.bytes().next().is_some_and(|b| b.is_ascii_digit()).then(|| plain.parse().ok()).flatten()?;
    Some((found, &text[digits.len()..]))
}

/// What is left of the words behind a number.
fn unit(words: &str) -> String {
    words.split([' ', ',']).filter(|w| !w.is_empty() && !FRAME.contains(w)).collect::<Vec<_>>().join(" ")
}

fn bin(text: &str) -> Option<Bin> {
    let mut text = text.trim();
    while let Some(rest) = FRAME.iter().find_map(|w| text.strip_prefix(w)?.strip_prefix(' ')) {
        text = rest.trim_start();
    }
    if let Some((words, edge)) = BEFORE.iter().find(|b| text.starts_with(b.0)) {
        let rest = &text[words.len()..];
        let rest = rest.trim_start().strip_prefix("the age of").unwrap_or(rest).trim_start();
        let (n, behind) = number(rest.strip_prefix("age ").unwrap_or(rest))?;
        let unit = unit(behind);
        return plain(&unit).then_some(Bin { edge: *edge, ends: [n, n], unit });
    }
    // The 1990s.
    if let Some((from, "s")) = number(text)
        && year(from)
        && from % 10.0 == 0.0
    {
        let to = from + if from % 100.0 == 0.0 { 99.0 } else { 9.0 };
        return Some(Bin { edge: Edge::Between, ends: [from, to], unit: String::new() });
    }
    let between = text.strip_prefix("between ");
    let (low, rest) = number(between.or(text.strip_prefix("from ")).unwrap_or(text))?;
    let (first, rest) = match rest.find(['-', '+', '/']).filter(|at| rest[..*at].chars().all(|c| c == ' ' || c == '%'))
    {
        Some(at) => (&rest[..at], &rest[at..]),
        None => ["and ", "or ", "to ", "through ", "until "]
            .iter()
            .find_map(|w| rest.find(&format!(" {w}")))
            .map(|at| (&rest[..at], &rest[at + 1..]))?,
    };
    let first = unit(first);
    // 2019/20
    let season = |high: f64| year(low) && [low + 1.0, (low + 1.0) % 100.0].contains(&high);
    if let Some((high, behind)) = rest.strip_prefix('/').and_then(number) {
        let sound = season(high) && unit(behind).is_empty();
        return sound.then_some(Bin { edge: Edge::Between, ends: [low, low + 1.0], unit: first });
    }
    if let Some(behind) = rest.strip_prefix('+') {
        let unit = format!("{first}{}", unit(behind));
        return plain(&unit).then_some(Bin { edge: Edge::Least, ends: [low, low], unit });
    }
    if let (Some(way), None) = (rest.strip_prefix("and ").or(rest.strip_prefix("or ")), between) {
        let (way, behind) = way.split_once(' ').unwrap_or((way, ""));
        let edge = match way {
            w if UPWARD.contains(&w) => Edge::Least,
            w if DOWNWARD.contains(&w) => Edge::Most,
            _ => return None,
        };
        let unit = format!("{first}{}", unit(behind));
        return plain(&unit).then_some(Bin { edge, ends: [low, low], unit });
    }
    let joints: &[&str] = if between.is_some() { &["and "] } else { &["to ", "through ", "until ", "-"] };
    let rest = joints.iter().find_map(|j| rest.strip_prefix(j))?;
    let (high, behind) = number(rest)?;
    let unit = unit(behind);
    // 2010-11
    let short = year(low) && high < 100.0 && (low % 100.0) < high;
    let high = if short { low - low % 100.0 + high } else { high };
    let sound = low < high && plain(&unit) && (first.is_empty() || first == unit);
    sound.then_some(Bin { edge: Edge::Between, ends: [low, high], unit })
}

fn year(n: f64) -> bool {
    (1_000.0..3_000.0).contains(&n)
}

/// True for a unit rather than more of an answer.
fn plain(unit: &str) -> bool {
    unit.split(' ').count() < 3 && unit.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '%'))
}

fn read(text: &str) -> Option<Bin> {
    // Formulas and bare numbers are none.
    let said = |c: char| c.is_alphabetic() || !c.is_ascii() || matches!(c, '-' | '<' | '>' | '+' | '/' | '\\');
    let formula = text.contains(['^', '_', '=', '(', '|']) || text.contains("\\frac");
    if formula || !text.contains(|c: char| c.is_ascii_digit()) || !text.contains(said) {
        return None;
    }
    let text = text.replace(['\u{2010}', '\u{2011}', '\u{2012}', '\u{2013}', '\u{2014}', '\u{2212}'], "-");
    let text = super::heading::upright(&text).replace("\\%", "%").replace("\\$", "$").to_lowercase();
    let text = text.trim().trim_matches(['.', '$']);
    tails(text, &[" from ", " between "]).find_map(bin)
}

pub(super) fn same(gold: &str, answer: &str) -> Option<bool> {
    let (a, b) = (read(gold)?, read(answer)?);
    // Other units may come to the same.
    (a.unit == b.unit).then_some(a == b)
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn classes_in_words_and_signs() {
        for (a, b, want) in [
            ("18-24", "from 18 to 24", Some(true)),
            ("18\u{2013}24", "18 to 24 years old", Some(true)),
            ("65+", "65 years and older", Some(true)),
            ("<18", "under 18", Some(true)),
            ("2010-11", "2010 to 2011", Some(true)),
            ("between 10 and 20", "10-20", Some(true)),
            ("2019/20", "2019-2020", Some(true)),
            ("1990s", "1990-1999", Some(true)),
            ("1/2", "1 to 2", None),
            ("65+", "under 65", Some(false)),
            ("18-24", "18 to 25", Some(false)),
            ("2010-2015", "The share falls from 2010 to 2015", Some(true)),
            ("x > 5", "over 5", None),
            ("3 - 5x", "3 to 5", None),
        ] {
            assert_eq!(same(a, b), want, "{a} {b}");
        }
    }
}
