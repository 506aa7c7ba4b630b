//! Config keys that are set by environment variables.

use std::path::Path;

use serde_json::{Map, Value};

use super::table;
use crate::files;

/// Sets keys of the group `group` from environment variables that are set and not empty.
pub(super) fn group_from_env(
    tree: &mut Map<String, Value>,
    group: &str,
    variables: &[(&str, &str)],
    env: &dyn Fn(&str) -> Option<String>,
) {
    for (variable, key) in variables {
        let value = env(variable).filter(|value| !value.is_empty());
        if let Some((value, group)) = value.and_then(|value| Some((value, table::group(tree, group)?))) {
            group.insert((*key).to_owned(), Value::String(value));
        }
    }
}

/// Sets the judge from the environment. `USE_LLM_JUDGE` enables or disables it; if it enables the judge, address, key
/// and model name also come from the environment. If the variable is not set, a judge of the config file without an API
/// key takes the key from the environment. The texts of `judge.prompt_file` become `judge.prompt`.
pub(super) fn judge_from_env(tree: &mut Map<String, Value>, env: &dyn Fn(&str) -> Option<String>) {
    let on = |word: &str| ["true", "1", "yes"].contains(&word.trim().to_lowercase().as_str());
    match env("USE_LLM_JUDGE").filter(|word| !word.trim().is_empty()) {
        Some(word) if on(&word) => {
            // The variable explicitly enables the judge, so a missing value must give an error and must not disable it.
            table::group(tree, "judge");
            let variables =
                [("OPENAI_BASE_URL", "base_url"), ("OPENAI_API_KEY", "api_key"), ("OPENAI_MODEL_NAME", "model")];
            group_from_env(tree, "judge", &variables, env);
        }
        Some(_) => {
            tree.insert("judge".to_owned(), Value::Null);
        }
        None => {
            let lacks = |judge: &Value| judge.is_object() && judge.get("api_key").is_none_or(Value::is_null);
            if tree.get("judge").is_some_and(lacks) {
                group_from_env(tree, "judge", &[("OPENAI_API_KEY", "api_key")], env);
            }
        }
    }
    // A file that cannot be read is reported when the config is checked.
    if let Some(judge) = tree.get_mut("judge").and_then(Value::as_object_mut)
        && let Some(files) = judge.get("prompt_file")
    {
        let files = files.as_array().map_or(std::slice::from_ref(files), Vec::as_slice);
        let read = |file: &Value| files::read_config(Path::new(file.as_str().filter(|file| !file.is_empty())?)).ok();
        let texts: Vec<Value> = files.iter().map_while(read).map(Value::String).collect();
        if !texts.is_empty() {
            judge.insert("prompt".to_owned(), Value::Array(texts));
        }
    }
}

#[cfg(test)]
mod tests;
