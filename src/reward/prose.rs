//! Formulas in prose: where words end and an answer begins, and what stands between formulas.

use super::answer::collapse;
use super::math::{self, Steps};
use super::python;

/// An answer of formulas and their units without the dollar signs of the formulas; those of money stay.
pub(super) fn unmarked(text: &str, steps: &Steps) -> String {
    let marks: Vec<usize> =
        text.match_indices('$').map(|(at, _)| at).filter(|&at| !text[..at].ends_with('\\')).collect();
    let formula = |pair: &[usize]| match pair {
        [open, close] => {
            let inner = &text[open + 1..*close];
            let money = text[close + 1..].starts_with(|c: char| c.is_ascii_digit());
            !inner.is_empty() && !inner.starts_with(' ') && !inner.ends_with(' ') && !money
        }
        _ => false,
    };
    if marks.is_empty() || !marks.chunks(2).all(formula) || !formulas_only(text, steps) {
        return text.to_owned();
    }
    let mut out = text.to_owned();
    for at in marks.into_iter().rev() {
        out.replace_range(at..=at, " ");
    }
    collapse(&out)
}

/// Words that change the value behind them.
const CHANGING: [&str; 22] = [
    "not", "less", "more", "than", "between", "from", "least", "most", "over", "under", "except", "no", "without",
    "minus", "negative", "half", "twice", "never", "below", "above", "cannot", "isn't",
];

/// The one number in words of a sentence without digits, to its end: "she ate seven-eighths of the cake".
pub(super) fn spoken(sentence: &str) -> Option<&str> {
    if sentence.contains(|c: char| c.is_ascii_digit() || "([{$\\".contains(c)) {
        return None;
    }
    let number =
        |w: &str| w.split('-').all(|w| math::is_number_word(&w.to_lowercase())) && !w.eq_ignore_ascii_case("one");
    let at = sentence.split(' ').position(number)?;
    let before: Vec<&str> = sentence.split(' ').take(at).collect();
    let kept = |w: &&str| {
        !matches!(w.to_ascii_lowercase().as_str(), "one" | "quarter" | "third")
            && !CHANGING.contains(&w.to_ascii_lowercase().trim_matches(','))
    };
    // A second number further on is another one.
    let again = sentence.split(' ').skip(at).skip_while(|w| number(w) || *w == "and").any(number);
    (at > 1 && before.iter().all(kept) && !again)
        .then(|| &sentence[before.iter().map(|w| w.len() + 1).sum::<usize>()..])
}

/// What follows plain words: "the point (2, 3)", "it costs $20"; nothing where a word before it changes the value.
pub(super) fn behind_words(sentence: &str) -> Option<&str> {
    let at = sentence.find(|c: char| c.is_ascii_digit() || "([{$\\-".contains(c))?;
    let (words, rest) = sentence.split_at(at);
    let plain = |w: &str| w.chars().all(|c| c.is_alphabetic() || c == '\'' || c == ',');
    let kept = |w: &str| plain(w) && !CHANGING.contains(&w.to_ascii_lowercase().trim_matches(','));
    (words.ends_with(' ') && words.split_whitespace().all(kept)).then(|| python::strip(rest))
}

/// Words that tell what the letters of formulas stand for, or where they hold: these belong to them.
const TELLING: [&str; 11] = [
    "integer",
    "integers",
    "real",
    "reals",
    "constant",
    "constants",
    "parameter",
    "parameters",
    "if",
    "otherwise",
    "when",
];
/// Words between formulas: the first three anywhere, the others beside those that tell.
const BETWEEN: [&str; 22] = [
    "and",
    "or",
    "",
    "where",
    "for",
    "with",
    "any",
    "all",
    "every",
    "each",
    "some",
    "is",
    "are",
    "an",
    "a",
    "the",
    "number",
    "numbers",
    "arbitrary",
    "whole",
    "positive",
    "free",
];

