//! Extracts the label of a row: the answer that a model's answers are compared with.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::choices;
use super::fields::{RowContext, begins_listed, given_in, listed, misfit, structured, texts, unlisted};
use crate::reward::RIGHT_ANSWERS;
use crate::rows::{Row, RowResult, text_of};

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

/// Removes the column `answers`, a list of right answers: stores the distinct ones in `extra` for the scorer, and the
/// most frequent one as the label if the row has no other label. `answers` beside a label is read only if the entry
/// names the column, because it may be a list of options.
pub(crate) fn take_answers(
    fields: &mut Map<String, Value>,
    extra: &mut Map<String, Value>,
    at: &RowContext,
) -> RowResult<()> {
    let Some(mut value) = fields.remove("answers") else { return Ok(()) };
    let is_labelled = choices::label(fields).is_some();
    if is_labelled && at.entry.columns.answers.is_none() {
        return Ok(());
    }
    if let Some(text) = value.as_str().filter(|text| begins_listed(text)) {
        let (found, expected) = unlisted(text);
        value = listed(text).ok_or_else(|| misfit(&at.place, format!("{found} in `answers`"), expected))?;
    }
    // VQAv2 has a struct for each answer, SQuAD a struct of lists.
    let inner = |value: &Value| ["answer", "text"].iter().find_map(|key| given_in(value, key)).unwrap_or(value).clone();
    let mut all = texts(&match inner(&structured(value)) {
        Value::Array(list) => list.iter().map(inner).collect(),
        one => one,
    });
    all.retain(|answer| !answer.is_empty());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    all.iter().for_each(|answer| *counts.entry(answer).or_default() += 1);
    // Of equally frequent answers, the first one is the label.
    let Some(label) = all.iter().rev().max_by_key(|answer| counts[answer.as_str()]) else { return Ok(()) };
    if !is_labelled {
        fields.insert("answer".to_owned(), label.as_str().into());
    }
    let mut seen = BTreeSet::new();
    let distinct: Vec<&String> = all.iter().filter(|answer| seen.insert(*answer)).collect();
    if is_labelled || distinct.len() > 1 {
        extra.insert(RIGHT_ANSWERS.to_owned(), distinct.into_iter().map(String::as_str).collect());
    }
    Ok(())
}
