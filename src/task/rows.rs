//! Questions together with a way to score answers to them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Doc, PublishedResult, QuestionSink, RowSource, Source, TaskSpec, hub};
use crate::config::{DatasetConfig, Mode};
use crate::data::Row;
use crate::error::{Error, Result};
use crate::reward::{Item, OnScored, Scorer};
use omr_verify::{extract, python};

/// Questions together with a way to score answers to them.
pub trait Task: Send + Sync {
    /// Returns the name of the task.
    fn name(&self) -> &str;
    /// Returns the questions.
    fn rows(&self) -> &[Row];
    /// Scores a response to `row`, one of [`Task::rows`]. If the rules decide, `on_scored` receives the score
    /// immediately. If a judge or a command decides, `on_scored` receives the score later and on another thread.
    fn score(&self, row: &Row, response: String, on_scored: OnScored);
}

/// Questions whose answers are compared with the row's ground truth.
pub struct VerifiedRows {
    name: String,
    rows: Vec<Row>,
    scorer: Arc<Scorer>,
}

impl VerifiedRows {
    /// Makes a task of `rows`, scored by `scorer`. Returns an error that names the row if a row has no ground truth.
    pub fn scored_by(name: impl Into<String>, rows: Vec<Row>, scorer: Arc<Scorer>) -> Result<VerifiedRows> {
        rows.iter().try_for_each(labelled)?;
        Ok(VerifiedRows { name: name.into(), rows, scorer })
    }

    /// Checks that `row` can be scored, so that a wrong reward program or type is found before the first rollout. A
    /// program scores the label as a response.
    pub fn try_scorer(&self, row: &Row) -> Result<()> {
        self.scorer.check(item(row, row.ground_truth.clone().unwrap_or_default()))
    }
}

fn labelled(row: &Row) -> Result<()> {
    match row.ground_truth {
        Some(_) => Ok(()),
        None => Err(Error::input(&row.place, "no label", "reward_model.ground_truth, or a column `answer`")),
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

/// Makes the scoring item of a response to `row`. The judge receives the row's `judge_question` if it exists (null stands
/// for no question), otherwise the question of the row.
fn item(row: &Row, response: String) -> Item {
    let question = match row.extra.get("judge_question") {
        Some(told) => told.as_str().map(str::to_owned),
        None => Some(row.question()).filter(|question| !question.is_empty()),
    };
    Item { response, question, ground_truth: row.ground_truth.clone().unwrap_or_default(), ..row.item() }
}

impl TaskSpec {
    /// Passes the task's questions to `take`, as prompts with their correct answers, one after another. Errors name the
    /// file and the row.
    pub fn questions(&self, source: &Source, take: QuestionSink) -> Result<()> {
        let prompt = match self.rows {
            RowSource::Made(rows) => return rows(self, source, take),
            RowSource::OfHub(prompt) => prompt,
        };
        let emit = &mut |doc: Doc| take(hub::task_question(self, doc.index, &doc, prompt(&doc, source.mode)));
        hub::docs(self, source, emit).map(drop)
    }
}

/// Questions of a built-in task, read when they are needed.
pub struct TaskRows<'a> {
    /// Description of the task.
    pub spec: &'static TaskSpec,
    source: Source<'a>,
    limit: usize,
    scored: Scored,
}

/// Settings for scoring the answers to a task's questions.
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
        // The published evaluation strips the text before scoring. Answers to other rows are scored as in training.
        let response = if self.spec.hub.is_some() { python::strip(&stripped).to_owned() } else { stripped };
        item(row, response)
    }
}

impl<'a> TaskRows<'a> {
    /// Returns the user's data sets, for tasks that read them.
    pub fn datasets(&self) -> &[DatasetConfig] {
        self.source.datasets
    }

    /// Selects the first `limit` questions. `scorer` scores the answers. With `strip_thinking`, the thinking part is
    /// removed before scoring.
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

    /// Reads the questions and passes them to `take` with their numbers in the task, one after another, until `take`
    /// returns `Break`. Rows on which the published evaluation ends with an error are passed as `Err` in compat. In
    /// strict, the first such row is an error. Returns true if there may be more questions than were passed.
    pub fn each(&self, mut take: impl FnMut(u64, PublishedResult<Row>) -> Result<ControlFlow<()>>) -> Result<bool> {
        let (mut given, mut limited) = (0, false);
        self.spec.questions(&self.source, &mut |task_question| {
            match &task_question.row {
                Ok(row) => labelled(row)?,
                Err(crash) if self.source.mode == Mode::Strict => return Err(crash.error(&task_question.place)),
                Err(_) => {}
            }
            given += 1;
            let flow = take(task_question.index as u64, task_question.row)?;
            limited = given >= self.limit || flow.is_break();
            Ok(if limited { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(limited)
    }

    /// Returns the mode for prompts and scoring.
    pub fn mode(&self) -> Mode {
        self.source.mode
    }

    /// Loads the questions into memory, for callers that use them repeatedly. In compat, questions on which the
    /// published evaluation ends with an error are left out.
    pub fn load(&self) -> Result<LoadedRows> {
        let mut rows = Vec::new();
        self.each(|_, row| {
            rows.extend(row);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(LoadedRows { rows, scored: self.scored.clone() })
    }

    /// Lets a reward program score the label of the first question as a response, so that a wrong program is found before
    /// the first answer is generated. Does nothing if the rules or a judge score.
    pub fn try_program(&self) -> Result<()> {
        if !self.scorer().is_program() {
            return Ok(());
        }
        self.each(|_, row| {
            if let Ok(row) = row {
                self.scorer().check(self.item(&row, row.ground_truth.as_deref().unwrap_or_default()))?;
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(())
    }

    /// Makes the scoring item of a response.
    pub fn item(&self, row: &Row, response: &str) -> Item {
        self.scored.item(row, response)
    }

    /// Returns the scorer.
    pub fn scorer(&self) -> &Scorer {
        &self.scored.scorer
    }
}

/// Questions of a built-in task, in memory.
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
