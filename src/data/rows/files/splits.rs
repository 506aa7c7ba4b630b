//! Chooses the files of a configuration and a split of a data set: by the list in the README of a repository of the
//! Hugging Face hub, or by the names of folders and files.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use omr_base::error::{Error, Result};
use omr_base::files;

/// Split names. File names on the Hugging Face hub often begin with one of them.
const SPLITS: [&str; 6] = ["train", "validation", "valid", "val", "dev", "test"];

/// Beginning of the README of a data set.
#[derive(Deserialize, Default)]
struct Readme {
    #[serde(default)]
    configs: Vec<ReadmeConfig>,
}

/// A configuration of a data set.
#[derive(Deserialize)]
struct ReadmeConfig {
    #[serde(default = "default_name")]
    config_name: String,
    #[serde(default)]
    data_files: Value,
    #[serde(default)]
    default: bool,
}

/// Name of a configuration that the README does not name.
fn default_name() -> String {
    "default".to_owned()
}

/// Returns the files of a configuration and a split among all files of a folder. Without a name, the README's default
/// configuration counts, or all files if the README lists none.
pub fn chosen(dir: &Path, all: Vec<PathBuf>, name: Option<&str>, split: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut configs = readme(dir)?.configs;
    // A configuration without files belongs to data sets that are made by a script.
    configs.retain(|config| !config.data_files.is_null());
    if name.is_none() && split.is_none() && configs.is_empty() {
        return Ok(all);
    }
    let named =
        |config: &&ReadmeConfig| name.map_or(config.default || configs.len() == 1, |name| config.config_name == name);
    let is_default = |config: &&ReadmeConfig| name.is_none() && config.config_name == "default";
    let config = configs.iter().find(named).or_else(|| configs.iter().find(is_default));
    let place = |key: &str| format!("{}: {key}", dir.display());
    if let (None, false) = (config, configs.is_empty()) {
        let names: Vec<&str> = configs.iter().map(|config| config.config_name.as_str()).collect();
        return Err(Error::input(place("name"), name.unwrap_or("nothing"), format!("one of {}", names.join(", "))));
    }
    let files: Vec<PathBuf> = match config {
        Some(config) => {
            let patterns = patterns(&config.data_files, split);
            let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
            let matches = |path: &PathBuf| {
                path.strip_prefix(dir).is_ok_and(|inner| patterns.iter().any(|p| p.matches_path_with(inner, options)))
            };
            all.into_iter().filter(matches).collect()
        }
        None => {
            let in_folder = |path: &Path, name: &str| words(dir, path).0.iter().any(|folder| folder == name);
            let of_split = |path: &Path, split: &str| in_folder(path, split) || begins_with(&words(dir, path).1, split);
            let keep = |path: &PathBuf| {
                name.is_none_or(|name| in_folder(path, name)) && split.is_none_or(|split| of_split(path, split))
            };
            all.into_iter().filter(keep).collect()
        }
    };
    if !files.is_empty() {
        return Ok(files);
    }
    let (key, value) = split.map_or(("name", name.unwrap_or("the default")), |split| ("split", split));
    Err(Error::input(place(key), value, format!("a {key} of this data set")))
}

/// Returns the split that a file belongs to, by the name of a folder or of the file: `train-00000-of-00003.parquet`.
pub fn of(dir: &Path, path: &Path) -> Option<&'static str> {
    let (folders, stem) = words(dir, path);
    SPLITS.into_iter().find(|split| folders.iter().any(|folder| folder == split) || begins_with(&stem, split))
}

/// Returns the folders of a file below `dir`, and the stem of its name.
fn words(dir: &Path, path: &Path) -> (Vec<String>, String) {
    let inner = path.strip_prefix(dir).unwrap_or(path);
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let folders = inner.parent().into_iter().flat_map(Path::iter).map(text).collect();
    (folders, inner.file_stem().map(text).unwrap_or_default())
}

/// Returns true if the stem of a file name is a split, or a split followed by a separator.
fn begins_with(stem: &str, split: &str) -> bool {
    stem.strip_prefix(split).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.']))
}

/// Reads the configurations in the README of a data set. A README without them has an empty list.
fn readme(dir: &Path) -> Result<Readme> {
    let path = dir.join("README.md");
    let text = files::if_exists(&path, files::read_to_string(&path))?.unwrap_or_default();
    let yaml = text.strip_prefix("---").and_then(|rest| Some(rest.split_once("\n---")?.0));
    let broken = |e: serde_saphyr::Error| Error::format(&path, format!("the YAML at its beginning: {e}"));
    yaml.filter(|yaml| !yaml.trim().is_empty())
        .map_or(Ok(Readme::default()), |yaml| serde_saphyr::from_str(yaml).map_err(broken))
}

/// Returns the patterns of a configuration's files: `data_files` is a pattern, a list of patterns, a list of
/// `{split, path}`, or a map from splits to patterns. A pattern without a split belongs to the split `train`.
fn patterns(data_files: &Value, split: Option<&str>) -> Vec<glob::Pattern> {
    let is_split = |name: &str| split.is_none_or(|split| split == name);
    let texts: Vec<&Value> = match data_files {
        Value::Array(list) => {
            let entry = |entry: &Value| is_split(entry.get("split").and_then(Value::as_str).unwrap_or("train"));
            list.iter().filter(|e| entry(e)).map(|e| e.get("path").unwrap_or(e)).collect()
        }
        Value::Object(map) => map.iter().filter(|(name, _)| is_split(name)).map(|(_, path)| path).collect(),
        other => Some(other).into_iter().filter(|_| is_split("train")).collect(),
    };
    let each = texts.into_iter().flat_map(|text| text.as_array().map_or(std::slice::from_ref(text), Vec::as_slice));
    each.filter_map(|text| glob::Pattern::new(text.as_str()?).ok()).collect()
}
