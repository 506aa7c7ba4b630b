//! Extracts the label of a row: the answer that a model's answers are compared with.

use crate::data::{Row, text_of};

/// Returns the text between the first `open` and the first `close` after it.
pub fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let start = text.find(open)? + open.len();
    let len = text[start..].find(close)?;
    Some(&text[start..start + len])
}

/// Returns the label of a row: its `ground_truth`, or the answer in its last assistant message.
pub fn label(row: &Row) -> Option<String> {
    if let Some(label) = &row.ground_truth {
        return Some(label.clone());
    }
    let text = text_of(row.messages.last().filter(|m| m.role == "assistant")?);
    let answer = between(&text, "<answer>", "</answer>").unwrap_or(&text).trim().to_owned();
    (!answer.is_empty()).then_some(answer)
}
