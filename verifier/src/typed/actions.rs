//! Actions on a web page: objects with the keys ACTION, MARK and VALUE.

use super::boxes::without_fence;
use super::literal::Literal;
use crate::{Mode, python};

/// Returns the parts of an action with their keys in upper case; `None` if the text is no object.
pub fn parts(text: &str, mode: Mode) -> Option<Vec<(String, Literal)>> {
    let text = if mode == Mode::Strict { without_fence(text) } else { text };
    let Literal::Object(all) = Literal::parse(text)? else { return None };
    Some(all.into_iter().map(|(key, value)| (key.to_text().to_uppercase(), value)).collect())
}

/// Returns the parts of a label that count: a MARK of -1 and a VALUE of none do not.
pub fn considered(parts: &[(String, Literal)]) -> Vec<(String, Literal)> {
    let value = |key: &str| parts.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    let written = |value: &Literal| value.to_text().trim().to_lowercase();
    let counts = |key: &str, value: &Literal| match key {
        "MARK" => written(value) != "-1" && value.number() != Some(-1.0),
        "VALUE" => written(value) != "none",
        _ => true,
    };
    let keys = ["ACTION", "MARK", "VALUE"].into_iter().filter_map(|key| Some((key, value(key)?)));
    keys.filter(|(key, value)| counts(key, value)).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Returns the share of the label's parts that the prediction has.
pub fn accuracy(right: &[(String, Literal)], prediction: &str, mode: Mode) -> f64 {
    let Some(predicted) = parts(prediction, mode) else { return 0.0 };
    let value = |key: &str| predicted.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value);
    let found = right.iter().filter(|(key, right)| value(key).is_some_and(|value| is_same(right, value))).count();
    found as f64 / right.len() as f64
}

/// A number equals the text of an equal number. Otherwise the texts must be equal.
fn is_same(right: &Literal, predicted: &Literal) -> bool {
    let is_text = |value: &Literal| matches!(value, Literal::Text(_));
    if is_text(right) != is_text(predicted)
        && let (Some(right), Some(predicted)) = (right.number(), predicted.number())
    {
        return right == predicted;
    }
    python::strip(&right.to_text()) == python::strip(&predicted.to_text())
}
