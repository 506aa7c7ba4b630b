//! The form in which texts are compared.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use crate::{Mode, python};

/// Marks that change a letter, such as accents.
static MARKS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{Mn}+").expect("a valid pattern"));

/// Returns a text without accents, case, punctuation, thousands separators, zeros behind a decimal point, and articles. In
/// strict mode, numbers keep their sign and their decimal point.
pub fn normal(text: &str, mode: Mode) -> String {
    let plain: String = text.nfkc().nfd().collect();
    let plain: Vec<char> = MARKS.replace_all(&plain, "").chars().map(plain_mark).collect();
    let mut out = String::new();
    let numbers = numbers(&plain);
    for (i, &c) in numbers.iter().enumerate() {
        let next_is_digit = numbers.get(i + 1).is_some_and(|&c| python::is_digit(c));
        let before = i.checked_sub(1).map(|i| numbers[i]);
        let is_sign = c == '-' && next_is_digit && !before.is_some_and(|c| python::is_word(c) || c == ')');
        let is_point = c == '.' && next_is_digit && before.is_some_and(python::is_digit);
        if (python::is_word(c) && c != '_') || (mode == Mode::Strict && (is_sign || is_point)) {
            out.extend(c.to_lowercase());
        } else if !out.ends_with(' ') {
            out.push(' ');
        }
    }
    let words: Vec<&str> = out.split_whitespace().collect();
    let kept: Vec<&str> = words.iter().copied().filter(|word| !matches!(*word, "a" | "an" | "the")).collect();
    // Single letters are meant as such.
    if kept.iter().any(|word| python::len(word) > 1) { kept.join(" ") } else { words.join(" ") }
}

fn plain_mark(c: char) -> char {
    match c {
        '\u{2013}' | '\u{2014}' | '\u{2212}' => '-',
        c => c,
    }
}

/// Removes thousands separators, and zeros behind a decimal point.
fn numbers(text: &[char]) -> Vec<char> {
    let is_digit = |i: usize| text.get(i).is_some_and(|&c| python::is_digit(c));
    let is_word = |i: usize| text.get(i).is_some_and(|&c| python::is_word(c));
    let is_separator =
        |i: usize| text[i] == ',' && i > 0 && is_digit(i - 1) && (i + 1..i + 4).all(is_digit) && !is_word(i + 4);
    let text: Vec<char> = (0..text.len()).filter(|&i| !is_separator(i)).map(|i| text[i]).collect();
    let is_digit = |i: usize| text.get(i).is_some_and(|&c| python::is_digit(c));
    let is_word = |i: usize| text.get(i).is_some_and(|&c| python::is_word(c));
    let (mut out, mut i) = (Vec::new(), 0);
    while i < text.len() {
        let begins = is_digit(i) && !(i > 0 && is_word(i - 1));
        let end = (i..).find(|&j| !is_digit(j)).unwrap_or(i).max(i + 1);
        out.extend(&text[i..end]);
        i = end;
        if begins && text.get(end) == Some(&'.') {
            let zeros = text[end + 1..].iter().take_while(|&&c| c == '0').count();
            let behind = end + 1 + zeros;
            if zeros > 0 && !is_word(behind) && text.get(behind) != Some(&'.') {
                i = behind;
            }
        }
    }
    out
}

/// Returns the letter of a label as math-verify's extraction of strings reads it: by the first pattern that matches, and
/// there by its last match.
pub fn choice(label: &str) -> Option<char> {
    static PATTERNS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
        let end = r"([A-Z])(?:\*\*)?(?:[.,:\s]|$)";
        let alone = format!(r"(?:^|\s)(?:\*\*)?{end}");
        let patterns = [
            r"(?i:final answer is):?\s*([A-Z])\.?\s?I hope".to_owned(),
            r"(?i:final answer.{0,100}?)\s+is:?\s*([A-Z])".to_owned(),
            format!("(?i:answer):.{{0,50}}?{alone}"),
            format!("(?i:answer).{{0,50}}?{alone}"),
            format!(r"^(?:\*\*)?{end}"),
            alone,
        ];
        patterns.iter().map(|pattern| Regex::new(pattern).expect("a valid pattern")).collect()
    });
    let found = PATTERNS.iter().find_map(|pattern| pattern.captures_iter(label).last())?;
    found[1].chars().next()
}
