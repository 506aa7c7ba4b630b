//! Multiple choice: the letter an answer names.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use super::python;
use super::words::fold;

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

/// The text with letters in unusual faces as usual ones.
fn faced(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| fold::usual(c).is_some() || fold::is_unseen(c)) {
        let kept = text.chars().filter(|&c| !fold::is_unseen(c));
        return Cow::Owned(kept.map(|c| fold::usual(c).unwrap_or(c)).collect());
    }
    Cow::Borrowed(text)
}

/// Letters a strict choice may have.
fn is_choice(c: char) -> bool {
    matches!(c, 'A'..='J')
}

/// The letter, when `gold` is one: `C`, `(C)`, `C.`, `Option C`, in any face.
pub fn letter(gold: &str) -> Option<char> {
    const NOUNS: [&str; 5] = ["option ", "choice ", "answer ", "alternative ", "answer: "];
    let gold = faced(gold);
    let noun = NOUNS.iter().find(|n| gold.get(..n.len()).is_some_and(|t| t.eq_ignore_ascii_case(n)));
    let gold = noun.map_or(gold.as_ref(), |n| &gold[n.len()..]);
    let inner = gold.trim_matches(|c: char| matches!(c, '(' | ')' | '[' | ']' | '.' | ':') || python::is_space(c));
    let mut chars = inner.chars();
    chars.next().filter(|&c| is_choice(c) && chars.next().is_none())
}

/// The letter an answer names, read with care: alone (in any case), before its option (`B) seven`), after
/// "option", "choice" or "answer is", or as the only letter that stands alone. `Circle` names none, nor does
/// `A and C`.
pub fn named_letter(answer: &str) -> Option<char> {
    let answer = faced(answer);
    let answer = answer.as_ref();
    static HEAD: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:\\(?:text|textbf|mathrm|mathbf)\{)?[(\[]?([A-J])(?:[)\].:}]|\s-\s)").expect("a fixed pattern")
    });
    static HEAD_SMALL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\(?([a-j])\)(?:\s|$)").expect("a fixed pattern"));
    static NAMED: LazyLock<Regex> = LazyLock::new(|| {
        let words = r"(?i:option|choice|answer(?:\s+is)?|select|choose|pick)";
        Regex::new(&format!(r"{words}\s*:?\s*(?i:option|choice)?\s*[*(\[]*([A-J])(?:[^A-Za-z0-9]|$)"))
            .expect("a fixed pattern")
    });
    static ALONE: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?:^|[^A-Za-z0-9'])([A-J])(?:[^A-Za-z0-9']|$)").expect("a fixed pattern"));
    static LISTED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\W*[A-J]\W*(?:,|and|or|&)\W*[A-J](?:\W|$)").expect("a fixed pattern"));
    static SMALL: LazyLock<Regex> = LazyLock::new(|| {
        let end = r"\(?([a-j])\)?(?:\W*$|\s+(?:is|seems|must be)\s+(?:the\s+)?(?:correct|right|best|answer)\b)";
        Regex::new(&format!(r"(?i:option|choice)\s+{end}")).expect("a fixed pattern")
    });
    let text = python::strip(answer);
    let inner = text.trim_matches(|c: char| !c.is_alphanumeric());
    let mut chars = inner.chars();
    if let (Some(c), None) = (chars.next(), chars.next()) {
        return Some(c.to_ascii_uppercase()).filter(|&c| is_choice(c));
    }
    let first = |found: regex::Captures<'_>| found.get(1).and_then(|m| m.as_str().chars().next());
    // The letters that stand alone; "A" and "I" are words when a small letter follows.
    let (mut letters, mut at) = (Vec::new(), 0);
    while let Some(found) = ALONE.captures_at(text, at) {
        let Some(m) = found.get(1) else { break };
        let next = text[m.end()..].trim_start().split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let sentence = next.starts_with(char::is_lowercase) && !matches!(next, "and" | "or");
        // No article stands before a verb.
        let verb = matches!(next, "is" | "was" | "because" | "since" | "seems" | "fits" | "works" | "matches" | "must");
        let word = matches!(m.as_str(), "A" | "I") && sentence && !verb;
        if !word {
            letters.extend(m.as_str().chars());
        }
        at = m.end();
    }
    if is_denied(text) {
        return None;
    }
    letters.sort_unstable();
    letters.dedup();
    if let Some(c) = HEAD_SMALL.captures(text).and_then(first) {
        return Some(c.to_ascii_uppercase());
    }
    if let Some(c) = HEAD.captures(text).and_then(first) {
        // "B) and C)" names two.
        return (!LISTED.is_match(text)).then_some(c);
    }
    if let Some(c) = NAMED.captures_iter(text).last().and_then(first) {
        return (letters.len() <= 1).then_some(c);
    }
    if let Some(c) = SMALL.captures(text).and_then(first) {
        return Some(c.to_ascii_uppercase());
    }
    match letters.as_slice() {
        [c] => Some(*c),
        _ => None,
    }
}

