//! Finds the answer inside a response, and scores whether the response has the required format.
//!
//! `compat` follows the published scorer exactly. `strict` corrects its defects:
//!
//! - Text inside the thinking is not an answer.
//! - The last answer counts, not the first.
//! - Several boxes form a list.
//! - Numbers keep their sign and thousands separators.
//! - White space around a well-formed response does not lower the format score.

use std::borrow::Cow;

use crate::{Format, Mode, python};

/// Maximum number of boxes that form one answer.
const MAX_BOXES: usize = 16;

/// Rule that found the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// `<answer>...</answer>`.
    AnswerTag,
    /// `\boxed{...}`.
    Boxed,
    /// A number at the end of a line.
    TrailingNumber,
    /// No rule found an answer.
    None,
}

impl Path {
    /// Returns the rule's name as it is written to records.
    pub fn name(self) -> &'static str {
        match self {
            Path::AnswerTag => "answer_tag",
            Path::Boxed => "boxed",
            Path::TrailingNumber => "trailing_number",
            Path::None => "none",
        }
    }
}

/// Returns the answer as it stands in the response, and the rule that found it. In strict mode several different boxes
/// are returned as one list.
pub fn extract(response: &str, mode: Mode) -> (Cow<'_, str>, Path) {
    let text = if mode == Mode::Strict { without_thinking(response) } else { response };
    let tag = match mode {
        Mode::Compat => first_answer_tag(text),
        Mode::Strict => last_answer_tag(text),
    };
    if let Some(answer) = tag {
        return (Cow::Borrowed(answer), Path::AnswerTag);
    }
    let boxed = match mode {
        Mode::Compat => boxes(text).pop().filter(|content| !content.is_empty()).map(Cow::Borrowed),
        Mode::Strict => {
            let closed = |b: &(&str, usize, usize)| b.2 <= text.len();
            one_or_list(&outer_boxes(text).into_iter().filter(closed).collect::<Vec<_>>())
        }
    };
    if let Some(content) = boxed {
        return (content, Path::Boxed);
    }
    let trailing = if mode == Mode::Strict { trailing_signed_number } else { trailing_number };
    let mut lines = python::strip(text).split('\n').rev().filter(|line| !python::strip(line).is_empty());
    let number = lines.find_map(trailing);
    number.map_or((Cow::Borrowed(""), Path::None), |number| (Cow::Borrowed(number), Path::TrailingNumber))
}

/// Removes one final full stop and then the surrounding white space.
pub fn simple_parse(text: &str) -> &str {
    python::strip(text.strip_suffix('.').unwrap_or(text))
}

/// Returns the answer in the form that is compared and recorded, and the rule that found it.
pub fn predict_str(response: &str, mode: Mode) -> (Cow<'_, str>, Path) {
    let (raw, path) = extract(response, mode);
    let predict = match raw {
        Cow::Borrowed(raw) => Cow::Borrowed(plain(raw)),
        Cow::Owned(raw) => Cow::Owned(plain(&raw).to_owned()),
    };
    (predict, path)
}

/// Returns the contents of all `\boxed{...}` with balanced braces, in order of their beginnings. Nested boxes count,
/// too.
pub fn boxes(text: &str) -> Vec<&str> {
    const OPEN: &str = "\\boxed{";
    // One pass with a stack of open braces. Counting braces again from every beginning would take quadratic time.
    let (mut open, mut found) = (Vec::new(), Vec::new());
    for (i, b) in text.bytes().enumerate() {
        if b == b'{' {
            open.push(i);
        } else if b == b'}' {
            let Some(from) = open.pop() else { continue };
            if text[..=from].ends_with(OPEN) {
                found.push((from, &text[from + 1..i]));
            }
        }
    }
    found.sort_by_key(|&(from, _)| from);
    found.into_iter().map(|(_, content)| content).collect()
}

/// Returns the boxes that are not inside another box and not empty: content, begin and end. If the closing brace is
/// missing, the end lies beyond the end of the text.
pub(super) fn outer_boxes(text: &str) -> Vec<(&str, usize, usize)> {
    let (groups, mut found, mut from) = (without_escaped_braces(text), Vec::new(), 0);
    while let Some(at) = text[from..].find("box").map(|at| from + at) {
        from = at + "box".len();
        let body = text[from..].strip_prefix("ed").unwrap_or(&text[from..]);
        let inner = body.trim_start_matches(python::is_space).strip_prefix('{');
        let begin = ["\\f", "\\"].iter().find_map(|c| text[..at].strip_suffix(c)).map(str::len);
        let (Some(inner), Some(begin)) = (inner, begin) else { continue };
        let end = closing(&groups[text.len() - inner.len()..], '{', '}');
        let content = end.map_or(inner, |end| &inner[..end]);
        from = text.len() - inner.len() + content.len();
        if !plain(content).is_empty() {
            found.push((content, begin, from + 1));
        }
    }
    found
}

