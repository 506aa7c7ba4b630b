//! The answer without its wrappers.

use std::borrow::Cow;

use super::{python, tabular};

/// Most wrappers around one answer.
const MAX_WRAPPERS: usize = 32;
/// Longest text that can be one answer.
pub(super) const MAX_ANSWER: usize = 10_000;

/// One way to write a text: no white space around, one space inside.
pub(super) fn collapse(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split(python::is_space).filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// The text without the wrappers of an answer: dollar signs, boxes, bold, `\text`, a final full stop.
pub(super) fn bare(text: &str) -> String {
    let collapsed = collapse(text);
    let mut text = &*collapsed;
    for _ in 0..MAX_WRAPPERS {
        let inner = unwrap(text);
        if inner.len() == text.len() {
            break;
        }
        text = inner;
    }
    text.to_owned()
}

fn unwrap(text: &str) -> &str {
    let t = python::strip(text);
    let pairs = [
        ("'''", "'''"),
        ("\"\"\"", "\"\"\""),
        ("$$", "$$"),
        ("$", "$"),
        ("\\(", "\\)"),
        ("\\[", "\\]"),
        ("**", "**"),
        ("__", "__"),
        ("`", "`"),
        ("\"", "\""),
        ("\u{201c}", "\u{201d}"),
        ("'", "'"),
        ("\u{2018}", "\u{2019}"),
        ("<<", ">>"),
        ("*", "*"),
        ("_", "_"),
    ];
    for (open, close) in pairs {
        // An escaped dollar sign is money.
        let marked = |inner: &str, mark: &str| inner.match_indices(mark).any(|(at, _)| !inner[..at].ends_with('\\'));
        if let Some(inner) = t.strip_prefix(open).and_then(|t| t.strip_suffix(close))
            && !inner.ends_with('\\')
            && !marked(inner, open)
            && !marked(inner, close)
        {
            return python::strip(inner);
        }
    }
    for command in ["boxed", "fbox", "text", "mathrm", "textbf", "mathbf", "textit", "operatorname"] {
        let body = t.strip_prefix('\\').and_then(|t| t.strip_prefix(command)).map(str::trim_start);
        if let Some(inner) = body.and_then(|b| b.strip_prefix('{')).and_then(whole_group) {
            return python::strip(inner);
        }
    }
    for opening in
        ["So:", "Thus:", "Hence:", "Therefore:", "Total:", "Result:", "\u{2192}", "\u{21d2}", "namely ", "i.e. "]
    {
        if let Some(rest) = t.strip_prefix(opening).filter(|r| !r.trim().is_empty()) {
            return python::strip(rest);
        }
    }
    for note in
        [", exactly", ", precisely", "(approx.)", "(approx)", "(approximately)", "(rounded)", "(exact)", "(simplified)"]
    {
        if let Some(rest) = t.strip_suffix(note).filter(|r| !r.trim().is_empty()) {
            return python::strip(rest);
        }
    }
    if let Some(rest) = before_note(t) {
        return python::strip(rest);
    }
    for end in ['.', '!'] {
        if let Some(rest) = t.strip_suffix(end).filter(|r| !r.ends_with('.') && (end == '.' || is_exclamation(r))) {
            return python::strip(rest);
        }
    }
    t
}

/// The text before a remark of several words in brackets: "x = 1 (double root)".
fn before_note(text: &str) -> Option<&str> {
    let (rest, note) = text.strip_suffix(')')?.rsplit_once(" (")?;
    let words: Vec<&str> = note.split(' ').collect();
    let plain = |w: &&str| w.len() > 1 && w.chars().all(|c| c.is_ascii_alphabetic() || c == '-');
    let known =
        words.len() > 1 && words.iter().all(plain) && !words.iter().any(|w| matches!(*w, "not" | "or" | "and" | "per"));
    (known && rest.contains(|c: char| c.is_ascii_digit())).then_some(rest)
}

/// True when an exclamation mark behind `text` is no factorial.
fn is_exclamation(text: &str) -> bool {
    let last = text.rsplit(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    last.chars().count() >= 3 && !text.contains('\\')
}

/// The content of a group whose closing brace ends the text.
fn whole_group(text: &str) -> Option<&str> {
    let inner = text.strip_suffix('}')?;
    let mut depth = 1i32;
    for (i, b) in text.bytes().enumerate() {
        depth += i32::from(b == b'{') - i32::from(b == b'}');
        if depth == 0 {
            return (i == inner.len()).then_some(inner);
        }
    }
    None
}

/// A list with one name to a line, with bullets or numbers before them, as a list with commas; a line before it may
/// announce it.
pub(super) fn unbulleted(text: &str) -> Cow<'_, str> {
    const MAX_LINES: usize = 40;
    const MAX_WORDS: usize = 6;
    let plain = python::strip(text);
    if !plain.contains('\n') || plain.len() > MAX_ANSWER {
        return Cow::Borrowed(text);
    }
    if let Some(named) = tabular::listed(plain) {
        return Cow::Owned(named);
    }
    let lines: Vec<&str> = plain.split('\n').map(python::strip).filter(|l| !l.is_empty()).take(MAX_LINES + 1).collect();
    let announced = lines[0].trim_end_matches('*').ends_with(':');
    let items: Option<Vec<&str>> = lines[usize::from(announced)..].iter().map(|l| bullet(l)).collect();
    // Each with its name.
    let named = |i: &&str| {
        i.split_once([':', '='])
            .is_some_and(|(n, v)| !n.trim().is_empty() && !v.trim().is_empty() && !v.contains([',', ':', '=']))
    };
    match items {
        Some(items) if items.len() > 1 && lines.len() <= MAX_LINES && items.iter().all(named) => {
            Cow::Owned(items.iter().map(|i| i.trim_end_matches(['.', ';'])).collect::<Vec<_>>().join(", "))
        }
        Some(items)
            if items.len() > 1
                && lines.len() <= MAX_LINES
                && items.iter().all(|i| i.split_whitespace().count() <= MAX_WORDS && !i.contains([',', '=', ':'])) =>
        {
            Cow::Owned(items.iter().map(|i| i.trim_end_matches(['.', ';'])).collect::<Vec<_>>().join(", "))
        }
        _ => Cow::Borrowed(text),
    }
}

/// What follows a bullet or a number at the beginning of a line.
fn bullet(line: &str) -> Option<&str> {
    let rest = ["- ", "* ", "\u{2022} ", "\u{2022}", "\u{2013} ", "\u{25e6} ", "\u{25aa} ", "+ "];
    if let Some(rest) = rest.iter().find_map(|b| line.strip_prefix(b)) {
        return Some(python::strip(rest));
    }
    let digits = line.trim_start_matches('(').trim_start_matches(|c: char| c.is_ascii_digit());
    if digits.len() == line.len() || line.len() - digits.len() > 3 {
        return None;
    }
    digits.strip_prefix(". ").or(digits.strip_prefix(") ")).map(python::strip)
}
