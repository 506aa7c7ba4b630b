//! Text functions with the semantics of Python's `str` and `re`. The published scorer is written in Python, and its
//! published results depend on which characters count as white space, digits or word characters. Other regex engines
//! differ on all three.

use std::sync::LazyLock;

use regex::Regex;

/// Compiles a fixed pattern.
pub(crate) fn compiled(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a fixed pattern")
}

/// Returns true for white space, as `str.isspace` and `\s` of `re` define it.
pub fn is_space(c: char) -> bool {
    matches!(c, '\t'..='\r' | '\u{1c}'..='\u{20}' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}'
        | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// Removes white space at both ends, like `str.strip()`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Returns true for what `\d` of `re` matches: any decimal digit of Unicode.
pub fn is_digit(c: char) -> bool {
    static DIGIT: LazyLock<Regex> = LazyLock::new(|| compiled(r"^\p{Nd}$"));
    c.is_ascii_digit() || (!c.is_ascii() && DIGIT.is_match(c.encode_utf8(&mut [0; 4])))
}

/// Returns true for what `\w` of `re` matches: letters and numbers of any kind and the underscore, but not combining
/// marks.
pub fn is_word(c: char) -> bool {
    static WORD: LazyLock<Regex> = LazyLock::new(|| compiled(r"^[\p{L}\p{N}]$"));
    c == '_' || c.is_ascii_alphanumeric() || (!c.is_ascii() && WORD.is_match(c.encode_utf8(&mut [0; 4])))
}

/// Returns the value of a decimal digit of any script, like `unicodedata.decimal`.
pub fn digit_value(c: char) -> Option<u8> {
    if let Some(value) = c.to_digit(10) {
        return Some(value as u8);
    }
    if !is_digit(c) {
        return None;
    }
    // Digits come in runs of ten that begin with zero. Adjacent runs form one block that begins with a zero.
    let is_other = |p: &u32| char::from_u32(*p).is_some_and(|p| !p.is_ascii() && is_digit(p));
    Some(((0..c as u32).rev().take_while(is_other).count() % 10) as u8)
}

/// Returns the number of characters, not bytes, like `len()`.
pub fn len(text: &str) -> usize {
    text.chars().count()
}

/// Parses an integer like `int(text)`, for judge replies. Accepts surrounding white space, a sign, underscores between
/// digits, and digits of any script.
pub fn int(text: &str) -> Option<i64> {
    let text = strip(text);
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mut value, mut after_digit) = (0i64, false);
    for c in digits.chars() {
        if c == '_' && after_digit {
            after_digit = false;
            continue;
        }
        value = value.checked_mul(10)?.checked_add(i64::from(digit_value(c)?))?;
        after_digit = true;
    }
    after_digit.then_some(if negative { -value } else { value })
}