/// Replaces the escaped braces of `\left\{ ... \right.`, which need no partner. All other characters keep their positions.
fn without_escaped_braces(text: &str) -> String {
    text.replace("\\\\", "//").replace("\\{", "//").replace("\\}", "//")
}

/// Returns the position of the bracket that closes the one before `body`.
pub(super) fn closing(body: &str, open: char, close: char) -> Option<usize> {
    let mut depth = 1;
    for (at, c) in body.char_indices() {
        depth += i32::from(c == open) - i32::from(c == close);
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Returns the content of a single box unchanged, or the distinct contents of several boxes as a list.
pub(super) fn one_or_list<'a>(boxes: &[(&'a str, usize, usize)]) -> Option<Cow<'a, str>> {
    let mut all: Vec<&str> = Vec::new();
    for (content, ..) in boxes {
        if all.len() < MAX_BOXES && !all.contains(&plain(content)) {
            all.push(plain(content));
        }
    }
    match all.as_slice() {
        [] => None,
        [one] => Some(Cow::Borrowed(one)),
        all => Some(Cow::Owned(all.join(", "))),
    }
}

/// Removes the surrounding white space and one final full stop.
fn plain(content: &str) -> &str {
    simple_parse(python::strip(content))
}

fn first_answer_tag(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<answer>")?;
    rest.split_once("</answer>").map(|(content, _)| content)
}

/// Returns the content of the last `<answer>...</answer>`.
pub fn last_answer_tag(text: &str) -> Option<&str> {
    let (before, _) = text.rsplit_once("</answer>")?;
    before.rsplit_once("<answer>").map(|(_, content)| content)
}

/// Returns the leftmost match of `\b(\d+(?:\.\d+)?)\b\s*\.?\s*$`.
fn trailing_number(line: &str) -> Option<&str> {
    let end = end_of_number(line);
    let whole = start_of_digits(end)?;
    let fraction = end[..whole].strip_suffix('.').and_then(start_of_digits);
    let bounded = |at: usize| !end[..at].chars().next_back().is_some_and(python::is_word);
    [fraction, Some(whole)].into_iter().flatten().find(|&at| bounded(at)).map(|at| &end[at..])
}

/// Cuts off the end of a line after its last number: white space, one full stop, and white space before it.
fn end_of_number(line: &str) -> &str {
    let line = line.trim_end_matches(python::is_space);
    line.strip_suffix('.').unwrap_or(line).trim_end_matches(python::is_space)
}

/// Returns the position where the digits at the end of `text` begin.
fn start_of_digits(text: &str) -> Option<usize> {
    let start = text.trim_end_matches(python::is_digit).len();
    (start < text.len()).then_some(start)
}

/// Returns the number at the end of a line, with sign, thousands separators and decimals: `-1,234.5`.
fn trailing_signed_number(line: &str) -> Option<&str> {
    let is_mark = |c: char| python::is_space(c) || matches!(c, '*' | '$' | '`');
    let end = end_of_number(line.trim_end_matches(|c: char| is_mark(c) || c == '!')).trim_end_matches(is_mark);
    let mut start = start_of_digits(end)?;
    loop {
        let before = &end[..start];
        let longer = before.strip_suffix(['.', ',']).and_then(start_of_digits);
        let group = end[start..].chars().take_while(|&c| python::is_digit(c)).count();
        match longer {
            Some(at) if before.ends_with('.') && !end[start..].contains(['.', ',']) => start = at,
            Some(at) if before.ends_with(',') && group == 3 && before.len() - 1 - at <= 3 => start = at,
            _ => break,
        }
    }
    let before = &end[..start];
    let sign = before.strip_suffix(['-', '\u{2212}']);
    match sign {
        // A minus directly after a word, a number or a closing bracket is an operator. Elsewhere it is a sign.
        Some(rest) if !rest.chars().next_back().is_some_and(|c| python::is_word(c) || c == ')') => {
            Some(&end[rest.len()..])
        }
        _ if before.chars().next_back().is_some_and(python::is_word) => None,
        _ => Some(&end[start..]),
    }
}

