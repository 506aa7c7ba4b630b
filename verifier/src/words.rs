//! Comparison of answers in words. The words are compared in order. Case, articles, quotes and spelling variants do not
//! matter, and phrases with the same meaning are equal.

use crate::lexicon::{self, Kind};
use crate::number_words;
use crate::python::compiled;
use regex::Regex;
use std::sync::LazyLock;

/// Maximum number of words in an answer that is compared as a phrase.
const MAX_WORDS: usize = 60;

/// Formats an ordinal number: `1st`, `2nd`, `11th`.
fn place(n: i64) -> String {
    let end = match (n % 10, n % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{end}")
}

/// Splits a text into lower-case words. A word may contain some signs, such as `+` and `%`.
fn split(text: &str) -> Vec<String> {
    let plain = text.replace("\\text", " ").replace("\\bold", " ");
    let mut clean = String::with_capacity(plain.len());
    for c in plain.chars() {
        if c.is_alphanumeric() || "+-*/=<>.%&".contains(c) {
            clean.extend(c.to_lowercase());
        } else if c != '\'' && c != '\u{2019}' {
            clean.push(' ');
        }
    }
    // A hyphen joins words and a point ends them. Inside numbers both stay.
    let chars: Vec<char> = clean.chars().collect();
    let near = |i: usize, d: isize| chars.get(i.wrapping_add_signed(d)).copied().unwrap_or(' ');
    let joined: String = chars
        .iter()
        .enumerate()
        .map(|(i, &c)| match c {
            '-' if near(i, -1).is_alphabetic() && near(i, 1).is_alphabetic() => ' ',
            '.' if !near(i, 1).is_ascii_digit() => ' ',
            c => c,
        })
        .collect();
    joined.split_whitespace().map(str::to_owned).collect()
}

/// Returns the words to compare: without articles, each in one spelling, and with one phrase per meaning.
pub fn key(text: &str) -> String {
    let mut words = split(text);
    let last = words.pop();
    words.retain(|w| !matches!(w.as_str(), "the" | "a" | "an"));
    words.extend(last);
    let phrase = words.join(" ");
    if let Some(same) = lexicon::look(Kind::Synonym, &phrase) {
        return lexicon::folded(same).into_owned();
    }
    let named = |w: &str| lexicon::look(Kind::Month, w).map(|n| format!("month {n}"));
    let one = |w: &String| match number_words::ordinal(w) {
        Some(n) => place(n),
        None => named(w).unwrap_or_else(|| w.clone()),
    };
    let spelling = words.iter().map(one).collect::<Vec<_>>().join(" ");
    let phrases = [phrase.strip_suffix('s'), Some(&spelling), spelling.strip_suffix('s')];
    let same = phrases.into_iter().flatten().find_map(|p| lexicon::look(Kind::Synonym, p));
    same.map_or(spelling.clone(), |same| lexicon::folded(same).into_owned())
}

/// Returns true if both texts have the same words in the same order.
pub fn same(a: &str, b: &str) -> bool {
    if !case_agrees(a, b) {
        return false;
    }
    let (a, b) = (key(a), key(b));
    let (x, y): (Vec<&str>, Vec<&str>) = (a.split(' ').collect(), b.split(' ').collect());
    a == b || (x.len() == y.len() && x.len() <= MAX_WORDS && x.iter().zip(&y).all(|(v, w)| alike(v, w)))
}

/// Returns false if two words differ in case and the case matters. It matters in short words with capitals (CO and Co,
/// AA and Aa, mgR and mgr). "yes" and "YES" are equal.
fn case_agrees(a: &str, b: &str) -> bool {
    fn words(t: &str) -> Vec<&str> {
        t.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty() && *w != "text").collect()
    }
    let capital = |w: &str| w.contains(char::is_uppercase);
    let (x, y) = (words(a), words(b));
    x.len() != y.len()
        || x.iter().zip(&y).all(|(v, w)| {
            let short = v.len() == 2
                && w.len() == 2
                && (capital(v) && capital(w) || v.to_lowercase().chars().all(|c| v.to_lowercase().starts_with(c)));
            let mixed = |w: &str| capital(w.get(1..).unwrap_or_default()) && w.contains(char::is_lowercase);
            let is_symbol = v.len() <= 4 && (mixed(v) || mixed(w));
            let distinct = is_symbol || (mixed(v) && mixed(w)) || (short && polar(v).is_none());
            v == w || !distinct
        })
}

