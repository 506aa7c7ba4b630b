//! Reads the files that the settings of another system name: configs, reward functions, templates of prompts, and the
//! `dataset_info.json` of LLaMA-Factory.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::describe::shown;
use super::script::{Found, flatten, yaml};
use super::shell::beside;
use super::source::parse;
use super::table::join;
use crate::error::{Error, Result};
use crate::files;

/// Settings that name a YAML file with more settings, which stand behind those of the script.
const CONFIGS: [&str; 3] = ["config", "config_yaml", "dataset_config.dataset_path"];

/// Settings that name a Python file with a reward function.
const REWARDS: [&str; 3] =
    ["custom_reward_function.path", "reward.custom_reward_function.path", "worker.reward.reward_function"];

/// Columns of LLaMA-Factory, with those of omr.
const COLUMNS: [(&str, &str); 4] =
    [("messages", "messages"), ("images", "images"), ("prompt", "question"), ("response", "response")];

/// Names of columns that omr recognises.
const KNOWN: [&str; 6] = ["messages", "conversations", "images", "instruction", "input", "output"];

/// Keys of an entry of dataset_info.json that need no remark. The rows show their form.
const READ: [&str; 8] =
    ["hf_hub_url", "ms_hub_url", "om_hub_url", "file_name", "subset", "split", "formatting", "tags"];

/// Reads the files that the settings of `file` name, if they are [`beside`] it.
pub(super) fn read(file: &Path, found: &mut Found) -> Result<()> {
    let text = |path: &Path| files::read_config(path).map_err(Error::io(path));
    let value = |found: &Found, name: &str| Some(found.settings.get(name)?.as_str()?.to_owned());
    for name in CONFIGS {
        let is_yaml = |path: &String| path.ends_with(".yaml") || path.ends_with(".yml");
        let Some(path) = value(found, name).filter(is_yaml) else { continue };
        let Some(path) = beside(file, &path) else {
            found.remarks.push(format!("{name}: {path} is not beside the file, so its settings are missing here"));
            continue;
        };
        let other = yaml(&path, &text(&path)?)?;
        found.settings.remove(name);
        found.remarks.extend(other.remarks);
        let group = name.strip_suffix(".dataset_path").unwrap_or_default();
        for (name, value) in other.settings {
            found.settings.entry(join(group, &name)).or_insert(value);
        }
    }
    for name in REWARDS {
        let Some(function) = value(found, name).filter(|path| !path.contains("lmms_lab_recipe.py")) else { continue };
        let (path, rest) = function.split_once(".py").unwrap_or((&function, ""));
        match beside(file, &format!("{path}.py")) {
            Some(path) => drop(found.settings.insert(name.to_owned(), format!("{}{rest}", path.display()).into())),
            None => found.remarks.push(format!("{name}: {path}.py is not beside the file: complete the path")),
        }
    }
    if let Some(path) = value(found, "data.format_prompt").and_then(|path| beside(file, &path)) {
        found.settings.insert("data.format_prompt".to_owned(), text(&path)?.trim().into());
    }
    let folder = value(found, "dataset_dir").unwrap_or_else(|| "data".to_owned());
    for name in ["dataset", "eval_dataset"] {
        let Some(names) = value(found, name) else { continue };
        let paths = [format!("{folder}/dataset_info.json"), "dataset_info.json".to_owned()];
        let Some(path) = paths.iter().find_map(|path| beside(file, path)) else {
            found
                .remarks
                .push(format!("{name}: dataset_info.json is not beside the file: write its file_name as path"));
            continue;
        };
        let all = parse(&text(&path)?).map_err(|what| Error::format(&path, what))?;
        let names = names.split(',').map(str::trim);
        let entries = names.map(|name| dataset(&path, name, &all[name], &mut found.remarks)).collect::<Vec<_>>();
        found.settings.insert(name.to_owned(), entries.into());
    }
    Ok(())
}

/// Returns omr's entry for the data set `name`, for which the dataset_info.json at `path` has `info`.
fn dataset(path: &Path, name: &str, info: &Value, remarks: &mut Vec<String>) -> Value {
    let hub = info["hf_hub_url"].as_str();
    let local = info["file_name"].as_str().and_then(|file| Some(path.parent()?.join(file).display().to_string()));
    if hub.is_none() && local.is_none() {
        remarks.push(format!("dataset {name}: neither file_name nor hf_hub_url in {}", path.display()));
    }
    let mut entry = json!({ "path": hub.or(local.as_deref()).unwrap_or(name) });
    for (theirs, ours) in [("subset", "name"), ("split", "split")] {
        let value = info[theirs].as_str().filter(|_| hub.is_some());
        value.into_iter().for_each(|value| entry[ours] = value.into());
    }
    let mut flat = Map::new();
    flatten("", info, &mut flat);
    flat.retain(|key, value| !value.is_null() && *value != "" && !READ.iter().any(|read| key.starts_with(read)));
    for (key, value) in &flat {
        let column =
            key.strip_prefix("columns.").filter(|column| value != column && !KNOWN.iter().any(|name| value == name));
        match COLUMNS.iter().find(|(theirs, _)| column == Some(*theirs)) {
            Some((_, ours)) => entry["columns"][ours] = value.clone(),
            None if column.is_none() && key.starts_with("columns.") => {}
            None => remarks.push(format!("dataset {name}: {key}: {} is not converted", shown(key, value))),
        }
    }
    entry
}