/// Scores whether a response has the required format: 1 if it does, otherwise 0. Compat mode gives 0.8 for a
/// sufficiently long calculation that contains an answer, if the format also allows a box without thinking. In strict
/// mode, white space around a response does not matter, and a box inside the thinking does not count.
pub fn format_score(response: &str, mode: Mode, format: Format) -> f64 {
    let (whole, answer_text) = match mode {
        Mode::Strict => (python::strip(response), without_thinking(response)),
        Mode::Compat => (response, response),
    };
    let kept = match format {
        Format::ThinkAnswer => is_think_answer(whole),
        Format::ThinkBoxed => return think_boxed_format_score(whole),
        Format::ThinkAnswerBoxed if mode == Mode::Strict => {
            let has_box = |text: &str| boxes(text).iter().any(|b| !python::strip(b).is_empty());
            is_think_answer(whole) || has_box(answer_text) || has_box(&without_escaped_braces(answer_text))
        }
        Format::ThinkAnswerBoxed => {
            let boxed = boxes(answer_text).last().is_some_and(|b| !b.is_empty());
            if !is_think_answer(whole) && !boxed && calculates(response) {
                return 0.8;
            }
            is_think_answer(whole) || boxed
        }
    };
    f64::from(u8::from(kept))
}

/// Returns true for a sufficiently long calculation with an answer, by the definition of the published scorer.
fn calculates(response: &str) -> bool {
    let signs = response.contains(['=', '+', '-', '*', '/', '(', ')', '[', ']', '\\']);
    signs && python::len(python::strip(response)) > 50 && !extract(response, Mode::Compat).0.is_empty()
}

/// Returns true if all of the text matches `<think>.*</think>.*<answer>.*</answer>`, where `.` is any character.
fn is_think_answer(text: &str) -> bool {
    let Some(body) = text.strip_prefix("<think>").and_then(|t| t.strip_suffix("</answer>")) else { return false };
    body.split_once("</think>").is_some_and(|(_, rest)| rest.contains("<answer>"))
}

/// Returns the format score of verl's geo3k recipe: 1 if all of the text matches `<think>.*</think>.*\boxed{.*}.*`,
/// otherwise 0.
pub fn think_boxed_format_score(response: &str) -> f64 {
    let body = response.strip_prefix("<think>").and_then(|t| t.split_once("</think>"));
    let boxed = body.and_then(|(_, rest)| rest.split_once("\\boxed{"));
    f64::from(u8::from(boxed.is_some_and(|(_, rest)| rest.contains('}'))))
}

/// Tags that open and close the thinking.
const THINKING: [(&str, &str); 2] = [("<think>", "</think>"), ("<analysis>", "</analysis>")];

/// Returns the response without its thinking. The opening tag may be absent because it was part of the prompt. Thinking
/// that is never closed is removed, with everything after it.
pub(super) fn without_thinking(response: &str) -> &str {
    THINKING.iter().fold(response, |text, (open, close)| {
        let behind = text.rsplit_once(close).map_or(text, |(_, rest)| rest);
        behind.split_once(open).map_or(behind, |(before, _)| before)
    })
}

/// Returns true if a response contains only thinking. Such a response may have been truncated.
pub fn only_thinks(response: &str) -> bool {
    THINKING.iter().any(|(open, _)| response.contains(open)) && python::strip(without_thinking(response)).is_empty()
}

/// Returns the response without its thinking. Strict mode returns the same text as `without_thinking`, stripped. Compat mode does
/// what newer evaluation harnesses do before they call a scorer: it removes complete blocks, then everything up to a
/// remaining closing tag. A block that is never closed stays.
pub fn strip_think(response: &str, mode: Mode) -> String {
    if mode == Mode::Strict {
        return python::strip(without_thinking(response)).to_owned();
    }
    let mut text = response.to_owned();
    for (open, close) in THINKING {
        let (mut rest, mut out) = (text.as_str(), String::with_capacity(text.len()));
        while let Some((before, inside)) = rest.split_once(open) {
            let Some((_, after)) = inside.split_once(close) else { break };
            out.push_str(before);
            rest = after;
        }
        out.push_str(rest);
        // The opening tag may be part of the prompt.
        text = match out.rsplit_once(close) {
            Some((_, behind)) if !out.contains(open) => behind.to_owned(),
            _ => out,
        };
    }
    python::strip(&text).to_owned()
}
