//! A user-defined benchmark from a task file: rows with any columns, a prompt template, and the column of the correct
//! answer.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::hub::SUBJECT;
use super::{OwnRows, QuestionSink, RowSource, TaskQuestion, TaskSpec, written};
use crate::rows::files::folder::Folder;
use crate::rows::files::paths::kind;
use crate::rows::forms::fields::{Fields, LOOKED_AT, RowContext, json_columns};
use crate::rows::forms::form::IMAGE_MARKER;
use crate::rows::forms::names::Names;
use crate::rows::readers::columns::{self, Columns};
use crate::rows::readers::json::{Layout, jsonl};
use crate::rows::{Row, read};
use crate::text::RowPrompt;
use omr_base::config::{self, DataType, TaskFileConfig};
use omr_base::error::{Error, Result};

/// Default maximum length of an answer, in tokens.
const MAX_NEW_TOKENS: usize = 4096;

/// A user-defined benchmark.
pub struct TaskFile {
    /// Keys of the task file.
    pub config: TaskFileConfig,
    /// The benchmark as a task.
    pub spec: &'static TaskSpec,
    /// Notes for the user about columns that are not read.
    pub notes: Vec<String>,
    path: PathBuf,
    prompt: RowPrompt,
}

impl TaskFile {
    /// Reads a task file. Errors name the file and the key. Also returns an error if a built-in task has the same name.
    pub fn open(path: &Path) -> Result<TaskFile> {
        let mut config: TaskFileConfig = config::load(Some(path), &[], &|_| None)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        config.data.path = folder.join(&config.data.path);
        config.data.data_folder = config.data.data_folder.map(|inner| folder.join(inner));
        let stem = || path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let name = config.name.clone().unwrap_or_else(stem);
        if let Ok(known) = super::find(&name) {
            let place = format!("{}: name", path.display());
            return Err(Error::input(place, &name, format!("a name that is not one of {}", known.name)));
        }
        let prompt = RowPrompt::new(&config.prompt, &format!("{}: prompt", path.display()))?;
        // A task lives as long as the program, like the built-in ones. A run reads only one task file, so the leaked
        // memory is small.
        let name: &'static str = Box::leak(name.into_boxed_str());
        let spec = Box::leak(Box::new(TaskSpec { name, ..SPEC }));
        let mut file = TaskFile { config, spec, notes: Vec::new(), path: path.to_owned(), prompt };
        file.check_columns()?;
        Ok(file)
    }

    fn is_jsonl(&self) -> bool {
        let data = &self.config.data;
        data.path.extension().is_some_and(|kind| kind == "jsonl") || data.data_type == DataType::Jsonl
    }

    /// Returns true if the user's own scorer receives this column: there is one, and the column contains no images.
    fn is_scored(&self, column: &str) -> bool {
        let is_image = self.config.images.iter().any(|name| name == column);
        let names = Names::default();
        !self.config.scorer.command.is_empty() && !is_image && names.meaning(column) != Some("images")
    }

    /// Returns an error if no row has a column that `images` names. Otherwise notes the columns that are not read, and
    /// warns about those whose names suggest images.
    fn check_columns(&mut self) -> Result<()> {
        let (path, images) = (&self.config.data.path, &self.config.images);
        if !self.is_jsonl() && kind(path, self.config.data.data_type) != DataType::Parquet {
            let expected = "a .parquet or .jsonl file (`omr data format` converts other files)";
            let place = format!("{}: data", self.path.display());
            return Err(Error::input(place, path.display().to_string(), expected));
        }
        let names = |rows| match self.is_jsonl() {
            true => {
                let columns = json_columns(&path.as_path().into(), Layout::Lines, rows)?;
                Ok(columns.into_iter().map(|(name, _)| name).collect())
            }
            false => columns::names(path),
        };
        let missing = |names: &[String]| images.iter().find(|column| !names.contains(column));
        let mut found: Vec<String> = names(LOOKED_AT)?;
        if missing(&found).is_some() {
            found = names(usize::MAX)?;
        }
        if let Some(column) = missing(&found) {
            let place = format!("{}: images", self.path.display());
            return Err(Error::input(place, format!("`{column}`"), format!("one of the columns {}", found.join(", "))));
        }
        let mut read = self.prompt.columns();
        read.extend(images.iter().chain([&self.config.gold]).chain(&self.config.subject).cloned());
        found.retain(|column| !read.contains(column) && !self.is_scored(column) && column != "id");
        let is_images = |column: &&String| Names::default().meaning(column) == Some("images");
        let unread = found.iter().find(is_images);
        let is_deliberate = self.config.data.columns.images.as_deref() == Some("");
        if let (Some(column), true, false) = (unread, images.is_empty(), is_deliberate) {
            let place = format!("{}: images", self.path.display());
            let hint = "or data.columns.images: \"\", to ask without images";
            let found = format!("nothing, and rows with the column `{column}`");
            return Err(Error::input_hint(place, found, format!("[{column}]"), hint));
        }
        let warned = unread.map(|column| {
            format!("{}: `images` does not list the column `{column}`, so its images are not read", self.path.display())
        });
        let unused = (!found.is_empty()).then(|| format!("{}: columns not used: {}", self.spec.name, found.join(", ")));
        self.notes = warned.into_iter().chain(unused).collect();
        Ok(())
    }

