//! The answer inside a response, and whether the response keeps to the format.
//!
//! `compat` follows the published scorer to the letter. `strict` mends what it gets wrong: text inside the
//! thinking is not an answer, the last answer counts (not the first), several boxes are a list, numbers keep their
//! sign and thousands separators, and white space around a well-formed response costs nothing.

use std::borrow::Cow;

use crate::{Format, Mode, python};

/// Most boxes that are one answer.
const MAX_BOXES: usize = 16;

/// Which rule found the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// `<answer>...</answer>`.
    AnswerTag,
    /// `\boxed{...}`.
    Boxed,
    /// A number at the end of a line.
    TrailingNumber,
    /// Nothing was found.
    None,
}

impl Path {
    /// The rule's name in records.
    pub fn name(self) -> &'static str {
        match self {
            Path::AnswerTag => "answer_tag",
            Path::Boxed => "boxed",
            Path::TrailingNumber => "trailing_number",
            Path::None => "none",
        }
    }
}

/// An answer as it stands in the response, and the rule that found it. Several boxes are in strict the list of those
/// that differ.
pub fn extract(response: &str, mode: Mode) -> (Cow<'_, str>, Path) {
    let text = if mode == Mode::Strict { said(response) } else { response };
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
    let lines = python::strip(text).split('\n').rev();
    for line in lines.filter(|l| !python::strip(l).is_empty()) {
        let number = match mode {
            Mode::Compat => trailing_number(line),
            Mode::Strict => trailing_signed_number(line),
        };
        if let Some(number) = number {
            return (Cow::Borrowed(number), Path::TrailingNumber);
        }
    }
    (Cow::Borrowed(""), Path::None)
}

/// The answer without white space around it and without one final full stop.
pub fn simple_parse(text: &str) -> &str {
    python::strip(text.strip_suffix('.').unwrap_or(text))
}

/// The answer as it is compared and recorded.
pub fn predict_str(response: &str, mode: Mode) -> (Cow<'_, str>, Path) {
    let (raw, path) = extract(response, mode);
    let predict = match raw {
        Cow::Borrowed(raw) => Cow::Borrowed(plain(raw)),
        Cow::Owned(raw) => Cow::Owned(plain(&raw).to_owned()),
    };
    (predict, path)
}

/// `\boxed{...}` contents with balanced braces, in order of their beginnings; nested ones count too.
pub fn boxes(text: &str) -> Vec<&str> {
    const OPEN: &str = "\\boxed{";
    // One pass with a stack of open braces: counting anew from every beginning is quadratic.
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

/// The boxes that stand in no other box and are not empty: the content of each, where it begins, and where it ends;
/// behind the end of the text where the closing brace is missing.
pub(super) fn outer_boxes(text: &str) -> Vec<(&str, usize, usize)> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(at) = text[from..].find("box").map(|at| from + at) {
        from = at + "box".len();
        let body = text[from..].strip_prefix("ed").unwrap_or(&text[from..]);
        let inner = body.trim_start_matches(python::is_space).strip_prefix('{');
        let begin = ["\\f", "\\"].iter().find_map(|c| text[..at].strip_suffix(c)).map(str::len);
        let (Some(inner), Some(begin)) = (inner, begin) else { continue };
        let content = group(inner).unwrap_or(inner);
        from = text.len() - inner.len() + content.len();
        if !plain(content).is_empty() {
            found.push((content, begin, from + 1));
        }
    }
    found
}

/// The text before the brace that closes the one just passed.
pub(super) fn group(text: &str) -> Option<&str> {
    let mut depth = 1i32;
    for (i, b) in text.bytes().enumerate() {
        depth += i32::from(b == b'{') - i32::from(b == b'}');
        if depth == 0 {
            return Some(&text[..i]);
        }
    }
    None
}

/// The content of one box as it is, of several that differ, as a list.
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

/// Without white space around it and one final full stop.
fn plain(content: &str) -> &str {
    simple_parse(python::strip(content))
}

fn first_answer_tag(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<answer>")?;
    rest.split_once("</answer>").map(|(content, _)| content)
}

/// The content of the last `<answer>...</answer>`.
pub(super) fn last_answer_tag(text: &str) -> Option<&str> {
    let (before, _) = text.rsplit_once("</answer>")?;
    before.rsplit_once("<answer>").map(|(_, content)| content)
}

/// `\b(\d+(?:\.\d+)?)\b\s*\.?\s*$`, the leftmost match.
fn trailing_number(line: &str) -> Option<&str> {
    let end = end_of_number(line);
    let whole = start_of_digits(end)?;
    let fraction = end[..whole].strip_suffix('.').and_then(start_of_digits);
    let bounded = |at: usize| !end[..at].chars().next_back().is_some_and(python::is_word);
    [fraction, Some(whole)].into_iter().flatten().find(|&at| bounded(at)).map(|at| &end[at..])
}

