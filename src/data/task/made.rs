//! Rows of the tasks that omr makes, and the questions that an evaluation asks about them.

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::recipe::Splits;
use super::spec::{QuestionSink, Source, TaskQuestion, TaskSpec};
use crate::rows::{ImageSource, Row, read};
use crate::text::{Message, Part};
use omr_base::choice::choice;
use omr_base::config::TaskConfig;
use omr_base::error::{Error, Result};

/// Reads the rows of the data sets given by the user, or `heldout.parquet` in the given folder. Without either, makes
/// the rows with the recipe of the task.
pub fn questions(spec: &TaskSpec, source: &Source, take: QuestionSink) -> Result<()> {
    let mut index = 0;
    let mut emit = |row: Row| {
        index += 1;
        take(TaskQuestion { index: index - 1, place: row.place.clone(), row: Ok(row) })
    };
    let own = source.folder.map(|folder| [read::entry(folder.join("heldout.parquet"))]);
    let files = if source.datasets.is_empty() { own.as_ref().map_or(&[][..], |own| own) } else { source.datasets };
    for entry in files {
        let (mut rows, mut over) = (0, false);
        read::for_each(entry, |row| {
            rows += 1;
            over = over || emit(row?)?.is_break();
            Ok(())
        })?;
        if rows == 0 {
            return Err(Error::input(&entry.path, "no rows", "at least one row"));
        }
        if over {
            return Ok(());
        }
    }
    if let (true, Some(recipe)) = (files.is_empty(), spec.recipe) {
        for row in (recipe.splits)(&TaskConfig::default(), source.seed)?.heldout {
            if emit(row)?.is_break() {
                break;
            }
        }
    }
    Ok(())
}

choice! {
    /// The split that a row belongs to.
    pub enum Split {
        /// Questions for the teacher.
        Teach = "teach",
        /// Questions for RL.
        Train = "train",
        /// Questions for evaluation.
        Heldout = "heldout",
    }
}

impl Split {
    /// Returns the counter of row `index` for random numbers. No two rows of a run have the same.
    pub fn counter(self, index: usize) -> u64 {
        (self as u64 + 1) << 48 | index as u64
    }
}

/// A row to make: its number, its kind of question and the shift of its image.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Number of the row in its split.
    pub index: usize,
    /// Number of the kind of question among those of the task.
    pub kind: usize,
    /// Maximum random shift of the image, in pixels.
    pub shift: i32,
}

/// Makes all rows of a run with `row`. `kinds` are the names of the task's kinds of questions. The kinds alternate, so
/// that each split has the same number of each of its kinds.
pub fn splits(config: &TaskConfig, kinds: &[&str], row: impl Fn(Split, Asked) -> Result<Row> + Sync) -> Result<Splits> {
    let rows = |split, n: usize, asked: Vec<usize>, shift: u32| {
        let row = |index: usize| row(split, Asked { index, kind: asked[index % asked.len()], shift: shift as i32 });
        (0..n).into_par_iter().map(row).collect::<Result<Vec<_>>>()
    };
    let sft_kinds = numbers("task.sft_kinds", config.sft_kinds.as_deref(), kinds)?;
    let rl_kinds = numbers("task.rl_kinds", config.rl_kinds.as_deref(), kinds)?;
    Ok(Splits {
        teach: rows(Split::Teach, config.num_sft_questions, sft_kinds, config.shift)?,
        train: rows(Split::Train, config.num_rl_questions, rl_kinds, config.shift)?,
        heldout: rows(Split::Heldout, config.num_heldout_questions, (0..kinds.len()).collect(), config.heldout_shift)?,
    })
}

/// Returns the numbers of the kinds that the key `key` names, in the order of `kinds`. All of them if the key is null.
fn numbers(key: &str, names: Option<&[String]>, kinds: &[&str]) -> Result<Vec<usize>> {
    let Some(names) = names else { return Ok((0..kinds.len()).collect()) };
    let unknown = names.iter().find(|name| !kinds.contains(&name.as_str()));
    if unknown.is_some() || names.is_empty() {
        let found = unknown.map_or("an empty list".to_owned(), String::clone);
        return Err(Error::input(key, found, format!("kinds of questions: {}", kinds.join(", "))));
    }
    Ok((0..kinds.len()).filter(|&kind| names.iter().any(|name| name == kinds[kind])).collect())
}

/// A question about an image.
pub struct ImageQuestion {
    /// Text of the question.
    pub text: String,
    /// The text comes before the image.
    pub text_first: bool,
    /// Name of the kind of question.
    pub kind: &'static str,
    /// Correct answer.
    pub answer: String,
    /// The image as PNG.
    pub png: Vec<u8>,
    /// Further fields of `extra_info`, a JSON object.
    pub extra: Value,
}

impl ImageQuestion {
    /// Returns the row of this question in RL form, with an embedded image.
    pub fn row(self, task: &str, split: Split, index: usize) -> Row {
        let ImageQuestion { text, text_first, kind, answer, png, extra } = self;
        let split = split.name();
        let fields = json!({"index": index, "split": split, "question": text, "answer": answer, "kind": kind});
        let mut content = vec![Part::Image, Part::Text(text)];
        if text_first {
            content.reverse();
        }
        let both = [fields, extra].map(|fields| if let Value::Object(map) = fields { map } else { Map::new() });
        Row {
            id: format!("{task}-{split}-{index}"),
            messages: vec![Message { content, ..Message::text("user", "") }],
            images: vec![ImageSource::Bytes { bytes: png.into(), path: None }],
            data_source: task.to_owned(),
            ground_truth: Some(answer),
            extra: both.into_iter().flatten().collect(),
            place: format!("{task} {split} row {}", index + 1),
            ..Row::default()
        }
    }
}