    /// Converts the fields of a row to a prompt with its correct answer.
    fn row(&self, (mut fields, images): Fields, folder: &Folder, index: usize, place: &str) -> Result<Row> {
        let config = &self.config;
        let Some(gold) = fields.get(&config.gold).filter(|gold| !gold.is_null()).cloned() else {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            let (gold, path) = (&config.gold, self.path.display());
            let expected = format!("a column `{gold}` with the correct answer (`gold` in {path} sets its name)");
            return Err(Error::input(place, format!("columns {}", names.join(", ")), expected));
        };
        let named = config.images.iter().filter_map(|column| fields.get(column));
        let inline: Vec<Value> =
            named.flat_map(|value| value.as_array().cloned().unwrap_or(vec![value.clone()])).collect();
        let count = images.as_ref().map_or(inline.len(), Vec::len);
        let text = self.prompt.render(&fields, &Map::new(), place)?;
        let marks = if text.contains(IMAGE_MARKER) { 0 } else { count };
        let text = IMAGE_MARKER.repeat(marks) + text.trim();
        let system = config.system.iter().map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = system.chain([json!({"role": "user", "content": text})]).collect();
        let id = fields.get("id").map_or_else(|| json!(format!("{}-{index}", self.spec.name)), Value::clone);
        // A list contains several right answers.
        let label = if gold.is_array() { "answers" } else { "answer" };
        fields.retain(|column, _| !config.images.contains(column));
        let extra = fields.get("extra_info").filter(|_| self.is_scored("extra_info"));
        let row = json!({
            "id": id, "prompt": messages, label: gold, "images": inline, "data_source": self.spec.name, "extra_info": extra,
        });
        let name = self.spec.name;
        let at = RowContext { folder, entry: &config.data, dataset: name, file: name, index, place: place.to_owned() };
        let Value::Object(row) = row else { return Err(Error::Failed("a row is not an object".to_owned())) };
        let mut row = read::row_from(row, images, &at).map_err(Error::from)?;
        let subject = config.subject.as_ref().and_then(|column| fields.get(column));
        row.extra.extend(subject.map(|subject| (SUBJECT.to_owned(), written(subject).into())));
        fields.retain(|column, _| self.is_scored(column));
        row.columns = fields;
        Ok(row)
    }
}

impl OwnRows for TaskFile {
    fn rows(&self, take: QuestionSink) -> Result<()> {
        let path = &self.config.data.path;
        let folder = Folder::of_rows(self.config.data.data_folder.as_deref(), &[omr_base::files::parent(path)])?;
        let limit = self.config.data.limit.unwrap_or(usize::MAX);
        if self.is_jsonl() {
            let mut done = false;
            return jsonl(path, limit, |at, fields| {
                if done {
                    return Ok(());
                }
                let place = format!("{} line {}", path.display(), at.number);
                let row = self.row((fields?, None), &folder, at.index, &place)?;
                done = take(TaskQuestion { index: at.index, place, row: Ok(row) })?.is_break();
                Ok(())
            });
        }
        let mut wanted = self.prompt.columns();
        wanted.retain(|column| !self.config.images.contains(column));
        wanted.push(self.config.gold.clone());
        let needed: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let images: Vec<&str> = self.config.images.iter().map(String::as_str).collect();
        let scored = columns::names(path)?;
        let scored = scored.iter().map(String::as_str).filter(|column| self.is_scored(column));
        let optional: Vec<&str> = ["id"].into_iter().chain(self.config.subject.as_deref()).chain(scored).collect();
        let columns = Columns { needed: &needed, optional: &optional, images: &images };
        columns::choose(path, &columns, |index, (fields, mut found)| {
            if index >= limit {
                return Ok(ControlFlow::Break(()));
            }
            found.sort_by_key(|(name, _)| images.iter().position(|column| column == name));
            let place = format!("{} row {}", path.display(), index + 1);
            let images = found.into_iter().map(|(_, image)| image).collect();
            let row = self.row((fields, Some(images)), &folder, index, &place)?;
            take(TaskQuestion { index, place, row: Ok(row) })
        })
        .map(drop)
    }
}

/// Properties shared by all tasks from files.
const SPEC: TaskSpec = TaskSpec {
    name: "task-file",
    about: "your own benchmark",
    rows: RowSource::Made(|spec, source, take| match source.file {
        Some(file) => file.rows(take),
        None => Err(Error::Failed(format!("{}: no task file", spec.name))),
    }),
    max_new_tokens: MAX_NEW_TOKENS,
    ..TaskSpec::AS_CONFIGURED
};
