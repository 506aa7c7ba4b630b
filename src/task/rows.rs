//! Questions with a way to score answers to them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Checked, Doc, Rows, Source, Take, TaskSpec, hub};
use crate::config::Mode;
use crate::data::Row;
use crate::error::{Error, Result};
use crate::reward::{Item, OnScored, Scorer};
use omr_verify::{extract, python};

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
    Item { response, question, ground_truth: row.ground_truth.clone().unwrap_or_default(), ..row.item() }
}

impl TaskSpec {
    /// Gives the task's questions to `take`, as prompts with their right answers, one after another. Errors name the file
    /// and the row.
    pub fn questions(&self, source: &Source, take: Take) -> Result<()> {
        let prompt = match self.rows {
            Rows::Made(rows) => return rows(self, source, take),
            Rows::OfHub(prompt) => prompt,
        };
        let ask = &mut |doc: Doc| take(hub::asked(self, doc.index, &doc, prompt(&doc, source.mode)));
        hub::docs(self, source, ask).map(drop)
    }
}

/// The questions of a task of the table, read as they are needed.
pub struct TaskRows<'a> {
    /// The task.
    pub spec: &'static TaskSpec,
    source: Source<'a>,
    limit: usize,
    scored: Scored,
}

/// How answers to a task's questions are scored.
#[derive(Clone)]
struct Scored {
    spec: &'static TaskSpec,
    mode: Mode,
    scorer: Arc<Scorer>,
    strip_thinking: bool,
}

impl Scored {
    fn item(&self, row: &Row, response: &str) -> Item {
        let stripped =
            if self.strip_thinking { extract::strip_think(response, self.mode) } else { response.to_owned() };
        // The published evaluation hands stripped texts on; rows of one's own are scored as in training.
        let response = if self.spec.hub.is_some() { python::strip(&stripped).to_owned() } else { stripped };
        item(row, response)
    }
}

impl<'a> TaskRows<'a> {
    /// The first `limit` questions. `scorer` scores answers, where `strip_thinking` says so without their
    /// thinking.
    pub fn new(
        spec: &'static TaskSpec,
        source: Source<'a>,
        limit: Option<usize>,
        scorer: Arc<Scorer>,
        strip_thinking: bool,
    ) -> TaskRows<'a> {
        let scored = Scored { spec, mode: source.mode, scorer, strip_thinking };
        TaskRows { spec, source, limit: limit.unwrap_or(usize::MAX), scored }
    }

    /// Reads the questions and gives them to `take` with their numbers in the task, one after another, until it breaks
    /// off. In compat, rows that the published evaluation ends with an error on are given as that; in strict the first is
    /// an error. True when there may be more questions than were given.
    pub fn each(&self, mut take: impl FnMut(u64, Checked<Row>) -> Result<ControlFlow<()>>) -> Result<bool> {
        let (mut given, mut limited) = (0, false);
        self.spec.questions(&self.source, &mut |asked| {
            match &asked.row {
                Ok(row) => labelled(row)?,
                Err(crash) if self.source.mode == Mode::Strict => return Err(crash.error(&asked.place)),
                Err(_) => {}
            }
            given += 1;
            let flow = take(asked.index as u64, asked.row)?;
            limited = given >= self.limit || flow.is_break();
            Ok(if limited { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(limited)
    }

    /// How prompts are made and answers scored.
    pub fn mode(&self) -> Mode {
        self.source.mode
    }

    /// The questions in memory, for where the same are asked again and again; in compat without those that the published
    /// evaluation ends with an error on.
    pub fn load(&self) -> Result<LoadedRows> {
        let mut rows = Vec::new();
        self.each(|_, row| {
            rows.extend(row);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(LoadedRows { rows, scored: self.scored.clone() })
    }

    /// A response as it is to be scored.
    pub fn item(&self, row: &Row, response: &str) -> Item {
        self.scored.item(row, response)
    }

    /// Who scores.
    pub fn scorer(&self) -> &Scorer {
        &self.scored.scorer
    }
}

/// The questions of a task of the table, in memory.
pub struct LoadedRows {
    rows: Vec<Row>,
    scored: Scored,
}

impl Task for LoadedRows {
    fn name(&self) -> &str {
        self.scored.spec.name
    }

    fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn score(&self, row: &Row, response: String, on_scored: OnScored) {
        self.scored.scorer.submit(self.scored.item(row, &response), on_scored);
    }
}