/// Returns the meaning of a word of affirmation or denial: "yes", "no", "true" or "false".
pub fn polar(text: &str) -> Option<&'static str> {
    match lexicon::look(Kind::Synonym, text.trim())? {
        polarity @ ("yes" | "no" | "true" | "false") => Some(polarity),
        _ => None,
    }
}

/// Returns true if both texts consist of words and numbers without notation, and one of them has a word of at least two
/// letters.
pub fn are_phrases(a: &str, b: &str) -> bool {
    let known = |c: char| c.is_alphanumeric() || " -',.&%\"".contains(c);
    let phrase = |t: &str| t.chars().all(known) && !t.contains(" - ");
    // A word has at least two letters in a row.
    let has_word = |t: &str| t.split(|c: char| !c.is_alphabetic()).any(|w| w.chars().count() > 1);
    phrase(a) && phrase(b) && (has_word(a) || has_word(b))
}

/// Returns the value of a Roman numeral in capitals and in standard form. Returns `None` for numerals that may be plain
/// letters, such as `CD`.
pub fn roman(text: &str) -> Option<i64> {
    static WRITTEN: LazyLock<Regex> =
        LazyLock::new(|| compiled("^M{0,3}(CM|CD|D?C{0,3})(XC|XL|L?X{0,3})(IX|IV|V?I{0,3})$"));
    if text.len() < 2 || !text.contains(['I', 'V', 'X']) || !WRITTEN.is_match(text) {
        return None;
    }
    let value = |c: char| "IVXLCDM".find(c).map_or(0, |at| [1, 5, 10, 50, 100, 500, 1_000][at]);
    let values: Vec<i64> = text.chars().map(value).collect();
    // A Roman digit before a larger one is subtracted.
    let lessens = |n: usize| values.get(n + 1).is_some_and(|next| *next > values[n]);
    Some((0..values.len()).map(|n| if lessens(n) { -values[n] } else { values[n] }).sum())
}

/// Returns the letters, digits and charges of a chemical formula, independent of fonts and index notation: `\ce{H2O}`,
/// `\text{H}_2\text{O}` and `H₂O` give the same text. Returns `None` for anything else.
pub fn formula(text: &str) -> Option<String> {
    let plain = text.replace("\\text", "").replace("\\bold", "").replace("\\ce", "").replace("\\,", "");
    let known = |c: char| c.is_ascii_alphanumeric() || "_^{} ()+-".contains(c);
    let upper = plain.chars().any(|c| c.is_ascii_uppercase());
    let dense = plain.replace(['_', '{', '}', ' '], "");
    // An element begins with a capital letter. An exponent without a sign is not a charge.
    let letters =
        dense.chars().zip(dense.chars().skip(1)).all(|(a, b)| !b.is_ascii_lowercase() || a.is_ascii_uppercase());
    let power =
        dense.split('^').skip(1).any(|t| !t.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['+', '-']));
    let first = dense.starts_with(|c: char| c.is_ascii_uppercase() || c == '(' || c.is_ascii_digit());
    (plain.chars().all(known) && upper && letters && !power && first && dense.len() > 1).then_some(dense)
}