/// The letter a sentence ends with after it has dealt with others: "A and C are wrong, so it must be B".
pub fn concluded_letter(answer: &str) -> Option<char> {
    const JOINTS: [&str; 10] = [
        ", so ",
        " so it ",
        "; ",
        ", leaving ",
        " leaves ",
        ", but ",
        ", hence ",
        ", therefore ",
        ", thus ",
        ", only ",
    ];
    let cut = JOINTS.iter().filter_map(|j| answer.rfind(j).map(|at| at + j.len())).max()?;
    named_letter(&answer[cut..])
}

/// True when the text says which choice is not meant: "Not A", "B is wrong", "all except C".
fn is_denied(text: &str) -> bool {
    const DENIALS: [&str; 9] =
        ["not", "isn't", "cannot", "except", "incorrect", "wrong", "false", "neither", "eliminate"];
    text.split(|c: char| !c.is_alphabetic() && c != '\'').any(|w| DENIALS.contains(&w.to_ascii_lowercase().as_str()))
}

/// Several letters in order, without repetition: `AC`, `A, C`, `(A) and (C)`.
pub fn letters(text: &str) -> Option<Vec<char>> {
    let mut found = Vec::new();
    for word in text.split(|c: char| python::is_space(c) || matches!(c, ',' | ';' | '&' | '(' | ')' | '.')) {
        if matches!(word, "" | "and" | "or") {
            continue;
        }
        if !word.chars().all(is_choice) {
            return None;
        }
        found.extend(word.chars());
    }
    let count = found.len();
    found.sort_unstable();
    found.dedup();
    (count >= 2 && found.len() == count).then_some(found)
}

/// The same as a model may write it: `Options A and C`, `{A, C}`, `["A", "C"]`, `a, c`, `A/C`.
pub fn several(text: &str) -> Option<Vec<char>> {
    const SAID: &[&str] = &[
        "and",
        "both",
        "only",
        "options",
        "option",
        "choices",
        "choice",
        "statements",
        "statement",
        "answers",
        "answer",
        "the",
        "are",
        "is",
        "correct",
        "true",
        "right",
        "all",
        "of",
        "text",
    ];
    let text = faced(text);
    let mut found = Vec::new();
    let parted = |c: char| python::is_space(c) || ",;&()[]{}.\"'+/\\$*:".contains(c);
    for word in text.split(parted).filter(|w| !w.is_empty()) {
        if SAID.contains(&word.to_ascii_lowercase().as_str()) {
            continue;
        }
        let small = word.len() == 1 && word.chars().all(|c| ('a'..='j').contains(&c));
        if !small && !word.chars().all(is_choice) {
            return None;
        }
        found.extend(word.to_ascii_uppercase().chars());
    }
    let count = found.len();
    found.sort_unstable();
    found.dedup();
    (count >= 2 && found.len() == count).then_some(found)
}

/// A letter and the text of its option: `C. 12`, `(C) twelve`.
pub fn labelled(text: &str) -> Option<(char, &str)> {
    static LABEL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"^(?:\\(?:text|textbf|mathrm|mathbf)\{)?(?:\(([A-J])\)\}?[.:]?\s*|([A-J])[.):]\}?\s+)(\S.*)$")
            .expect("a fixed pattern")
    });
    let found = LABEL.captures(text)?;
    let letter = found.get(1).or(found.get(2))?.as_str().chars().next()?;
    Some((letter, found.get(3)?.as_str()))
}

/// The letter behind the text of an option: `twelve (C)`, `twelve (option C)`.
pub fn label_behind(text: &str) -> Option<char> {
    static LABEL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\S\s+\((?:(?i:option|choice|answer)\s+)?([A-J])\)\.?$").expect("a fixed pattern")
    });
    LABEL.captures(text)?.get(1)?.as_str().chars().next()
}
