//! Record of the files that a stage reads: `inputs.json` next to its rows. It is written while the stage runs. The
//! files are compared with the record when the stage starts again and when its shards are merged.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::pipeline::stage::{Shard, Stage, piece};
use omr_base::config::InputKind;
use omr_base::error::Result;
use omr_base::files::json;
use omr_base::identity::{self, Difference};
use omr_data::rows::Signature;
use omr_data::rows::files::paths;

/// File name of the record, without its extension.
pub const RECORD: &str = "inputs";

/// A file that a stage has read.
#[derive(Serialize, Deserialize)]
struct Recorded {
    /// Kind of the file: the name of a [`InputKind`]. Missing in the records of older versions.
    kind: Option<String>,
    #[serde(flatten)]
    signature: Signature,
}

/// A file that a stage reads.
pub struct InputFile {
    kind: InputKind,
    path: PathBuf,
}

/// Returns the files that `config` reads: its data sets, its additional data sets and its model directory.
pub fn files<C: Stage>(config: &C) -> Result<Vec<InputFile>> {
    let model = config.model().map_or(Ok(Vec::new()), identity::paths)?;
    let of = |kind| move |path| InputFile { kind, path };
    let rows = paths::all(&config.reads())?.into_iter().map(of(InputKind::Rows));
    Ok(rows.chain(model.into_iter().map(of(InputKind::Model))).collect())
}

/// Writes the record of `files`. Reads each file completely.
pub fn write(files: &[InputFile], dir: &Path, shard: Option<Shard>) -> Result<()> {
    let of = |file: &InputFile| {
        let kind = Some(file.kind.name().to_owned());
        Ok(Recorded { kind, signature: Signature::of(&file.path)? })
    };
    json::write(&piece(dir, RECORD, "json", shard), &files.iter().map(of).collect::<Result<Vec<_>>>()?)
}

/// Returns the differences between `files` and the record of the stage in `dir`; empty if it has no record.
pub fn differences(files: &[InputFile], dir: &Path, shard: Option<Shard>) -> Result<Vec<Difference>> {
    let record: Option<Vec<Recorded>> = json::read_if_exists(&piece(dir, RECORD, "json", shard))?;
    let Some(record) = record else { return Ok(Vec::new()) };
    let mut differences = Vec::new();
    for Recorded { kind, signature } in &record {
        let kind = kind.as_deref().map_or(Ok(InputKind::Rows), str::parse)?;
        if !files.iter().any(|file| file.path == signature.path) {
            differences.push(Difference::of_file(kind, &signature.path, " (missing)"));
        } else if !signature.is_same(&mut signature.modified.clone())? {
            differences.push(Difference::of_file(kind, &signature.path, ""));
        }
    }
    // Older versions recorded only the data sets, so new files cannot be detected.
    if record.iter().all(|recorded| recorded.kind.is_some()) {
        let is_new = |file: &&InputFile| !record.iter().any(|recorded| recorded.signature.path == file.path);
        let new = |file: &InputFile| Difference::of_file(file.kind, &file.path, " (new)");
        differences.extend(files.iter().filter(is_new).map(new));
    }
    Ok(differences)
}

/// Returns the `files` that differ from the `MANIFEST` in their folder.
pub fn altered(files: &[InputFile]) -> Result<Vec<Difference>> {
    let altered = |file: &InputFile| {
        let is_listed = identity::is_as_listed(&file.path)?;
        Ok((!is_listed).then(|| Difference::of_file(InputKind::Stages, &file.path, "")))
    };
    Ok(files.par_iter().map(altered).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}
