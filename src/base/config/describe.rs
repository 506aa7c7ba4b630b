//! Formats config values for error messages.

use serde_json::Value;

use crate::secrets::HIDDEN;

/// Parts of the names of keys that contain a secret, here and in other systems.
const SECRETS: [&str; 7] = ["api_key", "hub_token", "hf_token", "auth_token", "access_token", "password", "secret"];

/// True if the key at `path`, which may be of another system, contains a secret.
pub fn is_secret(path: &str) -> bool {
    let path = path.to_lowercase();
    SECRETS.iter().any(|part| path.contains(part))
}

/// Formats the value of the key at `path` like [`inline`], without secrets.
pub fn shown(path: &str, value: &Value) -> String {
    if is_secret(path) { HIDDEN.to_owned() } else { inline(value) }
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
