//! Normalises notation: Unicode signs, alternative command names, and commands that only change the appearance. The
//! table of replacements is `lexicon/notation.tsv`. No other module rewrites notation.

use crate::lexicon::{Kind, look, rows};
use crate::python;
use regex::{Captures, Match, Regex};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Character between two groups of digits of one number. It replaces `{,}` and `,\!`, which never separate list
/// members.
pub(crate) const JOIN: char = '\u{1}';

/// Maximum length in characters of the name of an equation after a wide space.
const MAX_NAME: usize = 24;

/// Returns the text in normalised notation. Signs and commands that are not in the table stay as they are.
pub fn normalise(text: &str) -> Cow<'_, str> {
    let plain = if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(ascii(&parted(text))) };
    if plain.contains(['\\', '{', '~']) { Cow::Owned(commands(&plain)) } else { plain }
}

/// Puts spaces around the known words and the numbers of Chinese text, which has no spaces. Between values or formulas,
/// "and" and "or" become English.
fn parted(text: &str) -> Cow<'_, str> {
    static WORDS: LazyLock<Regex> = LazyLock::new(|| {
        let kinds =
            [Kind::Conjunction, Kind::Denial, Kind::Joint, Kind::Marker, Kind::Modifier, Kind::Scale, Kind::Shows];
        let forms = kinds.into_iter().flat_map(rows).flat_map(|row| row.1.iter().copied().chain([row.0]));
        let mut forms: Vec<&str> =
            forms.filter(|form| form.starts_with(is_han)).chain(["平方", "立方", "每"]).collect();
        forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
        Regex::new(&format!("{}|[!-~]+", forms.join("|"))).expect("words without special signs")
    });
    let sign = |c: char| !is_han(c);
    let between = |word: Match| {
        text[..word.start()].trim_end().ends_with(sign) && text[word.end()..].trim_start().starts_with(sign)
    };
    let spaced = |found: &Captures| {
        let word = found.get(0).expect("the whole match");
        match look(Kind::Conjunction, word.as_str()) {
            None => format!(" {} ", word.as_str()),
            Some(joint) if between(word) => format!(" {joint} "),
            Some(_) => word.as_str().to_owned(),
        }
    };
    if text.contains(is_han) { WORDS.replace_all(text, spaced) } else { Cow::Borrowed(text) }
}

/// Returns true for a Chinese character.
pub(crate) fn is_han(c: char) -> bool {
    matches!(c, '\u{4e00}'..='\u{9fff}')
}

/// Converts Unicode notation to ASCII or LaTeX.
fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut raised: Option<bool> = None;
    for c in text.chars() {
        let mut room = [0; 4];
        let sign = &*c.encode_utf8(&mut room);
        let known = |kind| if c.is_ascii() { None } else { look(kind, sign) };
        let scripted = known(Kind::Raised).map(|s| (s, true)).or_else(|| Some((known(Kind::Lowered)?, false)));
        if raised.is_some() && scripted.map(|s| s.1) != raised {
            out.push('}');
            raised = None;
        }
        if let Some((plain, up)) = scripted {
            if raised.is_none() {
                out.push_str(if up { "^{" } else { "_{" });
                raised = Some(up);
            }
            out.push_str(plain);
        } else if c.is_ascii() {
            out.push(c);
        } else if let Some(sign) = known(Kind::Sign) {
            write_sign(&mut out, sign);
        } else if let Some(name) = known(Kind::Greek) {
            out.extend(["\\", name, " "]);
        } else if let '\u{ff01}'..='\u{ff5e}' = c {
            out.push(char::from((c as u32 - 0xff01 + 0x21) as u8));
        } else if let Some(d) = python::digit_value(c) {
            out.push(char::from(b'0' + d));
        } else if python::is_space(c) {
            out.push(' ');
        } else {
            out.push(c);
        }
    }
    if raised.is_some() {
        out.push('}');
    }
    out
}

/// Writes a replacement from the table. A space separates a command from a following letter.
fn write_sign(out: &mut String, sign: &str) {
    if sign == "blank" {
        out.push(' ');
        return;
    }
    out.push_str(sign);
    if sign.starts_with('\\') && sign.ends_with(|c: char| c.is_ascii_alphabetic()) {
        out.push(' ');
    }
}

/// Gives each command its canonical name, and replaces commands that are only white space.
fn commands(text: &str) -> String {
    // Two backslashes are a command that was escaped twice, except inside an environment, where they are a line break.
    let doubled = text.contains("\\\\") && !text.contains("\\begin") && !text.contains("\\cr");
    let text = if doubled { Cow::Owned(text.replace("\\\\", "\\")) } else { Cow::Borrowed(text) };
    let (mut out, mut rest) = (String::with_capacity(text.len()), &*text);
    while let Some(at) = rest.find(['\\', '{', ',', '~']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(tail) = ["{,}", ",\\!"].iter().find_map(|mark| rest.strip_prefix(mark)) {
            out.push(JOIN);
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("{:}") {
            out.push(':');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("\\!") {
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('~') {
            out.push(' ');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('\\') {
            rest = command(&mut out, tail);
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out + rest
}

/// Writes the command whose name begins `text`, and returns the text after it.
fn command<'a>(out: &mut String, text: &'a str) -> &'a str {
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        // An escaped sign, such as a brace or the backslash itself, is copied unchanged.
        let end = text.char_indices().nth(1).map_or(text.len(), |(at, _)| at);
        out.push('\\');
        out.push_str(&text[..end]);
        return &text[end..];
    }
    if matches!(name, "quad" | "qquad") {
        // A wide space separates equations, as in "a = 1 \quad b = 2".
        let ahead: String = rest.chars().take(MAX_NAME).collect();
        let next = ahead.split_once('=').map_or("", |(next, _)| next.trim());
        let is_name = next.chars().all(|c| c.is_ascii_alphanumeric() || "\\_{}()'".contains(c))
            && next.starts_with(|c: char| c.is_ascii_alphabetic() || c == '\\')
            && !next.starts_with("\\text");
        let mut before = out.chars().rev().take(2 * MAX_NAME).skip_while(|c| *c == ' ').peekable();
        let follows_equation = before.peek() != Some(&'&') && before.any(|c| c == '=');
        out.push(if is_name && follows_equation { ',' } else { ' ' });
        return rest;
    }
    if look(Kind::Hidden, name).is_some() {
        out.push(' ');
        // The point of `\left.` stands for an absent bracket.
        return if matches!(name, "left" | "right") { rest.strip_prefix('.').unwrap_or(rest) } else { rest };
    }
    if look(Kind::Unsaid, name).is_some() {
        out.push(' ');
        return rest.trim_start().strip_prefix('{').and_then(|t| t.split_once('}')).map_or(rest, |(_, behind)| behind);
    }
    let name = look(Kind::Face, name)
        .or_else(|| look(Kind::Command, name))
        .or_else(|| look(Kind::Function, name))
        .or_else(|| look(Kind::Greek, name))
        .unwrap_or(name);
    let letters = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if letters || matches!(name, "$" | "%" | "{" | "}") {
        out.push('\\');
    }
    out.push_str(name);
    if letters { rest } else { rest.strip_prefix(' ').unwrap_or(rest) }
}