/// The line up to its last number: without white space, one full stop, white space.
fn end_of_number(line: &str) -> &str {
    let line = line.trim_end_matches(python::is_space);
    line.strip_suffix('.').unwrap_or(line).trim_end_matches(python::is_space)
}

/// Where the digits at the end of `text` begin.
fn start_of_digits(text: &str) -> Option<usize> {
    let start = text.trim_end_matches(python::is_digit).len();
    (start < text.len()).then_some(start)
}

/// A number at the end of a line with its sign, thousands separators and decimals: `-1,234.5`.
fn trailing_signed_number(line: &str) -> Option<&str> {
    let end = end_of_number(line.trim_end_matches(|c: char| python::is_space(c) || matches!(c, '*' | '$' | '`' | '!')));
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
        // A minus between two words or numbers joins them; only a free one is a sign.
        Some(rest) if !rest.chars().next_back().is_some_and(|c| python::is_word(c) || c == ')') => {
            Some(&end[rest.len()..])
        }
        _ if before.chars().next_back().is_some_and(python::is_word) => None,
        _ => Some(&end[start..]),
    }
}

/// How well a response keeps to the format that is asked for: 1 where it does, else 0; in compat 0.8 for a long enough
/// calculation that ends in a number, where a box without thinking would do. White space around a response costs nothing
/// in strict, and a box inside the thinking is none.
pub fn format_score(response: &str, mode: Mode, format: Format) -> f64 {
    let (whole, said) = match mode {
        Mode::Strict => (python::strip(response), said(response)),
        Mode::Compat => (response, response),
    };
    let kept = match format {
        Format::ThinkAnswer => is_think_answer(whole),
        Format::ThinkBoxed => return think_boxed_format_score(whole),
        Format::ThinkAnswerBoxed if mode == Mode::Strict => {
            is_think_answer(whole) || boxes(said).iter().any(|b| !python::strip(b).is_empty())
        }
        Format::ThinkAnswerBoxed => {
            let boxed = boxes(said).last().is_some_and(|b| !b.is_empty());
            if !is_think_answer(whole) && !boxed && calculates(response) {
                return 0.8;
            }
            is_think_answer(whole) || boxed
        }
    };
    f64::from(u8::from(kept))
}

/// True for a long enough calculation with an answer, as the published scorer tells it.
fn calculates(response: &str) -> bool {
    let signs = response.contains(['=', '+', '-', '*', '/', '(', ')', '[', ']', '\\']);
    signs && python::len(python::strip(response)) > 50 && !extract(response, Mode::Compat).0.is_empty()
}

/// The whole of `<think>.*</think>.*<answer>.*</answer>`, with `.` for any character.
fn is_think_answer(text: &str) -> bool {
    let Some(body) = text.strip_prefix("<think>").and_then(|t| t.strip_suffix("</answer>")) else { return false };
    body.split_once("</think>").is_some_and(|(_, rest)| rest.contains("<answer>"))
}

/// The format score of verl's geo3k recipe: the whole of `<think>.*</think>.*\boxed{.*}.*`.
pub fn think_boxed_format_score(response: &str) -> f64 {
    let body = response.strip_prefix("<think>").and_then(|t| t.split_once("</think>"));
    let boxed = body.and_then(|(_, rest)| rest.split_once("\\boxed{"));
    f64::from(u8::from(boxed.is_some_and(|(_, rest)| rest.contains('}'))))
}

/// What opens and closes a thinking.
const THINKING: [(&str, &str); 2] = [("<think>", "</think>"), ("<analysis>", "</analysis>")];

/// What a response says: the text behind its thinking, whose opening tag may have stood in the prompt, up to a thinking
/// that has no end.
pub(super) fn said(response: &str) -> &str {
    THINKING.iter().fold(response, |text, (open, close)| {
        let behind = text.rsplit_once(close).map_or(text, |(_, rest)| rest);
        behind.split_once(open).map_or(behind, |(before, _)| before)
    })
}

/// True for a response that is nothing but thinking: it may have been cut.
pub fn only_thinks(response: &str) -> bool {
    THINKING.iter().any(|(open, _)| response.contains(open)) && python::strip(said(response)).is_empty()
}

/// The response without its thinking. In strict what it says; in compat as newer evaluation harnesses hand it to a
/// scorer: whole blocks are removed, and all up to a closing tag that is left; a block without its end stays.
pub fn strip_think(response: &str, mode: Mode) -> String {
    if mode == Mode::Strict {
        return python::strip(said(response)).to_owned();
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
        // The opening tag may have stood in the prompt.
        text = match out.rsplit_once(close) {
            Some((_, behind)) if !out.contains(open) => behind.to_owned(),
            _ => out,
        };
    }
    python::strip(&text).to_owned()
}
