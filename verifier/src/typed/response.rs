//! The format of a response, and the text in it that is compared with the label.

use std::borrow::Cow;

use super::kind::RewardType;
use crate::extract::closing;
use crate::python;

const TAGS: [&str; 4] = ["<think>", "</think>", "<answer>", "</answer>"];

/// Returns the degree to which a response has the format that the type requires: 0, 0.5 or 1.
pub fn format(response: &str, kind: RewardType) -> f64 {
    let is_once = |tag: &&str| response.matches(*tag).count() == 1;
    let parts = response.strip_prefix(TAGS[0]).and_then(|rest| {
        let (thinking, rest) = rest.split_once(TAGS[1])?;
        let (answer, end) = python::strip(rest).strip_prefix(TAGS[2])?.split_once(TAGS[3])?;
        (end.is_empty() && ![thinking, answer].iter().any(|part| python::strip(part).is_empty())).then_some(answer)
    });
    let Some(answer) = parts.filter(|_| TAGS.iter().all(is_once)) else { return 0.0 };
    let has_boxes = match kind {
        kind if kind.is_boxed() => matches!(boxes(python::strip(answer)).as_slice(), [one] if !one.is_empty()),
        kind if kind.is_of_places() => answer.matches("\\boxed").count() <= 1,
        _ => true,
    };
    if has_boxes { 1.0 } else { 0.5 }
}

/// Returns the text that is compared: the content of the first answer tags, and for types with boxes that of the last box.
pub fn prediction(response: &str, kind: RewardType) -> Cow<'_, str> {
    let tagged = response.split_once(TAGS[2]).and_then(|(_, rest)| rest.split_once(TAGS[3]));
    let answer = python::strip(tagged.map_or(response, |(answer, _)| answer));
    let last = boxes(answer).pop().filter(|last| !last.is_empty());
    match last {
        Some(last) if kind.is_boxed() || kind.is_of_places() => Cow::Owned(last.to_owned()),
        _ if kind.is_boxed() => {
            Cow::Borrowed(contents(answer, '[', ']').pop().filter(|c| !c.is_empty()).unwrap_or(answer))
        }
        _ => Cow::Borrowed(answer),
    }
}

/// Returns the contents of the `\boxed{}` that are not inside another one, without a surrounding `\text{}`.
fn boxes(text: &str) -> Vec<&str> {
    let bare = |content| without_text(content).unwrap_or(content);
    contents(text, '{', '}').into_iter().map(bare).collect()
}

/// Returns the stripped contents of all `\boxed` with these brackets, up to the first one that is not closed.
fn contents(text: &str, open: char, close: char) -> Vec<&str> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((_, behind)) = rest.split_once("\\boxed") {
        let body = behind.trim_start_matches(python::is_space);
        let Some(body) = body.strip_prefix(open) else {
            rest = body;
            continue;
        };
        let Some(end) = closing(body, open, close) else { break };
        found.push(python::strip(&body[..end]));
        rest = &body[end..];
    }
    found
}

fn without_text(content: &str) -> Option<&str> {
    let body = content.strip_prefix("\\text")?.trim_start_matches(python::is_space).strip_prefix('{')?;
    let end = closing(body, '{', '}')?;
    body[end + 1..].trim().is_empty().then(|| python::strip(&body[..end]))
}
