//! Labels of options and statements: `II`, `(iv)`, a number in a circle, `Choice 2`, `I and III only`.

use std::collections::BTreeSet;

use super::words::fold;

/// What options are called.
const NOUNS: [&str; 44] = [
    "option",
    "options",
    "choice",
    "choices",
    "statement",
    "statements",
    "item",
    "items",
    "case",
    "cases",
    "answer",
    "answers",
    "figure",
    "figures",
    "graph",
    "graphs",
    "diagram",
    "diagrams",
    "panel",
    "panels",
    "part",
    "parts",
    "conclusion",
    "conclusions",
    "assumption",
    "assumptions",
    "condition",
    "conditions",
    "argument",
    "arguments",
    "alternative",
    "alternatives",
    "proposition",
    "propositions",
    "picture",
    "pictures",
    "image",
    "images",
    "assertion",
    "reason",
    "course",
    "quadrant",
    "claim",
    "claims",
];

/// How a label is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Face {
    Roman,
    Number,
}

/// Labels of options or statements.
#[derive(PartialEq, Debug)]
pub(super) struct Labels {
    labels: BTreeSet<(Face, u32)>,
    /// "II only".
    only: bool,
    /// "II or III": one of them.
    either: bool,
    /// "Neither I nor II".
    neither: bool,
    /// The labels are said to be false.
    denied: bool,
    /// A noun, brackets or a circle say that these are labels.
    sure: bool,
}

/// The value of a Roman numeral of labels, up to 39, in capital or in small letters.
fn roman(text: &str) -> Option<u32> {
    const ONES: [&str; 10] = ["", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"];
    let one_case = text.chars().all(|c| c.is_lowercase()) || text.chars().all(|c| c.is_uppercase());
    let lower = text.to_ascii_lowercase();
    let tens = lower.chars().take_while(|c| *c == 'x').count();
    let ones = ONES.iter().position(|o| *o == &lower[tens..])?;
    (one_case && tens < 4 && !text.is_empty()).then_some((tens * 10 + ones) as u32)
}

/// The number in a circle or in brackets of one character, or a Roman numeral of one.
fn enclosed(c: char) -> Option<(Face, u32)> {
    let code = c as u32;
    Some(match code {
        0x2460..=0x2473 => (Face::Number, code - 0x2460 + 1),
        0x2474..=0x2487 => (Face::Number, code - 0x2474 + 1),
        0x2488..=0x249b => (Face::Number, code - 0x2488 + 1),
        0x24f5..=0x24fe => (Face::Number, code - 0x24f5 + 1),
        0x2776..=0x277f => (Face::Number, code - 0x2776 + 1),
        0x2780..=0x2789 => (Face::Number, code - 0x2780 + 1),
        0x278a..=0x2793 => (Face::Number, code - 0x278a + 1),
        0x2160..=0x216b => (Face::Roman, code - 0x2160 + 1),
        0x2170..=0x217b => (Face::Roman, code - 0x2170 + 1),
        _ => return None,
    })
}

/// The labels that are the whole of an answer; `None` where anything else is said.
pub(super) fn read(text: &str) -> Option<Labels> {
    if text.len() > 200 {
        return None;
    }
    let circled = text.contains("circled");
    let plain = fold::plain(&text.replace("\\circled", "\\textcircled"));
    let mut out =
        Labels { labels: BTreeSet::new(), only: false, either: false, neither: false, denied: false, sure: circled };
    let mut spaced = String::with_capacity(plain.len() + 8);
    for c in plain.chars() {
        match enclosed(c) {
            Some((Face::Number, n)) => {
                out.sure = true;
                out.labels.insert((Face::Number, n));
                spaced.push(' ');
            }
            Some((Face::Roman, n)) => {
                out.labels.insert((Face::Roman, n));
                spaced.push(' ');
            }
            None => spaced.push(c),
        }
    }
    let parted = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | '&' | '$' | '*' | '{' | '}');
    let (mut joined, mut affirmed) = (0, false);
    for raw in spaced.split(parted).filter(|w| !w.is_empty()) {
        let word = raw.trim_matches(['(', ')', '[', ']', '.', ':', '#', '"']);
        // Numbers as they are called in Korean, Chinese and Japanese.
        let word = word.trim_end_matches(['\u{bc88}', '\u{53f7}', '\u{756a}', '\u{9898}']);
        // QIII
        let word = word.strip_prefix('Q').filter(|w| w.starts_with('I')).inspect(|_| out.sure = true).unwrap_or(word);
        let lower = word.to_ascii_lowercase();
        if word.is_empty() {
            continue;
        }
        if NOUNS.contains(&lower.as_str()) || lower == "no" && raw.ends_with('.') {
            out.sure = true;
            continue;
        }
        match lower.as_str() {
            "only" | "just" | "alone" => out.only = true,
            "or" | "either" => out.either = true,
            "neither" | "nor" => out.neither = true,
            "of" => {}
            // The third quadrant.
            "first" | "second" | "third" | "fourth" if plain.to_ascii_lowercase().contains("quadrant") => {
                let n = ["first", "second", "third", "fourth"].iter().position(|o| *o == lower)? as u32 + 1;
                out.labels.insert((Face::Number, n));
            }
            "and" | "both" | "all" => joined += 1,
            "true" | "correct" | "right" | "valid" => affirmed = true,
            "the" | "is" | "are" | "number" | "it" | "so" | "thus" => {}
            "false" | "incorrect" | "wrong" | "invalid" => out.denied = true,
            _ => {
                let bracketed = raw.starts_with('(') && raw.trim_end_matches(['.', ':']).ends_with(')');
                let number = word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok()).flatten();
                let label = match (number, roman(word)) {
                    (Some(n), _) if n < 100 => (Face::Number, n),
                    (None, Some(n)) => (Face::Roman, n),
                    _ => return None,
                };
                out.sure |= bracketed;
                if !out.labels.insert(label) {
                    return None;
                }
            }
        }
    }
    let some = |face: Face| out.labels.iter().any(|l| l.0 == face);
    // Two Roman numerals, or one of several letters, are no letters of mathematics.
    let long = out.labels.iter().any(|&(face, n)| face == Face::Roman && ![1, 5, 10].contains(&n));
    out.sure |= some(Face::Roman) && (long || out.only || joined > 0 || out.either || out.neither);
    // One is true and another false: more than labels.
    let mixed = affirmed && out.denied;
    (!out.labels.is_empty() && !mixed).then_some(out)
}

