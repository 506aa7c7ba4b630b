//! Multiple choice: the letter an answer names.

use super::lexicon::{self, Kind};
use super::python;

/// Letters the published scorer knows.
pub const LETTERS: [&str; 8] = ["A", "B", "C", "D", "E", "F", "G", "H"];

/// Phrases after which the published scorer looks for a letter, in lower case.
const PHRASES: [&str; 25] = [
    "the answer is",
    "answer is",
    "the correct answer is",
    "correct answer is",
    "the answer",
    "answer",
    "correct answer",
    "the correct answer",
    "the best answer is",
    "best answer is",
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

/// The published scorer's letter, or "". Each place where a letter could be meant is a candidate with a rank;
/// the highest rank wins, then the earliest place, then the order of the rules. Its flaws are kept: a text that
/// begins with a capital A to H names that letter.
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
    for letter in LETTERS {
        if let Some(at) = last(&format!("({letter})")) {
            offer(6, at, letter);
        }
    }
    for (suffix, rank) in [(".", 5), (":", 4), (")", 3), (" ", 2), ("-", 1), ("_", 1), ("=", 1)] {
        for letter in LETTERS {
            if let Some(at) = last(&format!("{letter}{suffix}")) {
                offer(rank, at, letter);
            }
        }
    }
    let lower = padded.to_lowercase();
    for at in PHRASES.iter().filter_map(|p| lower.find(p)) {
        // The place in the lower-cased text is used in the text itself, as a count of characters: where lower
        // case is longer than upper case it drifts.
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

/// The published scorer's text rule: a letter gold by [`parse_mcq`], else one text contained in the other and at
/// least 0.9 times as long, else equality without white space around.
pub fn relaxed_match(predict: &str, ground_truth: &str) -> bool {
    if LETTERS.contains(&ground_truth) {
        return parse_mcq(predict) == ground_truth;
    }
    let (p, g) = (python::len(predict) as f64, python::len(ground_truth) as f64);
    (ground_truth.contains(predict) && p >= 0.9 * g)
        || (predict.contains(ground_truth) && g >= 0.9 * p)
        || python::strip(predict) == python::strip(ground_truth)
}

/// Letters a strict choice may have.
fn is_choice(c: char) -> bool {
    matches!(c, 'A'..='J')
}

/// Signs that may stand around a letter and its option.
fn is_wrapper(c: char) -> bool {
    matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '.' | ':' | '*' | '"' | '$' | ',') || python::is_space(c)
}

/// The letter, when `gold` is one: `C`, `(C)`, `C.`.
pub fn letter(gold: &str) -> Option<char> {
    let mut chars = gold.trim_matches(is_wrapper).chars();
    chars.next().filter(|&c| is_choice(c) && chars.next().is_none())
}

/// A capital that stands alone in a text, and where.
fn standing(text: &str) -> Vec<(usize, char)> {
    let attached =
        |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '\'' | '_' | '^' | '+' | '='));
    let mut found = Vec::new();
    for (at, c) in text.char_indices().filter(|(_, c)| is_choice(*c)) {
        let (before, behind) = (&text[..at], &text[at + 1..]);
        let mut next = behind.chars();
        let dash = |first: Option<char>, second: Option<char>| {
            first == Some('-') && second.is_some_and(|c| c.is_ascii_digit() || c.is_lowercase())
        };
        if attached(before.chars().next_back()) || before.ends_with('\\') || attached(behind.chars().next()) {
            continue;
        }
        // Grade A-1, B-flat.
        if dash(next.next(), next.next()) {
            continue;
        }
        // "A" and "I" are words when a small letter follows.
        let next = behind.trim_start().split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let sentence =
            behind.starts_with(' ') && next.starts_with(char::is_lowercase) && !matches!(next, "and" | "or" | "is");
        if !(matches!(c, 'A' | 'I') && sentence) {
            found.push((at, c));
        }
    }
    found
}

