//! Checks that a folder contains every file of a data set that is divided into several files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::local;

/// Largest number of files of a data set. Larger numbers in names are no numbers of files.
const MOST: u32 = 1 << 20;

/// Returns the files that belong to the data set. A folder of `Dataset.save_to_disk` lists its files in `state.json`;
/// other Arrow files in it are caches of `Dataset.map`. Errors if the folder of a file is that of an unfinished download or
/// data stage, or if a file is missing that `is_wanted` accepts.
pub fn complete(files: Vec<PathBuf>, is_wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut listed = BTreeMap::new();
    for folder in files.iter().map(|file| files::parent(file)).collect::<BTreeSet<&Path>>() {
        local::finished(folder, is_wanted)?;
        if files::is_run(folder) && !folder.join("summary.json").exists() {
            let hint = "run the command that writes the folder again; it continues";
            let found = "files of a command that has not finished: there is no summary.json";
            return Err(Error::input_hint(folder, found, "all files", hint));
        }
        if let Some(names) = of_state(folder)? {
            listed.insert(folder.to_owned(), names);
        }
    }
    let names_of = |file: &PathBuf| listed.get(files::parent(file));
    let is_kept = |file: &PathBuf| names_of(file).is_none_or(|names| names.iter().any(|name| file.ends_with(name)));
    let kept: Vec<PathBuf> = files.into_iter().filter(is_kept).collect();
    let mut missing = Vec::new();
    for (folder, names) in &listed {
        let gone = names.iter().map(|name| folder.join(name)).filter(|file| !kept.contains(file));
        missing.extend(gone.map(|file| (file, 1)));
    }
    let unlisted: Vec<PathBuf> = kept.iter().filter(|file| names_of(file).is_none()).cloned().collect();
    missing.extend(lacking(&unlisted, is_wanted));
    let Some((first, _)) = missing.first() else { return Ok(kept) };
    let all: u32 = missing.iter().map(|(_, count)| count).sum();
    let expected = "all files of the data set, or a pattern that names the files to read";
    Err(Error::input(first, format!("no file ({all} missing in all)"), expected))
}

/// Returns the files that `files` lack to be complete: names such as `train-00000-of-00003.parquet` give the number of
/// files. Numbers begin with 0, or with 1 as in `model-00003-of-00003`. Returns, for each set that lacks files that
/// `is_wanted` accepts, the first of them and the number of all that are missing.
pub fn lacking(files: &[PathBuf], is_wanted: &dyn Fn(&Path) -> bool) -> Vec<(PathBuf, u32)> {
    let mut sets: BTreeMap<(String, u32), (BTreeSet<u32>, &Path)> = BTreeMap::new();
    for (file, (before, number, count)) in files.iter().filter_map(|file| Some((file, shard(file)?))) {
        sets.entry((before, count)).or_insert((BTreeSet::new(), file)).0.insert(number);
    }
    let gone = |((before, count), (found, file)): ((String, u32), (BTreeSet<u32>, &Path))| {
        let first = u32::from(found.contains(&count));
        let gone = (first..first + count).filter(|number| !found.contains(number));
        let (number, after) = file.to_str()?[before.len() + 1..].split_once("-of-")?;
        let name = |i| PathBuf::from(format!("{before}-{i:0width$}-of-{after}", width = number.len()));
        Some((gone.clone().map(name).find(|file| is_wanted(file))?, gone.count() as u32))
    };
    sets.into_iter().filter_map(gone).collect()
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
    static SHARD: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?s)^(.*)-([0-9]+)-of-([0-9]+)(?:[^0-9/][^/]*)?$").expect("a fixed pattern"));
    let found = SHARD.captures(path.to_str()?)?;
    let count = found[3].parse().ok().filter(|count| (1..=MOST).contains(count))?;
    Some((found[1].to_owned(), found[2].parse().ok()?, count))
}
