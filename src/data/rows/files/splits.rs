//! Chooses the files of a configuration and a split of a data set: by the list in the README of a repository of the
//! Hugging Face hub, or by the names of folders and files.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::shards;
use omr_base::error::{Error, Result};
use omr_base::files;

/// Split names. File names on the Hugging Face hub often begin with one of them.
const SPLITS: [&str; 6] = ["train", "validation", "valid", "val", "dev", "test"];

/// Characters between a split and the rest of a name.
const SEPARATORS: [char; 3] = ['-', '_', '.'];

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
    /// Folder that `data_files` are relative to. Without `data_files`, all files in it.
    data_dir: Option<String>,
    #[serde(default)]
    default: bool,
}

/// Name of a configuration that the README does not name.
fn default_name() -> String {
    "default".to_owned()
}

/// A file, and the split that it belongs to.
pub type SplitFile = (PathBuf, Option<String>);

/// Returns the files of configurations and of a split among all files of a folder, one list for each configuration. Each
/// of `names` is the name of a configuration in the README, of a folder or of a file, or a pattern of such names. Without
/// names, the README's default configuration counts, or all files if the README lists none.
pub fn chosen(dir: &Path, all: &[PathBuf], names: &[String], split: Option<&str>) -> Result<Vec<Vec<SplitFile>>> {
    let mut configs = readme(dir)?.configs;
    // A configuration without files belongs to data sets that are made by a script.
    configs.retain(|config| !config.data_files.is_null() || config.data_dir.is_some());
    let place = |key: &str| format!("{}: {key}", dir.display());
    if !names.is_empty() {
        let mut lists = Vec::new();
        for name in names {
            let found = named(dir, &configs, all, name, split)?;
            if !found.is_empty() {
                lists.extend(found);
                continue;
            }
            return Err(match split.filter(|_| named(dir, &configs, all, name, None).is_ok_and(|l| !l.is_empty())) {
                Some(split) => Error::input(place("split"), split, format!("a split of {name}")),
                None => {
                    let expected = format!("{}, or a folder or file of this name", known(&configs));
                    Error::input_hint(
                        place("name"),
                        if name.is_empty() { "an empty text" } else { name },
                        expected,
                        format!("the folder has {}", listing(dir, all)),
                    )
                }
            });
        }
        return Ok(lists);
    }
    let of = |is: &dyn Fn(&ReadmeConfig) -> bool| configs.iter().find(|config| is(config));
    let config = of(&|config| config.default || configs.len() == 1).or_else(|| of(&|c| c.config_name == "default"));
    match config {
        Some(config) => Ok(vec![config.files(dir, all, split)?]),
        None if configs.is_empty() => {
            let files = by_split(dir, all.iter().collect(), split);
            match split.filter(|_| files.is_empty()) {
                Some(split) => Err(Error::input(place("split"), split, "a split of this data set")),
                None => Ok(vec![files]),
            }
        }
        None => Err(Error::input(place("name"), "nothing", known(&configs))),
    }
}

/// Describes the valid names of configurations for a message.
fn known(configs: &[ReadmeConfig]) -> String {
    let names: Vec<&str> = configs.iter().map(|config| config.config_name.as_str()).collect();
    match names.is_empty() {
        true => "a configuration in its README.md, which lists none".to_owned(),
        false => format!("one of {}, a list of them, or '*' for all", names.join(", ")),
    }
}

/// Returns the files of the configurations that `name` matches. If the README has none, returns the files that have this
/// name or are in a folder of this name. Names that differ in case or end in a split count if no other matches.
fn named(
    dir: &Path,
    configs: &[ReadmeConfig],
    all: &[PathBuf],
    name: &str,
    split: Option<&str>,
) -> Result<Vec<Vec<SplitFile>>> {
    for relaxed in [false, true] {
        let matches = configs.iter().filter(|config| is_named(&config.config_name, name, relaxed));
        let lists = matches.map(|config| config.files(dir, all, split)).collect::<Result<Vec<_>>>()?;
        if !lists.is_empty() {
            return Ok(lists);
        }
    }
    for relaxed in [false, true] {
        let is_of = |path: &&PathBuf| {
            let (folders, stem) = words(dir, path);
            folders.iter().chain([&stem]).any(|word| is_named(word, name, relaxed))
        };
        let files = by_split(dir, all.iter().filter(is_of).collect(), split);
        if !files.is_empty() {
            return Ok(vec![files]);
        }
    }
    Ok(Vec::new())
}

/// Returns true if `word` is the name or matches the pattern `name`. If `relaxed`, letters may differ in case, and a split
/// at the end of `word` may be missing in `name`: `mmk12` is the name of `mmk12_train`.
fn is_named(word: &str, name: &str, relaxed: bool) -> bool {
    let options = glob::MatchOptions { case_sensitive: !relaxed, ..glob::MatchOptions::new() };
    let matches = |word: &str| word == name || glob::Pattern::new(name).is_ok_and(|p| p.matches_with(word, options));
    let short = || SPLITS.iter().find_map(|split| word.strip_suffix(split)?.strip_suffix(SEPARATORS));
    matches(word) || relaxed && short().is_some_and(matches)
}