/// The letter an answer names, read with care: alone (in any case), before its option (`B) seven`), or as the only
/// letter that stands alone. `Circle` names none, nor do `A and C`, `A-C` and `not A`.
pub fn named_letter(answer: &str) -> Option<char> {
    let text = python::strip(answer);
    let inner = text.replace("\\text", "").replace("\\bold", "");
    let inner = inner.trim_matches(is_wrapper);
    let mut chars = inner.chars();
    if let (Some(c), None) = (chars.next(), chars.next()) {
        return Some(c.to_ascii_uppercase()).filter(|&c| is_choice(c));
    }
    if !lexicon::find(Kind::Denial, text).is_empty()
        || !lexicon::find(Kind::Hedge, text).is_empty()
        || text.contains('?')
    {
        return labelled(text).map(|l| l.0).filter(|_| !text.contains('?'));
    }
    let mut letters: Vec<char> = standing(text).into_iter().map(|l| l.1).collect();
    letters.dedup();
    match (labelled(text), letters.as_slice()) {
        (_, [c]) => Some(*c),
        // The letters of an option's text are its own: "B. Vitamin C"; but "B) and C)" are two.
        (Some((c, rest)), _) if !starts_listed(rest) => Some(c),
        (_, []) => small(text),
        _ => None,
    }
}

/// True where one more letter follows the first.
fn starts_listed(rest: &str) -> bool {
    let joint =
        |t: &str| ["and ", "or ", "& ", ",", "/", "-"].iter().find_map(|j| t.strip_prefix(j).map(str::to_owned));
    let rest = rest.trim_start_matches(['*', ' ']);
    let behind = joint(rest).unwrap_or_else(|| rest.to_owned());
    let behind = behind.trim_start_matches(is_wrapper);
    behind.starts_with(is_choice) && !behind[1..].starts_with(|c: char| c.is_alphanumeric())
}

/// The small letter behind "option": `option (b)`, or in brackets before an option: `(b) seven`.
fn small(text: &str) -> Option<char> {
    let lower = text.trim_end_matches(is_wrapper);
    let behind = lexicon::find(Kind::Option, lower).last().map(|f| &lower[f.1..]);
    let alone = |t: &str| {
        let mut chars = t.trim_matches(is_wrapper).chars();
        chars.next().map(|c| c.to_ascii_uppercase()).filter(|&c| is_choice(c) && chars.next().is_none())
    };
    let bracketed = || text.strip_prefix('(').and_then(|t| t.split_once(") ")).and_then(|(c, _)| alone(c));
    behind.and_then(alone).or_else(bracketed)
}

/// Several letters in the order of writing, none twice: `AC`, `A, C`, `(A) and (C)`.
pub fn letters(text: &str) -> Option<Vec<char>> {
    let mut found = Vec::new();
    for word in text.split(|c: char| is_wrapper(c) || matches!(c, ';' | '&')) {
        if matches!(word, "" | "and") {
            continue;
        }
        if !word.chars().all(is_choice) {
            return None;
        }
        found.extend(word.chars());
    }
    let distinct = (1..found.len()).all(|n| !found[..n].contains(&found[n]));
    (found.len() >= 2 && distinct).then_some(found)
}

/// A letter and the text of its option: `C. 12`, `(C) twelve`.
pub fn labelled(text: &str) -> Option<(char, &str)> {
    let text = python::strip(text);
    let faced = ["\\text{", "\\bold{"].iter().find_map(|f| text.strip_prefix(f));
    let inner = faced.unwrap_or(text).trim_start_matches(['*', ' ']);
    let bracketed = inner.starts_with(['(', '[']);
    let inner = inner.trim_start_matches(['(', '[']);
    let letter = inner.chars().next().filter(|&c| is_choice(c))?;
    let rest = &inner[1..];
    let behind = rest.trim_start_matches([')', ']', '}', '.', ':', '*']);
    let marked = rest.len() > behind.len()
        && (rest.starts_with([')', ']', '.', ':', '}']) || (bracketed && rest.starts_with('*')));
    let option = match rest.strip_prefix(" - ").or_else(|| rest.strip_prefix(" -- ")) {
        Some(option) => option,
        None if marked && (behind.starts_with(' ') || bracketed) => behind,
        None => return None,
    };
    let option = python::strip(option).trim_start_matches("\\ ");
    (!option.is_empty()).then_some((letter, option))
}
