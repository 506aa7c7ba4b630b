//! The published scorer's text rule: compares the letter of a choice, or checks whether one text contains the other.

use crate::python;

/// Letters that the published scorer accepts.
pub const LETTERS: [&str; 8] = ["A", "B", "C", "D", "E", "F", "G", "H"];

/// Phrases in lower case from which the published scorer searches for a letter. A longer phrase with the same beginning
/// finds the same letter.
const PHRASES: [&str; 19] = [
    "the answer",
    "answer",
    "correct answer",
    "the correct answer",
    "the best answer",
    "best answer",
    "the option is",
    "option is",
    "the correct option is",
    "correct option is",
    "the choice is",
    "choice is",
    "the correct choice is",
    "correct choice is",
    "i choose",
    "i select",
    "i pick",
    "my answer is",
    "my choice is",
];

/// Returns the letter that the published scorer finds, or "". Each possible position of a letter is a candidate with a
/// rank. The highest rank wins, then the earliest position, then the order of the rules. The scorer's defects are kept:
/// a text that begins with a capital A to H names that letter.
pub fn parse_mcq(text: &str) -> &'static str {
    let mut core = python::strip(text);
    if core.is_empty() {
        return "";
    }
    for c in [',', '.', '!', '?', ';', ':', '\'', '"'] {
        core = core.trim_matches(c);
    }
    let padded = format!(" {core} ");
    let inner = python::strip(&padded);
    let mut best: Option<(u8, usize, &'static str)> = None;
    let mut offer = |rank: u8, at: usize, letter: &'static str| {
        if best.is_none_or(|(r, a, _)| rank > r || (rank == r && at < a)) {
            best = Some((rank, at, letter));
        }
    };
    let last = |pattern: &str| padded.rfind(pattern);
    for (pattern, rank) in [("(?)", 6), ("?.", 5), ("?:", 4), ("?)", 3), ("? ", 2), ("?-", 1), ("?_", 1), ("?=", 1)] {
        for letter in LETTERS {
            if let Some(at) = last(&pattern.replace('?', letter)) {
                offer(rank, at, letter);
            }
        }
    }
    let lower = padded.to_lowercase();
    for at in PHRASES.iter().filter_map(|p| lower.find(p)) {
        // The position in the lower-case text is used in the original text as a character count. If a character has a
        // longer lower case, the position shifts.
        let skipped = python::len(&lower[..at]);
        let from = padded.char_indices().nth(skipped).map_or(padded.len(), |(i, _)| i);
        for letter in LETTERS {
            if let Some(after) = padded[from..].find(letter) {
                offer(7, from + after, letter);
            }
        }
    }
    for letter in LETTERS {
        if inner.starts_with(letter) {
            offer(10, 0, letter);
        }
        if inner.ends_with(letter) {
            offer(9, 0, letter);
        }
    }
    for (i, letter) in LETTERS.into_iter().enumerate() {
        if let Some(at) = last(&format!("{}. {letter}", i + 1)) {
            offer(8, at, letter);
        }
    }
    if best.is_none() {
        for letter in LETTERS {
            if let Some(at) = last(letter) {
                best = best.filter(|&(_, a, _)| a <= at).or(Some((0, at, letter)));
            }
        }
    }
    best.map_or("", |(_, _, letter)| letter)
}

/// Applies the published scorer's text rule. A letter as the gold answer is compared with [`parse_mcq`]. Other texts
/// match if one contains the other and is at most 1/0.9 times as long, or if they are equal without surrounding white
/// space.
pub fn relaxed_match(predict: &str, ground_truth: &str) -> bool {
    if LETTERS.contains(&ground_truth) {
        return parse_mcq(predict) == ground_truth;
    }
    let (p, g) = (python::len(predict) as f64, python::len(ground_truth) as f64);
    (ground_truth.contains(predict) && p >= 0.9 * g)
        || (predict.contains(ground_truth) && g >= 0.9 * p)
        || python::strip(predict) == python::strip(ground_truth)
}
