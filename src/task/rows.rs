//! Questions with a way to score answers to them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Crash, Source, TaskSpec};
use crate::config::Mode;
use crate::data::Row;
use crate::error::{Error, Result};
use crate::reward::{Item, OnScored, Scorer, extract, python};

/// Questions with a way to score answers to them.
pub trait Task: Send + Sync {
    /// The task's name.
    fn name(&self) -> &str;
    /// The questions.
    fn rows(&self) -> &[Row];
    /// Scores a response to `row`, one of [`Task::rows`]: `on_scored` has the score at once or, where a judge or a
    /// command decides, later and on another thread.
    fn score(&self, row: &Row, response: String, on_scored: OnScored);
}

/// Questions whose answers are held against the row's ground truth.
pub struct VerifiedRows {
    name: String,
    rows: Vec<Row>,
    scorer: Arc<Scorer>,
}

impl VerifiedRows {
    /// A task of `rows`, scored by the rules of `mode`. Errors, naming the row, when one has no ground truth.
    pub fn new(name: impl Into<String>, rows: Vec<Row>, mode: Mode) -> Result<VerifiedRows> {
        VerifiedRows::scored_by(name, rows, Arc::new(Scorer::rules(mode)))
    }

    /// A task of `rows`, scored by `scorer`. Errors, naming the row, when one has no ground truth.
    pub fn scored_by(name: impl Into<String>, rows: Vec<Row>, scorer: Arc<Scorer>) -> Result<VerifiedRows> {
        rows.iter().try_for_each(labelled)?;
        Ok(VerifiedRows { name: name.into(), rows, scorer })
    }
}

fn labelled(row: &Row) -> Result<()> {
    match row.ground_truth {
        Some(_) => Ok(()),
        None => Err(Error::input(&row.place, "no ground truth", "reward_model.ground_truth, or a column `answer`")),
    }
}

impl Task for VerifiedRows {
    fn name(&self) -> &str {
        &self.name
    }

    fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn score(&self, row: &Row, response: String, on_scored: OnScored) {
        self.scorer.submit(item(row, response), on_scored);
    }
}

/// A response to `row`, to be scored. The judge is told what the row says it is told, or its question.
fn item(row: &Row, response: String) -> Item {
    let question = match row.extra.get("judge_question") {
        Some(told) => told.as_str().map(str::to_owned),
        None => Some(row.question()).filter(|question| !question.is_empty()),
    };
    Item { response, ground_truth: row.ground_truth.clone().unwrap_or_default(), question, place: row.place.clone() }
}

/// The questions of a task of the table.
pub struct TaskRows {
    /// The task.
    pub spec: &'static TaskSpec,
    /// The number of each row in the task.
    pub indices: Vec<u64>,
    /// Rows that the published evaluation ends with an error on: they are not asked.
    pub crashed: Vec<(u64, Crash)>,
    /// There may be more questions than were read.
    pub limited: bool,
    rows: Vec<Row>,
    scorer: Arc<Scorer>,
    mode: Mode,
    strip_thinking: bool,
}

impl TaskRows {
    /// Reads the first `limit` questions, and their pictures where they are to be asked. In compat, rows that the
    /// published evaluation ends with an error on are named in [`TaskRows::crashed`]; in strict the first is an error.
    pub fn read(
        spec: &'static TaskSpec,
        source: &Source,
        limit: Option<usize>,
        pictures: bool,
        scored: (Arc<Scorer>, bool),
    ) -> Result<TaskRows> {
        let (scorer, strip_thinking) = scored;
        let (indices, crashed, rows) = (Vec::new(), Vec::new(), Vec::new());
        let mode = source.mode;
        let mut read = TaskRows { spec, indices, crashed, limited: false, rows, scorer, mode, strip_thinking };
        let limit = limit.unwrap_or(usize::MAX);
        (spec.rows)(spec, source, &mut |asked| {
            let index = asked.index as u64;
            match asked.row {
                Ok(mut row) => {
                    labelled(&row)?;
                    if !pictures {
                        row.images.clear();
                    }
                    read.indices.push(index);
                    read.rows.push(row);
                }
                Err(crash) if source.mode == Mode::Compat => read.crashed.push((index, crash)),
                Err(crash) => return Err(crash.error(&asked.place)),
            }
            read.limited = read.rows.len() + read.crashed.len() >= limit;
            Ok(if read.limited { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(read)
    }

    /// A response as it is to be scored.
    pub fn item(&self, row: &Row, response: &str) -> Item {
        let stripped =
            if self.strip_thinking { extract::strip_think(response, self.mode) } else { response.to_owned() };
        // The published evaluation hands stripped texts on; rows of one's own are scored as in training.
        let response = if self.spec.hub.is_some() { python::strip(&stripped).to_owned() } else { stripped };
        item(row, response)
    }

    /// Who scores.
    pub fn scorer(&self) -> &Scorer {
        &self.scorer
    }
}

impl Task for TaskRows {
    fn name(&self) -> &str {
        self.spec.name
    }

    fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn score(&self, row: &Row, response: String, on_scored: OnScored) {
        self.scorer.submit(self.item(row, &response), on_scored);
    }
}
