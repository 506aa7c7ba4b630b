//! Formats config values for error messages.

use serde_json::Value;

use crate::secrets::{self, HIDDEN};

/// Formats the value of the key at `path` like [`inline`], without secrets.
pub fn shown(path: &str, value: &Value) -> String {
    // Numbers of tokens are no secrets.
    let is_plain = value.is_null() || value.is_boolean() || value.is_number() && path.to_lowercase().contains("token");
    if secrets::is_named(path) && !is_plain { HIDDEN.to_owned() } else { inline(value) }
}

/// Formats a value on one line, in YAML's flow style.
pub fn inline(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<_> = map.iter().map(|(k, v)| format!("{k}: {}", shown(k, v))).collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}
