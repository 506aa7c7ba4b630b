//! Small versions of the images of the questions that a page shows. They are read from the rows once, when an
//! evaluation ends, and stored next to its samples, so that the page needs no other file.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::read::shown;
use crate::report::browser::thumbnail;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::rows::readers::json::jsonl;
use omr_data::task::TaskRows;
use omr_train::eval::samples;

/// File in the run directory.
const FILE: &str = "pictures.jsonl";

/// Images of a question.
#[derive(Serialize, Deserialize)]
struct Line {
    task: String,
    index: u64,
    #[serde(rename = "pictures")]
    images: Vec<String>,
}

/// Images as `data:` addresses, by task and question.
pub type Images = HashMap<(String, u64), Vec<String>>;

/// Writes the images of the questions that the page of the evaluation in `dir` shows, atomically. The rows of its tasks
/// are read again. Images that cannot be decoded are left out.
pub fn keep(dir: &Path, tasks: &[TaskRows]) -> Result<()> {
    let samples = samples::read(&dir.join("samples.jsonl"))?;
    let shown = shown(samples.iter());
    files::write_with(dir.join(FILE), |out| {
        for rows in tasks {
            let task = rows.spec.name;
            let of_task = shown.iter().filter(|sample| sample.task == task);
            let mut wanted: HashSet<u64> = of_task.map(|sample| sample.index).collect();
            if wanted.is_empty() {
                continue;
            }
            rows.each(|index, row| {
                if let (Ok(row), true) = (row, wanted.remove(&index)) {
                    let small = row.images.iter().map(|image| Ok(thumbnail(&image.bytes(&row.place)?)));
                    let images: Vec<String> = small.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
                    if !images.is_empty() {
                        let line = serde_json::to_string(&Line { task: task.to_owned(), index, images });
                        let line = line.map_err(|e| Error::Failed(format!("{FILE}: {e}")))?;
                        writeln!(out, "{line}").map_err(Error::io(FILE))?;
                    }
                }
                Ok(if wanted.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        Ok(())
    })
}

/// Reads the images that the evaluations in `dirs` have stored.
pub fn read(dirs: &[&Path]) -> Result<Images> {
    let mut images = Images::new();
    for path in dirs.iter().map(|dir| dir.join(FILE)).filter(|path| path.exists()) {
        jsonl(&path, usize::MAX, |at, fields| {
            let wrong = |e: serde_json::Error| Error::format(&path, format!("line {}: {e}", at.number));
            let Line { task, index, images: small } = serde_json::from_value(fields?.into()).map_err(wrong)?;
            images.entry((task, index)).or_insert(small);
            Ok(())
        })?;
    }
    Ok(images)
}
