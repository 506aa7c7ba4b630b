//! Multiple-choice answers: finds the letter that an answer names.

use crate::lexicon::{self, Kind};
use crate::python;

/// Returns true for the letters that strict mode accepts as a choice.
fn is_choice(c: char) -> bool {
    matches!(c, 'A'..='J')
}

/// Returns true for characters that may stand around a letter and its option.
fn is_wrapper(c: char) -> bool {
    matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | '.' | ':' | '*' | '"' | '$' | ',') || python::is_space(c)
}

/// Returns the letter if `gold` is a single choice letter: `C`, `(C)`, `C.`.
pub fn letter(gold: &str) -> Option<char> {
    let mut chars = gold.trim_matches(is_wrapper).chars();
    chars.next().filter(|&c| is_choice(c) && chars.next().is_none())
}

/// Returns the capital letters that stand alone in a text, each with its position.
fn standing(text: &str) -> Vec<(usize, char)> {
    let attached =
        |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || matches!(c, '\'' | '_' | '^' | '+' | '='));
    let mut found = Vec::new();
    for (at, c) in text.char_indices().filter(|(_, c)| is_choice(*c)) {
        let (before, behind) = (&text[..at], &text[at + 1..]);
        // Not a choice: "Grade A-1", "B-flat".
        let is_part = |text: &str| text.starts_with(|c: char| c.is_ascii_digit() || c.is_lowercase());
        let dash = behind.strip_prefix('-').is_some_and(is_part);
        if dash || attached(before.chars().next_back()) || before.ends_with('\\') || attached(behind.chars().next()) {
            continue;
        }
        // "A" and "I" are words if a lower-case word follows.
        let next = behind.trim_start().split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let sentence = behind.starts_with(' ')
            && next.starts_with(char::is_lowercase)
            && !matches!(next, "and" | "or" | "is" | "to" | "through");
        if !(matches!(c, 'A' | 'I') && sentence) {
            found.push((at, c));
        }
    }
    found
}

/// Returns true if the letter at `at` is marked as a choice: it stands in brackets, beside a word such as "option",
/// "choice" or "answer" (a verb or an adjective may stand between), or after the last conclusion word of the text.
fn is_marked(text: &str, at: usize) -> bool {
    let (before, behind) = (&text[..at], &text[at + 1..]);
    let apart = |c: char| !c.is_alphanumeric();
    let named = |w: &&str| lexicon::is(Kind::Option, w) || lexicon::is(Kind::Marker, w) || *w == "correct";
    let between = |w: &&str| lexicon::is(Kind::Shows, w) || matches!(*w, "" | "the" | "best" | "must" | "should");
    let beside = |words: Vec<&str>| words.iter().find(|w| !between(w)).is_some_and(named);
    let follows = |kind| lexicon::find(kind, before).last().is_some_and(|f| before[f.1..].chars().all(apart));
    (before.ends_with(['(', '[', '{', '*', '>']) && behind.starts_with([')', ']', '}', '*', '<']))
        || beside(before.rsplit(apart).collect())
        || beside(behind.split(apart).collect())
        || follows(Kind::Marker)
        || (behind.chars().all(apart) && (follows(Kind::Joint) || matches!(before, "likely " | "probably ")))
}

/// Returns the letter that an answer names. It may be the complete answer (in upper or lower case), precede its option
/// (`B) seven`), or be the only letter in the text that is marked as a choice. `Circle`, `A and C`, `A-C`, `not A`, `A = 24`
/// and `angle A` name no letter.
pub fn named_letter(answer: &str) -> Option<char> {
    let text = python::strip(answer);
    let inner = text.replace("\\text", "").replace("\\bold", "");
    let inner = inner.trim_matches(|c| is_wrapper(c) || c == '\\');
    let mut chars = inner.chars();
    if let (Some(c), None) = (chars.next(), chars.next()) {
        return Some(c.to_ascii_uppercase()).filter(|&c| is_choice(c));
    }
    if !lexicon::find(Kind::Denial, text).is_empty() || text.contains('?') {
        return labelled(text).map(|l| l.0).filter(|_| !text.contains('?'));
    }
    let mut letters: Vec<char> = standing(text).into_iter().map(|l| l.1).collect();
    letters.dedup();
    match (labelled(text), letters.as_slice()) {
        (_, [c]) if standing(text).iter().any(|l| is_marked(text, l.0)) => Some(*c),
        // A letter inside the option's text does not count: "B. Vitamin C" names B. But "B) and C)" names two letters.
        (Some((c, rest)), _) if !starts_listed(rest) => Some(c),
        (_, []) => small(text),
        _ => None,
    }
}

/// Returns true if the text after the first letter begins with another choice letter.
fn starts_listed(rest: &str) -> bool {
    let rest = rest.trim_start_matches(['*', ' ']);
    let behind = ["and ", "or ", "& ", ",", "/", "-"].iter().find_map(|j| rest.strip_prefix(j)).unwrap_or(rest);
    let behind = behind.trim_start_matches(is_wrapper);
    behind.starts_with(is_choice) && !behind[1..].starts_with(|c: char| c.is_alphanumeric())
}

/// Returns the choice for a lower-case letter after the word "option" (`option (b)`), or in brackets at the beginning
/// (`(b) seven`).
fn small(text: &str) -> Option<char> {
    let lower = text.trim_end_matches(is_wrapper);
    let behind = lexicon::find(Kind::Option, lower).last().map(|f| &lower[f.1..]);
    let alone = |t: &str| letter(&t.to_ascii_uppercase());
    let bracketed = || text.strip_prefix('(').and_then(|t| t.split_once(") ")).and_then(|(c, _)| alone(c));
    behind.and_then(alone).or_else(bracketed)
}

/// Returns several distinct letters in the order in which they are written: `AC`, `A, C`, `(A) and (C)`.
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

/// Splits a letter from the text of its option: `C. 12`, `C:12`, `(C) twelve`.
pub fn labelled(text: &str) -> Option<(char, &str)> {
    let begins_option = |c: char| matches!(c, ' ' | '\\' | '$' | '-') || c.is_ascii_digit() || !c.is_ascii();
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
    let option = match [" - ", " -- ", " \u{2014} ", "/ "].iter().find_map(|dash| rest.strip_prefix(dash)) {
        Some(option) => option,
        None if marked && (bracketed || behind.starts_with(begins_option)) => behind,
        None => return None,
    };
    let option = python::strip(option).trim_start_matches("\\ ");
    // "C: 5, D: 6" and "(I) 12; (II) 30" are several labels.
    let is_label = |&(at, _): &(usize, char)| {
        let (mark, next) = (option[at + 1..].chars().next(), option[at + 1..].chars().nth(1));
        mark == Some(')') || (matches!(mark, Some('.' | ':')) && next.is_some_and(|c| !c.is_alphabetic()))
    };
    let several = standing(option).iter().any(is_label) || (letter == 'I' && option.contains("(II)"));
    (!option.is_empty() && !several).then_some((letter, option))
}
