//! Formats config values for error messages, and finds the name that a misspelled word most likely stands for.

use serde_json::Value;

use crate::error::Error;
use crate::secrets::HIDDEN;

/// True if the key at `path` contains a server's secret.
pub fn is_secret(path: &str) -> bool {
    path.contains("api_key")
}

/// Formats a value on one line, in YAML's flow style.
pub fn inline(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let value = |name: &str, value| if is_secret(name) { HIDDEN.to_owned() } else { inline(value) };
            let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{k}: {}", value(k, v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

/// Returns the candidate with the smallest edit distance to `word`, if it is similar enough to be a likely correction.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(d, candidate)| d <= reach || (word.len() >= 4 && candidate.contains(word)))
        .min_by_key(|&(d, _)| d)
        .map(|(_, candidate)| candidate)
}

/// Creates the error for `word`, which is none of `names`. It suggests the most similar name.
pub fn not_one_of<'a>(
    place: impl Into<String>,
    word: &str,
    expected: impl Into<String>,
    names: impl IntoIterator<Item = &'a str>,
) -> Error {
    let hint = nearest(word, names).map(|near| format!("did you mean {near}?"));
    Error::Input { place: place.into(), found: word.to_owned(), expected: expected.into(), hint }
}

/// Computes the Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