/// True when nothing but commas, "and", "or" and units stand between formulas in dollar signs; money is no formula.
fn formulas_only(text: &str, steps: &Steps) -> bool {
    let bytes = text.as_bytes();
    let marks: Vec<usize> =
        text.match_indices('$').map(|(at, _)| at).filter(|&at| !text[..at].ends_with('\\')).collect();
    let money = |at: &usize| bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
    if marks.iter().all(money) && (marks.len() < 2 || marks.len() % 2 == 1) {
        return true;
    }
    let mut outside = vec![marks.last().and_then(|at| text.get(at + 1..))];
    outside.extend(marks[1..].chunks(2).map(|c| c.get(1).and_then(|to| text.get(c[0] + 1..*to))));
    let word = |w: &str| w.trim_matches([',', '.', ';', ':', '(', ')']).to_ascii_lowercase();
    let telling = |w: &str| TELLING.contains(&word(w).as_str());
    let told = outside.iter().flatten().flat_map(|t| t.split_whitespace()).any(telling);
    let between = &BETWEEN[..if told { BETWEEN.len() } else { 3 }];
    let joins = |t: &str| {
        t.split_whitespace()
            .all(|w| between.contains(&word(w).as_str()) || (told && (telling(w) || word(w).len() == 1)))
    };
    // $\\frac{3}{4}$ mile
    let unit = |t: &str| {
        let unit = math::undirected(t.trim_end_matches(['.', ' ']));
        unit.is_empty() || math::is_unit(unit, steps)
    };
    text.get(..marks[0]).is_none_or(joins) && outside.into_iter().flatten().all(|t| joins(t) || unit(t))
}

/// Short forms that end with a point inside a sentence.
const SHORT_FORMS: [&str; 22] = [
    "Mt", "St", "Dr", "Mr", "Mrs", "Ms", "Prof", "Gen", "Col", "Capt", "Lt", "Sgt", "Rev", "Jr", "Sr", "Ft", "vs",
    "cf", "ca", "i.e", "e.g", "approx",
];

/// Whether a sentence ends at the point `at` before a space, and another begins: it does unless a short form or the
/// initial of a name has the point: Mt. Everest, J. S. Bach, *H. sapiens*.
fn ends_sentence(text: &str, at: usize) -> bool {
    let (before, behind) = (&text[..at], text[at + 2..].trim_start());
    let word = before.rsplit(|c: char| c.is_whitespace() || matches!(c, '*' | '_' | '(' | '{' | '"')).next();
    let (word, next) = (word.unwrap_or_default(), behind.split(' ').next().unwrap_or_default());
    let capital = |t: &str| t.starts_with(|c: char| c.is_ascii_uppercase());
    if word.len() != 1 || !capital(word) {
        return !SHORT_FORMS.contains(&word);
    }
    let another = next.len() == 2 && next.ends_with('.') && capital(next);
    let species = next.starts_with(|c: char| c.is_ascii_lowercase()) && next.len() > 3;
    // "The answer is A. Because": letters of choices are none of names, unless a name is all that follows.
    let surname = next.len() == behind.len() && capital(next);
    let initials = before.len() > word.len() + 2 && before[..before.len() - word.len()].ends_with(". ");
    !(another || species || (surname && (initials || word > "E")))
}

/// Where the first sentence of a text ends, if another follows.
pub(super) fn sentence_end(text: &str) -> Option<usize> {
    text.match_indices(". ").map(|(at, _)| at).find(|&at| ends_sentence(text, at))
}

/// The first sentence of a line.
pub(super) fn first_sentence(line: &str) -> &str {
    sentence_end(line).map_or(line, |at| &line[..at])
}

/// The last sentence of a line.
pub(super) fn last_sentence(line: &str) -> &str {
    let last = line.rmatch_indices(". ").map(|(at, _)| at).find(|&at| ends_sentence(line, at));
    last.map_or(line, |at| &line[at + 2..])
}

/// True for a text with formulas in it, or more than one sentence: no single answer.
pub(super) fn is_prose(text: &str, steps: &Steps) -> bool {
    let marked = text.match_indices("\\[").any(|(at, _)| !text[..at].ends_with('\\'));
    // Inline formulas may stand between dollar signs or round brackets.
    let formulas = match text.match_indices("\\(").any(|(at, _)| !text[..at].ends_with('\\')) {
        true => {
            text.replace("\\$", "").contains('$')
                || !formulas_only(&text.replace("\\(", "$").replace("\\)", "$"), steps)
        }
        false => !formulas_only(text, steps),
    };
    let sentences = text.match_indices(". ").map(|(at, _)| at).filter(|&at| ends_sentence(text, at)).any(|at| {
        text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '$' || c == ')')
            && text[at + 2..].starts_with(|c: char| c.is_ascii_uppercase())
    });
    marked || formulas || sentences
}
