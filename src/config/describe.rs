//! Formats config values for error messages.

use serde_json::Value;

use crate::secrets::HIDDEN;

/// True if the key at `path`, which may be of another system, contains a secret.
pub fn is_secret(path: &str) -> bool {
    ["api_key", "hub_token", "hf_token", "auth_token", "access_token", "password", "secret"]
        .iter()
        .any(|s| path.to_lowercase().contains(s))
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
