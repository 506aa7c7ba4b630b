//! Merges the shards of a stage.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::pipeline::files::Lines;
use crate::pipeline::stage::{Shard, Work, piece};
use crate::pipeline::summary::Summary;
use omr_base::answers::{self, Store};
use omr_base::config::DatasetConfig;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::rows::files::paths::base;
use omr_data::rows::read;

/// Returns the number of shards of the stage in `dir`, or `None` if it was not sharded. Returns an error that lists the
/// missing shards if there are any.
pub fn shards(dir: &Path) -> Result<Option<usize>> {
    let mut found: BTreeSet<(usize, usize)> = BTreeSet::new();
    for name in files::entries(dir)?.iter().map(|path| files::file_name(path)) {
        let numbers = name.strip_prefix("summary-").and_then(|rest| rest.strip_suffix(".json"));
        let numbers = numbers.and_then(|rest| rest.split_once("-of-"));
        found.extend(numbers.and_then(|(i, n)| Some((n.parse().ok()?, i.parse().ok()?))));
    }
    let Some(&(count, _)) = found.first() else { return Ok(None) };
    let shard_names: Vec<String> = found.iter().map(|(n, i)| format!("{i}/{n}")).collect();
    let missing: Vec<String> =
        (0..count).filter(|&i| !found.contains(&(count, i))).map(|i| format!("{i}/{count}")).collect();
    if found.iter().any(|(n, _)| *n != count) || !missing.is_empty() {
        let found = format!("the shards {}", shard_names.join(", "));
        let expected = format!("all {count} shards, and no others; not finished: {}", missing.join(", "));
        return Err(Error::input(dir, found, expected));
    }
    Ok(Some(count))
}

/// Merges the rows, the lines and the stored answers of `count` shards. Rows and lines keep the order of the input
/// rows.
pub fn rows(work: &Work, count: usize) -> Result<Summary> {
    if !answers::shards(&work.dir)?.is_empty() {
        Store::of_run(&work.dir)?;
    }
    let all = || (0..count).map(|index| Some(Shard { index, count }));
    let mut summary = Summary::default();
    for shard in all() {
        summary.add(&files::json::read(&piece(&work.dir, "summary", "json", shard))?);
    }
    for input in &work.inputs {
        let mut kept = work.writer(&input.name);
        for shard in all() {
            let path = piece(&work.dir, &input.name, "parquet", shard);
            // Image urls in the rows are still relative to the folder of the source.
            let folder = input.entry.data_folder.clone().unwrap_or_else(|| base(&input.entry.path));
            let entry = DatasetConfig { data_folder: Some(folder), ..read::entry(&path) };
            read::for_each(&entry, |row| kept.push(row.map_err(|bad| *bad.error)?))?;
        }
        kept.finish()?;
    }
    for stem in ["rejected", "unjudged"] {
        let pieces: Vec<_> = all().map(|shard| piece(&work.dir, stem, "jsonl", shard)).filter(|p| p.exists()).collect();
        if pieces.is_empty() {
            continue;
        }
        let mut lines = Lines::create(work, stem)?;
        for input in &work.inputs {
            let start = format!("{{\"dataset\":{},", serde_json::Value::from(input.name.as_str()));
            for path in &pieces {
                let file = BufReader::new(files::open(path).map_err(Error::io(path))?);
                for line in file.lines() {
                    let line = line.map_err(Error::io(path))?;
                    if line.starts_with(&start) {
                        lines.append(format!("{line}\n").as_bytes())?;
                    }
                }
            }
        }
        lines.finish()?;
    }
    Ok(summary)
}

/// Removes the files of `count` shards after they are merged.
pub fn remove(work: &Work, count: usize) -> Result<()> {
    let fixed = [
        ("rejected", "jsonl"),
        ("unjudged", "jsonl"),
        ("hashes", "jsonl"),
        ("embeddings", "bin"),
        ("inputs", "json"),
        ("log", "txt"),
        (".lock", ""),
        ("summary", "json"),
    ];
    let outputs = work.inputs.iter().map(|input| (input.name.as_str(), "parquet"));
    for (stem, ending) in outputs.chain(fixed) {
        for index in 0..count {
            let path = piece(&work.dir, stem, ending, Some(Shard { index, count }));
            files::if_exists(&path, std::fs::remove_file(&path))?;
        }
    }
    Ok(())
}
