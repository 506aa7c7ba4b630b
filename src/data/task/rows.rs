//! Questions together with a way to score answers to them.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Doc, PublishedResult, QuestionSink, RowSource, Source, TaskSpec, hub};
use crate::reward::{Item, OnScored, Scorer, typed};
use crate::rows::Row;
use crate::text::Chat;
use omr_base::config::Mode;
use omr_base::error::{Error, Result};
use omr_verify::{extract, python};

/// Questions together with a way to score answers to them: answers are compared with the row's ground truth.
pub struct VerifiedRows {
    /// Name of the task.
    pub name: String,
    /// The questions.
    pub rows: Vec<Row>,
    /// Scoring of the answers.
    pub scoring: Scoring,
}

impl VerifiedRows {
    /// Makes a task of `rows`, scored by `scorer`. Returns an error that names the row if a row has no ground truth.
    pub fn scored_by(name: impl Into<String>, rows: Vec<Row>, scorer: Arc<Scorer>) -> Result<VerifiedRows> {
        let scoring = Scoring { scorer, strip_thinking: None, is_published: false };
        rows.iter().try_for_each(|row| scoring.labelled(row))?;
        Ok(VerifiedRows { name: name.into(), rows, scoring })
    }

    /// Scores a response to `row`, before which its turn had the text `opened`. If the rules decide, `on_scored` receives the score immediately. If a judge or a
    /// command decides, `on_scored` receives the score later and on another thread.
    pub fn score(&self, row: &Row, opened: &str, response: &str, on_scored: OnScored) {
        self.scoring.scorer.submit(self.scoring.item(row, opened, response), on_scored);
    }
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
    /// Source of the questions.
    pub source: Source<'a>,
    limit: usize,
    /// Scoring of the answers.
    pub scoring: Scoring,
}

/// Settings for scoring the answers to a task's questions.
#[derive(Clone)]
pub struct Scoring {
    /// Scorer of the answers.
    pub scorer: Arc<Scorer>,
    /// Mode in which the thinking part is removed before scoring. `None` if it is not removed.
    strip_thinking: Option<Mode>,
    /// True for a task of the published evaluation.
    is_published: bool,
}

impl Scoring {
    /// Returns an error if a row has no label, or a list or struct that the rules cannot use.
    fn labelled(&self, row: &Row) -> Result<()> {
        match row.ground_truth {
            Some(_) if row.label.is_null() => Ok(()),
            Some(_) => self.scorer.check_label(&self.item(row, "", "")),
            None => Err(Error::input(&row.place, "no label", "reward_model.ground_truth, or a column `answer`")),
        }
    }

    /// Makes the scoring item of a response to `row`. The judge receives the row's `judge_question` if it exists (null
    /// stands for no question), otherwise the question of the row. `opened` is the text of the turn before the response.
    pub fn item(&self, row: &Row, opened: &str, response: &str) -> Item {
        let (opened, stripped) = match self.strip_thinking {
            Some(Mode::Strict) => ("", extract::strip_think(&extract::turn(opened, response), Mode::Strict)),
            Some(mode) => (opened, extract::strip_think(response, mode)),
            None => (opened, response.to_owned()),
        };
        // The published evaluation strips the text before scoring. Answers to other rows are scored as in training.
        let response = if self.is_published { python::strip(&stripped).to_owned() } else { stripped };
        let question = match row.extra.get("judge_question") {
            Some(told) => told.as_str().map(str::to_owned),
            None => Some(row.question()).filter(|question| !question.is_empty()),
        };
        let opened = opened.to_owned();
        Item { response, opened, question, ground_truth: row.ground_truth.clone().unwrap_or_default(), ..row.item() }
    }

    /// Checks whether answers to the prompt of `row` can be scored; see [`Scorer::check_opened`].
    pub fn check_prompt(&self, chat: &Chat, row: &Row) -> Result<Option<String>> {
        let checked = self.scorer.check_opened(&chat.opened(row.prompt())?, row.extra.contains_key(typed::REWARD_TYPE));
        checked.map_err(|error| error.within(&row.place))
    }

    /// Checks that `row` can be scored, so that a wrong reward program or type is found before the first rollout. A
    /// program scores the label as a response.
    pub fn check(&self, row: &Row) -> Result<()> {
        self.scorer.check(self.item(row, "", row.ground_truth.as_deref().unwrap_or_default()))
    }
}

impl<'a> TaskRows<'a> {
    /// Selects the first `limit` questions. `scorer` scores the answers. With `strip_thinking`, the thinking part is
    /// removed before scoring.
    pub fn new(
        spec: &'static TaskSpec,
        source: Source<'a>,
        limit: Option<usize>,
        scorer: Arc<Scorer>,
        strip_thinking: bool,
    ) -> TaskRows<'a> {
        let strip_thinking = strip_thinking.then_some(source.mode);
        let scoring = Scoring { scorer, strip_thinking, is_published: spec.hub.is_some() };
        TaskRows { spec, source, limit: limit.unwrap_or(usize::MAX), scoring }
    }

    /// Reads the questions and passes them to `take` with their numbers in the task, one after another, until `take`
    /// returns `Break`. Rows on which the published evaluation ends with an error are passed as `Err` in compat. In
    /// strict, the first such row is an error. Returns true if there may be more questions than were passed.
    pub fn each(&self, mut take: impl FnMut(u64, PublishedResult<Row>) -> Result<ControlFlow<()>>) -> Result<bool> {
        let (mut given, mut limited) = (0, false);
        self.spec.questions(&self.source, &mut |task_question| {
            match &task_question.row {
                Ok(row) => self.scoring.labelled(row)?,
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

    /// Loads the questions into memory, for callers that use them repeatedly. In compat, questions on which the
    /// published evaluation ends with an error are left out.
    pub fn load(&self) -> Result<VerifiedRows> {
        let mut rows = Vec::new();
        self.each(|_, row| {
            rows.extend(row);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(VerifiedRows { name: self.spec.name.to_owned(), rows, scoring: self.scoring.clone() })
    }

    /// Lets a reward program score the label of the first question as a response, so that a wrong program is found before
    /// the first answer is generated. Does nothing if the rules or a judge score.
    pub fn try_program(&self) -> Result<()> {
        if !self.scoring.scorer.is_program() {
            return Ok(());
        }
        self.each(|_, row| {
            if let Ok(row) = row {
                self.scoring.check(&row)?;
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(())
    }
}