impl Labels {
    /// Whether both name the same; `None` where neither is sure to be labels, or their faces are not alike.
    pub(super) fn same(&self, other: &Labels) -> Option<bool> {
        let values = |l: &Labels| l.labels.iter().map(|x| x.1).collect::<BTreeSet<u32>>();
        let faces = |l: &Labels| l.labels.iter().map(|x| x.0).collect::<BTreeSet<Face>>();
        if !(self.sure || other.sure) {
            return None;
        }
        let sense = |l: &Labels| (l.only, l.either, l.neither);
        let same = values(self) == values(other) && sense(self) == sense(other);
        if faces(self) != faces(other) {
            // (iv) and 4.
            return same.then_some(true);
        }
        Some(same && self.denied == other.denied)
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    fn same(a: &str, b: &str) -> Option<bool> {
        read(a)?.same(&read(b)?)
    }

    #[test]
    fn labels_in_their_faces() {
        for (a, b) in [
            ("I and III", "both III and I"),
            ("II only", "only II"),
            ("(2)", "Choice 2"),
            ("\u{2462}", "(3)"),
            ("(iv)", "iv"),
            ("statement II is true", "Statement (II)"),
            ("I, II and III", "All of I, II, III".split(" of ").last().unwrap_or_default()),
            ("\u{2163}", "IV"),
        ] {
            assert_eq!(same(a, b), Some(true), "{a} {b}");
        }
        for (a, b) in [
            ("(iv)", "(vi)"),
            ("ix", "xi"),
            ("I and II only", "I and III only"),
            ("II only", "II"),
            ("I or II", "I and II"),
        ] {
            assert_eq!(same(a, b), Some(false), "{a} {b}");
        }
        for text in ["x + 1", "red", "vix", "(1, 2) and 3 more"] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
