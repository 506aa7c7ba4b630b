//! Labels of options and statements: `II`, `(iv)`, a number in a circle, `Choice 2`, `I and III only`.

use std::collections::BTreeSet;

use super::words::fold;
use super::words::tables::among;

/// What options are called.
const NOUNS: &str = "option options choice choices statement statements item items case cases answer answers part parts \
    conclusion conclusions assumption assumptions condition conditions argument arguments alternative \
    alternatives proposition propositions assertion reason course quadrant claim claims step steps";

/// What is told apart by labels: "Model A", "line 3".
const KINDS: &str = "epoch iteration bulb lamp resistor capacitor switch ammeter voltmeter battery magnet ball model method \
    group series line curve sample object team company city product type class stage phase region zone level \
    plan circuit beaker container tube machine car train experiment trial treatment test table section box \
    block room store school plant species player person student country row column layer cluster question \
    brand point position";

/// What shows something, under the name of one of them.
const PICTURES: &str = "figure figures graph graphs diagram diagrams panel panels picture pictures image images subplot subplots \
    subfigure subfigures plot plots chart charts";

/// What is added to the code of a letter, so that it equals no number.
const LETTERS: u32 = 1_000;

/// How a label is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Face {
    Roman,
    Number,
    Letter,
    Capital,
}

/// Labels of options or statements.
#[derive(PartialEq, Debug)]
pub(super) struct Labels {
    /// What they are labels of, where it is told.
    kind: Option<String>,
    /// In the order in which they are named.
    labels: Vec<(Face, u32)>,
    /// Arrows lead from one to the next.
    chained: bool,
    /// Words join them: "and", "both".
    joined: bool,
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

const ONES: [&str; 10] = ["", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"];

/// The value of a Roman numeral of labels, up to 39, in capital or in small letters.
fn roman(text: &str) -> Option<u32> {
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
    let mut out = Labels {
        kind: None,
        labels: Vec::new(),
        chained: false,
        joined: false,
        only: false,
        either: false,
        neither: false,
        denied: false,
        sure: circled,
    };
    let rows = plain.chars().any(|c| enclosed(c).is_some());
    // R_1 is R1.
    let plain = plain.replace("_{", "").replace('_', "");
    let mut spaced = String::with_capacity(plain.len() + 8);
    for c in plain.chars() {
        match enclosed(c) {
            Some((Face::Roman, n)) => {
                spaced += &format!(" {}{} ", "X".repeat(n as usize / 10), ONES[n as usize % 10].to_uppercase());
            }
            Some((_, n)) => spaced += &format!(" ({n}) "),
            // A dash between two circles.
            None if rows && c == '-' => spaced.push('\u{2192}'),
            None => spaced.push(c),
        }
    }
    let parted = |c: char| {
        c.is_whitespace() || matches!(c, ',' | ';' | '&' | '$' | '*' | '{' | '}' | '\u{3001}' | '\u{ff0c}' | '\u{2192}')
    };
    out.chained = spaced.contains('\u{2192}') || spaced.contains("->");
    let spaced = spaced.replace("->", " ");
    let words = spaced.split(parted).filter(|w| !w.is_empty()).count();
    // a, b and d
    let listed = spaced.split(parted).all(|w| w.len() < 2 || w == "and");
    let mut affirmed = false;
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
        let picture = among(PICTURES, &lower);
        if picture && out.kind.is_none() {
            out.kind = Some("panel".to_owned());
        }
        if picture || among(NOUNS, &lower) || lower == "no" && raw.ends_with('.') {
            out.sure = true;
            continue;
        }
        if out.kind.is_none() && out.labels.is_empty() && among(KINDS, &lower) {
            (out.kind, out.sure) = (Some(lower), true);
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
                out.labels.push((Face::Number, n));
            }
            "and" | "both" | "all" => out.joined = true,
            "true" | "correct" | "right" | "valid" | "hold" | "holds" => affirmed = true,
            // All three statements.
            "two" | "three" | "four" | "five" if out.joined && out.labels.is_empty() => {}
            "the" | "is" | "are" | "number" | "it" | "so" | "thus" | "in" | "at" => {}
            "false" | "incorrect" | "wrong" | "invalid" => out.denied = true,
            _ => {
                let bracketed = raw.starts_with('(') && raw.trim_end_matches(['.', ':']).ends_with(')');
                let number = word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok()).flatten();
                let label = match (number, roman(word), word.as_bytes()) {
                    (Some(n), _, _) if n < 100 => (Face::Number, n),
                    (None, Some(n), _) => (Face::Roman, n),
                    // A letter alone names much else.
                    (None, None, [c]) if c.is_ascii_alphabetic() && (bracketed || out.sure || words == 1 || listed) => {
                        let face = if c.is_ascii_uppercase() { Face::Capital } else { Face::Letter };
                        (face, LETTERS + u32::from(c.to_ascii_lowercase()))
                    }
                    // R1
                    (None, None, [c, n @ ..])
                        if c.is_ascii_uppercase() && n.iter().all(u8::is_ascii_digit) && (out.sure || words == 1) =>
                    {
                        let n: u32 = word[1..].parse().ok().filter(|n| *n < 100)?;
                        (Face::Capital, LETTERS * (n + 2) + u32::from(*c))
                    }
                    _ => return None,
                };
                out.sure |= bracketed;
                if out.labels.contains(&label) {
                    return None;
                }
                out.labels.push(label);
            }
        }
    }
    let some = |face: Face| out.labels.iter().any(|l| l.0 == face);
    // Two Roman numerals, or one of several letters, are no letters of mathematics.
    let long = out.labels.iter().any(|&(face, n)| face == Face::Roman && ![1, 5, 10].contains(&n));
    out.sure |= some(Face::Roman) && (long || out.only || out.joined || out.either || out.neither);
    // One is true and another false: more than labels. So are parts with their numbers.
    let letters = out.labels.iter().filter(|l| matches!(l.0, Face::Letter | Face::Capital)).count();
    let mixed = affirmed && out.denied || ![0, out.labels.len()].contains(&letters);
    (!out.labels.is_empty() && !mixed).then_some(out)
}