/// Returns the reason why the answer found in `clause` is not certain, such as a question or a denial. Returns `None`
/// if it is certain, or if the gold answer is uncertain in the same way.
pub(crate) fn doubt(gold: &str, answer: &str, clause: &str) -> Option<&'static str> {
    let has = |kind, text: &str| !lexicon::find(kind, text).is_empty();
    if clause.contains('?') && !gold.contains('?') {
        return Some("a question");
    }
    let joined = |text: &str, joint: &str| text.contains(joint) && !text.contains(['=', '<', '>']);
    if [(" and ", " or "), (" or ", " and ")]
        .iter()
        .any(|(a, b)| joined(gold, a) && joined(answer, b) && !answer.contains(a))
    {
        return Some("`and` in place of `or`, or the reverse");
    }
    let condition = |text: &str| {
        let found = lexicon::find(Kind::Condition, text).into_iter();
        let (_, end) = found.rev().find(|f| text[..f.0].trim_end().ends_with(','))?;
        Some(text[end..].chars().filter(|c| c.is_alphanumeric()).collect::<String>())
    };
    if condition(gold).zip(condition(answer)).is_some_and(|(a, b)| a != b) {
        return Some("another condition");
    }
    let ways = |text: &str| -> Vec<&str> {
        let found = lexicon::find(Kind::Way, text);
        found.into_iter().filter_map(|f| lexicon::look(Kind::Way, &text[f.0..f.1])).collect()
    };
    let (gold_ways, answer_ways) = (ways(gold), ways(clause));
    if !gold_ways.is_empty() && !answer_ways.is_empty() && !answer_ways.iter().any(|w| gold_ways.contains(w)) {
        return Some("another direction");
    }
    // A denial inside the answer is already part of the comparison. A denial before the answer negates it.
    let denied = clause.len() > answer.len() && has(Kind::Denial, clause) && !has(Kind::Denial, answer);
    (denied && !has(Kind::Denial, gold)).then_some("the text around the answer denies it")
}

/// Returns the meaning of an answer that begins with yes, no, true or false. `Some(None)` means that the answer
/// contains contradicting words or a question mark.
pub(crate) fn polar_answer(text: &str) -> Option<Option<&'static str>> {
    let text = text.trim_start_matches(['*', ' ', '"', '(', '$']);
    if text.contains(['\\', '<']) {
        return None;
    }
    let end = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
    let polarity = polar(&text[..end])?;
    let rest = &text[end..];
    let others = || rest.split(|c: char| !c.is_alphabetic()).filter(|w| w.len() > 1).take(3).filter_map(polar);
    let sentence = rest.trim_start_matches(['*', '"', ')']);
    // The letters are a symbol of a formula: T/2, NO_2, f(x).
    let operator = sentence.starts_with('(') || sentence.trim_start().starts_with(['=', '+', '-', '/', '>']);
    let symbol = (end == 1 && operator) || sentence.starts_with(|c: char| "_^".contains(c) || c.is_ascii_digit());
    // "true" and "false" may be adjectives of a following noun.
    let adjective = matches!(polarity, "true" | "false") && sentence.trim_start().starts_with(char::is_alphabetic);
    let noun = polarity == "no" && sentence.starts_with(' ') && sentence.trim_start().starts_with(char::is_lowercase);
    if rest.contains('?') || others().any(|o| o != polarity) {
        return Some(None);
    }
    if adjective || noun || symbol { None } else { Some(Some(polarity)) }
}

/// Returns true if two words are the same word, in the singular or the plural.
pub fn alike(a: &str, b: &str) -> bool {
    a == b || plural(a, b) || plural(b, a)
}

/// Returns true if `many` is the plural of `one`, or the verb form of `one` with an `s`.
fn plural(one: &str, many: &str) -> bool {
    let ending = |from: &str, to: &str| one.strip_suffix(from).is_some_and(|stem| many.strip_suffix(to) == Some(stem));
    let takes_s = !one.ends_with('s') && ending("", "s");
    one.len() > 2 && (takes_s || ending("", "es") || ending("y", "ies"))
}
