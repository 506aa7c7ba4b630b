//! The answer inside a response, and whether the response keeps to the format.
//!
//! `compat` follows the published scorer to the letter. `strict` mends what it gets wrong: text inside the
//! thinking is not an answer, the last answer counts (not the first), numbers keep their sign and thousands
//! separators, and white space around a well-formed response costs nothing.

use crate::config::Mode;

use super::python;

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

/// An answer as it stands in the response, and the rule that found it.
pub fn extract(response: &str, mode: Mode) -> (&str, Path) {
    let tag = match mode {
        Mode::Compat => first_answer_tag(response),
        Mode::Strict => last_answer_tag(after_thinking(response)),
    };
    if let Some(answer) = tag {
        return (answer, Path::AnswerTag);
    }
    let text = if mode == Mode::Strict { after_thinking(response) } else { response };
    match boxes(text).last() {
        Some(&content) if mode == Mode::Compat && !content.is_empty() => return (content, Path::Boxed),
        Some(&content) if mode == Mode::Strict && !python::strip(content).is_empty() => return (content, Path::Boxed),
        _ => {}
    }
    let lines = python::strip(text).split('\n').rev();
    for line in lines.filter(|l| !python::strip(l).is_empty()) {
        let number = match mode {
            Mode::Compat => trailing_number(line),
            Mode::Strict => trailing_signed_number(line),
        };
        if let Some(number) = number {
            return (number, Path::TrailingNumber);
        }
    }
    ("", Path::None)
}

/// The answer without white space around it and without one final full stop.
pub fn simple_parse(text: &str) -> &str {
    python::strip(text.strip_suffix('.').unwrap_or(text))
}

/// The answer as it is compared and recorded.
pub fn predict_str(response: &str, mode: Mode) -> (&str, Path) {
    let (raw, path) = extract(response, mode);
    (simple_parse(python::strip(raw)), path)
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

fn first_answer_tag(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<answer>")?;
    rest.split_once("</answer>").map(|(content, _)| content)
}

fn last_answer_tag(text: &str) -> Option<&str> {
    let (before, _) = text.rsplit_once("</answer>")?;
    before.rsplit_once("<answer>").map(|(_, content)| content)
}

/// What follows the last closed thinking block; all of it when there is none.
fn after_thinking(text: &str) -> &str {
    text.rsplit_once("</think>").map_or(text, |(_, rest)| rest)
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

/// How well a response keeps to the format: 1 for thinking and answer tags or a box, in compat 0.8 for a long
/// enough calculation that ends in a number, else 0.
pub fn format_score(response: &str, mode: Mode) -> f64 {
    if mode == Mode::Strict {
        let well_formed = is_think_answer(python::strip(response));
        let boxed = boxes(after_thinking(response)).iter().any(|b| !python::strip(b).is_empty());
        return f64::from(u8::from(well_formed || boxed));
    }
    if is_think_answer(response) || boxes(response).last().is_some_and(|b| !b.is_empty()) {
        return 1.0;
    }
    let calculates = response.contains(['=', '+', '-', '*', '/', '(', ')', '[', ']', '\\']);
    let long = python::len(python::strip(response)) > 50;
    if long && calculates && !extract(response, mode).0.is_empty() { 0.8 } else { 0.0 }
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

/// The response without its thinking, as newer evaluation harnesses hand it to a scorer: `<think>` and
/// `<analysis>` blocks are removed, white space around the rest too. An unclosed block stays.
pub fn strip_think(response: &str) -> String {
    let mut text = response.to_owned();
    for (open, close) in [("<think>", "</think>"), ("<analysis>", "</analysis>")] {
        let (mut rest, mut out) = (text.as_str(), String::with_capacity(text.len()));
        while let Some((before, inside)) = rest.split_once(open) {
            let Some((_, after)) = inside.split_once(close) else { break };
            out.push_str(before);
            rest = after;
        }
        out.push_str(rest);
        text = out;
    }
    python::strip(&text).to_owned()
}
