//! Finds the answer inside a response, and scores whether the response has the required format.
//!
//! `compat` follows the published scorer exactly. `strict` corrects its defects:
//!
//! - Text inside the thinking is not an answer.
//! - The last answer counts, not the first.
//! - Several boxes form a list if a comma, "and" or "or" joins them. Otherwise the last one counts.
//! - Numbers keep their sign and thousands separators, and the end of a longer expression is no number.
//! - White space around a well-formed response does not lower the format score.

use std::borrow::Cow;

use crate::normalise::normalise;
use crate::steps::{BUDGET, Steps};
use crate::value::{self, Value};
use crate::{Format, Mode, choice, ending, python};

/// Maximum number of boxes that form one answer.
const MAX_BOXES: usize = 16;

/// Rule that found the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Path {
    /// `<answer>...</answer>`.
    AnswerTag,
    /// `\boxed{...}`.
    Boxed,
    /// A number at the end of a line, or the line if the number is a part of an expression.
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
            let is_answer = |b: &(&str, usize, usize)| b.2 <= text.len() && !is_placeholder(b.0);
            in_boxes(text, &outer_boxes(text).into_iter().filter(is_answer).collect::<Vec<_>>())
        }
    };
    if let Some(content) = boxed {
        return (content, Path::Boxed);
    }
    let trailing =
        |line| if mode == Mode::Strict { ending::answer(line) } else { trailing_number(line).map(Cow::Borrowed) };
    let mut lines = python::strip(text).split('\n').rev().filter(|line| !python::strip(line).is_empty());
    let number = lines.find_map(trailing);
    number.map_or((Cow::Borrowed(""), Path::None), |number| (number, Path::TrailingNumber))
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

/// Returns the answer in the boxes of a text: the last box, or the list that ends with it if the boxes before it are joined
/// to it. Boxes of equal value are one, in its shortest form. A line `Answer: C` behind the boxes replaces them.
fn in_boxes<'a>(text: &'a str, boxes: &[(&'a str, usize, usize)]) -> Option<Cow<'a, str>> {
    let (last, earlier) = boxes.split_last()?;
    let marked = text[last.2..].lines().rev().find_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let name = name.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        let rest = rest.trim_matches(|c: char| python::is_space(c) || "*_$.()".contains(c));
        (matches!(&*name, "answer" | "final answer") && choice::letter(rest).is_some()).then_some(rest)
    });
    if marked.is_some() {
        return marked.map(Cow::Borrowed);
    }
    let first = (1..boxes.len()).rev().find(|&n| !ending::is_joint(&text[boxes[n - 1].2..boxes[n].1])).unwrap_or(0);
    let steps = Steps::new(BUDGET);
    let value = |content: &str| value::parse(&normalise(content), true, &steps);
    let same = |a: &str, b: &str| {
        let is_text = |value: &Value| matches!(value, Value::Text(_));
        plain(a) == plain(b) || {
            let (a, b) = (value(a), value(b));
            !is_text(&a) && !is_text(&b) && value::equal(&a, &b, &steps).equal
        }
    };
    let shorter = |a: &'a str, b: &'a str| if b.len() < a.len() { b } else { a };
    if first == boxes.len() - 1 {
        let equal = earlier.iter().rev().take(MAX_BOXES).filter(|b| same(b.0, last.0));
        return Some(Cow::Borrowed(plain(equal.fold(last.0, |a, b| shorter(a, b.0)))));
    }
    let mut all: Vec<&str> = Vec::new();
    for (content, ..) in boxes[first..].iter().take(MAX_BOXES) {
        match all.iter_mut().find(|other| same(other, content)) {
            Some(other) => *other = shorter(other, plain(content)),
            None => all.push(plain(content)),
        }
    }
    if let [one] = all[..] { Some(Cow::Borrowed(one)) } else { Some(Cow::Owned(all.join(", "))) }
}

/// Returns true for the content of a box that only says where the answer belongs: `your answer`, `...`.
fn is_placeholder(content: &str) -> bool {
    const WORDS: &str = "answer the your final here correct numerical number text textbf mathrm ldots dots cdots";
    let mut words =
        content.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase);
    let is_named = content.to_lowercase().contains("answer") || content.contains("dots");
    (is_named || !content.contains(char::is_alphanumeric) && content.contains(['?', '_', '.', '\u{2026}']))
        && words.all(|word| WORDS.split(' ').any(|known| known == word))
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
    let end = ending::end_of_number(line);
    let whole = ending::start_of_digits(end)?;
    let fraction = end[..whole].strip_suffix('.').and_then(ending::start_of_digits);
    let bounded = |at: usize| !end[..at].chars().next_back().is_some_and(python::is_word);
    [fraction, Some(whole)].into_iter().flatten().find(|&at| bounded(at)).map(|at| &end[at..])
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
pub const THINKING: [(&str, &str); 2] = [("<think>", "</think>"), ("<analysis>", "</analysis>")];

/// Returns the position of the first tag that opens thinking.
pub fn opening(text: &str) -> Option<usize> {
    THINKING.iter().filter_map(|(open, _)| text.find(open)).min()
}

/// Returns true if a text contains a thinking part that is closed.
pub fn closes_thinking(text: &str) -> bool {
    THINKING.iter().any(|(_, close)| text.contains(close))
}

/// Returns the text of an assistant's turn that strict mode scores: `opened`, which the chat template wrote before the
/// response, and the response. A thinking part that the template itself closed is left out.
pub fn turn<'a>(opened: &str, response: &'a str) -> Cow<'a, str> {
    let behind = THINKING.iter().filter_map(|(_, close)| Some(opened.rfind(close)? + close.len())).max();
    let opened = opened[behind.unwrap_or(0)..].trim_start();
    if opened.is_empty() { Cow::Borrowed(response) } else { Cow::Owned(format!("{opened}{response}")) }
}

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
