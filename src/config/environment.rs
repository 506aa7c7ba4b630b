//! Keys that environment variables set.

use serde_json::{Map, Value};

use super::table;

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

/// Sets the judge as the environment has it: `USE_LLM_JUDGE` turns it on or off and brings address, key and name of the
/// model. Where it is not set, a judge of the file that has no key takes the environment's.
pub(super) fn judge_from_env(tree: &mut Map<String, Value>, env: &dyn Fn(&str) -> Option<String>) {
    let on = |word: &str| ["true", "1", "yes"].contains(&word.trim().to_lowercase().as_str());
    match env("USE_LLM_JUDGE").filter(|word| !word.trim().is_empty()) {
        Some(word) if on(&word) => {
            // On is on: what is missing is said, not taken for off.
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
}