/// True for labels of other kinds: line 3 is no row 3.
pub(super) fn of_other_kinds(gold: &str, answer: &str) -> bool {
    let kind = |t: &str| read(t).and_then(|l| l.kind);
    gold.contains(' ') && answer.contains(' ') && kind(gold).is_some_and(|a| kind(answer).is_some_and(|b| a != b))
}

impl Labels {
    fn values(&self) -> Vec<u32> {
        self.labels.iter().map(|l| l.1).collect()
    }

    /// True for an order rather than a choice: arrows lead from one to the next, or more than two stand side by side
    /// other than as they are counted.
    fn is_order(&self) -> bool {
        self.chained || self.labels.len() > 2 && !self.joined && !self.values().is_sorted()
    }

    /// Whether both name the same; `None` where neither is sure to be labels, or their faces are not alike.
    pub(super) fn same(&self, other: &Labels) -> Option<bool> {
        let faces = |l: &Labels| l.labels.iter().map(|x| x.0).collect::<BTreeSet<Face>>();
        if !(self.sure || other.sure) {
            return None;
        }
        let (mut a, mut b) = (self.values(), other.values());
        if !(self.is_order() || other.is_order()) {
            a.sort_unstable();
            b.sort_unstable();
        }
        // Two that are named are no third.
        let sense = |l: &Labels| (l.only && l.labels.len() < 2, l.either, l.neither);
        let same = a == b && sense(self) == sense(other);
        if faces(self) != faces(other) {
            // (iv) and 4; (b) and panel B, but no variables.
            let letters = a.iter().any(|n| *n > LETTERS);
            return (same && (!letters || self.sure && other.sure)).then_some(true);
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
            ("I and III only", "(I) and (III)"),
            ("\u{2460}\u{2462}", "\u{2462}\u{2460}"),
            ("\u{2460}\u{2462}\u{2461}", "\u{2460} \u{2192} \u{2462} \u{2192} \u{2461}"),
            ("(b)", "panel b"),
            ("(b)", "Panel B"),
        ] {
            assert_eq!(same(a, b), Some(true), "{a} {b}");
        }
        for (a, b) in [
            ("(iv)", "(vi)"),
            ("ix", "xi"),
            ("I and II only", "I and III only"),
            ("II only", "II"),
            ("I or II", "I and II"),
            ("\u{2460}\u{2462}\u{2461}", "\u{2460}\u{2461}\u{2462}"),
            ("\u{2460}\u{2192}\u{2461}", "\u{2461}\u{2192}\u{2460}"),
            ("(b)", "panel (c)"),
        ] {
            assert_eq!(same(a, b), Some(false), "{a} {b}");
        }
        for text in ["x + 1", "red", "vix", "(1, 2) and 3 more", "(a) 3; (b) 8", "5 m"] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
