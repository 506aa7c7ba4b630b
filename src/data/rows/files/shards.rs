//! Checks that a folder contains every file of a data set that is divided into several files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use omr_base::error::{Error, Result};
use omr_base::files;

/// Returns the files that belong to the data set. A folder of `Dataset.save_to_disk` lists its files in `state.json`;
/// other Arrow files in it are caches of `Dataset.map`. Names such as `train-00000-of-00003.parquet` give the number of
/// files. Errors if a file is missing.
pub fn complete(files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let mut listed = BTreeMap::new();
    for folder in files.iter().filter_map(|file| file.parent()).collect::<BTreeSet<&Path>>() {
        if let Some(names) = of_state(folder)? {
            listed.insert(folder.to_owned(), names);
        }
    }
    let names_of = |file: &PathBuf| file.parent().and_then(|folder| listed.get(folder));
    let is_kept = |file: &PathBuf| names_of(file).is_none_or(|names| names.iter().any(|name| file.ends_with(name)));
    let kept: Vec<PathBuf> = files.into_iter().filter(is_kept).collect();
    let mut missing = Vec::new();
    for (folder, names) in &listed {
        missing.extend(names.iter().map(|name| folder.join(name)).filter(|file| !kept.contains(file)));
    }
    let mut shards: BTreeMap<(String, u32), BTreeSet<u32>> = BTreeMap::new();
    for (prefix, number, count) in kept.iter().filter(|file| names_of(file).is_none()).filter_map(|file| shard(file)) {
        shards.entry((prefix, count)).or_default().insert(number);
    }
    for ((prefix, count), found) in shards.iter().filter(|((_, count), found)| found.len() < *count as usize) {
        let lacks = (0..*count).filter(|number| !found.contains(number));
        missing.extend(lacks.map(|number| PathBuf::from(format!("{prefix}-{number:05}-of-{count:05}"))));
    }
    let Some(first) = missing.first() else { return Ok(kept) };
    let expected = "all files of the data set, or a pattern that names the files to read";
    Err(Error::input(first, format!("no file ({} missing in all)", missing.len()), expected))
}

/// Returns the files that the `state.json` of `save_to_disk` lists, or `None` if there is none.
fn of_state(folder: &Path) -> Result<Option<Vec<String>>> {
    let path = folder.join("state.json");
    let Some(text) = files::if_exists(&path, files::read_config(&path))? else { return Ok(None) };
    let state: Value = files::json::parse(&path, text.as_bytes())?;
    let name = |file: &Value| file["filename"].as_str().map(str::to_owned);
    Ok(state["_data_files"].as_array().map(|files| files.iter().filter_map(name).collect()))
}

/// Parses the path of a shard: what precedes its number, its number, and the number of shards.
pub fn shard(path: &Path) -> Option<(String, u32, u32)> {
    let (before, after) = path.to_str()?.rsplit_once("-of-")?;
    let (prefix, number) = before.rsplit_once('-')?;
    let count = after.get(..5)?;
    (number.len() == 5).then_some((prefix.to_owned(), number.parse().ok()?, count.parse().ok()?))
}