/// Returns the files of a split, by the names of folders and files. As in the `datasets` library, files belong to `train`
/// if no name contains a split.
fn by_split(dir: &Path, files: Vec<&PathBuf>, split: Option<&str>) -> Vec<SplitFile> {
    let is_of = |path: &Path, split: &str| {
        let (folders, stem) = words(dir, path);
        folders.iter().any(|folder| folder == split) || begins_with(&stem, split)
    };
    let mut found: Vec<SplitFile> =
        files.into_iter().map(|path| (path.clone(), of(dir, path).map(str::to_owned))).collect();
    let has_none = found.iter().all(|(_, split)| split.is_none());
    if let Some(split) = split.filter(|split| *split != "train" || !has_none) {
        found.retain(|(path, _)| is_of(path, split));
    }
    found
}

/// Lists files below `dir` for a message: of each group of shards only the first, and at most 12.
pub fn listing(dir: &Path, files: &[PathBuf]) -> String {
    let is_first = |path: &&PathBuf| shards::shard(path).is_none_or(|(_, number, _)| number == 0);
    let inner = |path: &PathBuf| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    let names: Vec<String> = files.iter().filter(is_first).map(inner).collect();
    match names.len() {
        0 => "no files".to_owned(),
        n if n > 12 => format!("{} and {} more", names[..12].join(", "), n - 12),
        _ => names.join(", "),
    }
}

impl ReadmeConfig {
    /// Returns the files of the configuration among `all` files of the folder `dir`. Errors if there are none.
    fn files(&self, dir: &Path, all: &[PathBuf], split: Option<&str>) -> Result<Vec<SplitFile>> {
        let inside = dir.join(without_dot(self.data_dir.as_deref().unwrap_or_default()));
        let below: Vec<&PathBuf> = all.iter().filter(|path| path.starts_with(&inside)).collect();
        let found = match self.data_files.is_null() {
            true => by_split(&inside, below, split),
            false => {
                let patterns = patterns(&dir.join("README.md"), &self.data_files, split)?;
                let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::new() };
                let of_pattern = |path: &PathBuf| {
                    let inner = path.strip_prefix(&inside).ok()?;
                    let (split, _) = patterns.iter().find(|(_, pattern)| pattern.matches_path_with(inner, options))?;
                    Some((path.clone(), split.clone().or_else(|| of(dir, path).map(str::to_owned))))
                };
                below.into_iter().filter_map(of_pattern).collect()
            }
        };
        if !found.is_empty() {
            return Ok(found);
        }
        let (key, value, of) = match split {
            Some(split) => ("split", split, "a split of the configuration"),
            None => ("name", self.config_name.as_str(), "a configuration whose files are here; README.md lists"),
        };
        let files =
            if self.data_files.is_null() { format!("{:?}", self.data_dir) } else { self.data_files.to_string() };
        let expected = format!("{of} {}: {files}, the folder has {}", self.config_name, listing(dir, all));
        Err(Error::input(format!("{}: {key}", dir.display()), value, expected))
    }
}

/// Returns a path of a README without `./` at its beginning.
fn without_dot(path: &str) -> &str {
    if path == "." { "" } else { path.trim_start_matches("./") }
}

/// Returns the split that a file belongs to, by the name of a folder or of the file: `train-00000-of-00003.parquet`.
pub fn of(dir: &Path, path: &Path) -> Option<&'static str> {
    let (folders, stem) = words(dir, path);
    SPLITS.into_iter().find(|split| folders.iter().any(|folder| folder == split) || begins_with(&stem, split))
}

/// Returns the folders of a file below `dir`, and the stem of its name without the number of a shard.
fn words(dir: &Path, path: &Path) -> (Vec<String>, String) {
    let inner = path.strip_prefix(dir).unwrap_or(path);
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let folders = inner.parent().into_iter().flat_map(Path::iter).map(text).collect();
    let unpacked =
        if inner.extension().is_some_and(|e| e == "gz") { inner.with_extension("") } else { inner.to_owned() };
    let stem = shards::shard(&unpacked).map_or(unpacked.with_extension(""), |(prefix, ..)| prefix.into());
    (folders, stem.file_name().map(text).unwrap_or_default())
}

/// Returns true if the stem of a file name is a split, or a split followed by a separator.
fn begins_with(stem: &str, split: &str) -> bool {
    stem.strip_prefix(split).is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATORS))
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

/// Returns the patterns of a configuration's files, each with the split that the README names for it: `data_files` is a
/// pattern, a list of patterns, a list of `{split, path}`, or a map from splits to patterns. A pattern without a split
/// belongs to the split `train`.
fn patterns(readme: &Path, data_files: &Value, split: Option<&str>) -> Result<Vec<(Option<String>, glob::Pattern)>> {
    let texts: Vec<(Option<&str>, &Value)> = match data_files {
        Value::Array(list) => {
            list.iter().map(|e| (e.get("split").and_then(Value::as_str), e.get("path").unwrap_or(e))).collect()
        }
        Value::Object(map) => map.iter().map(|(name, path)| (Some(name.as_str()), path)).collect(),
        other => vec![(None, other)],
    };
    let mut found = Vec::new();
    for (of, texts) in texts.into_iter().filter(|(of, _)| split.is_none_or(|split| of.unwrap_or("train") == split)) {
        for text in texts.as_array().map_or(std::slice::from_ref(texts), Vec::as_slice) {
            let pattern = text.as_str().and_then(|text| glob::Pattern::new(without_dot(text)).ok());
            let wrong = || Error::format(readme, format!("data_files: found {text}, expected a file name pattern"));
            found.push((of.map(str::to_owned), pattern.ok_or_else(wrong)?));
        }
    }
    Ok(found)
}
