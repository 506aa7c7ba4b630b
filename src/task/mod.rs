//! Tasks: rows to prompts and scores. The same object serves RL and evaluation.

#![forbid(unsafe_code)]

pub mod digits;
pub mod digits_teacher;

use std::sync::Arc;

use crate::config::Mode;
use crate::data::Row;
use crate::error::{Error, Result};
use crate::reward::{Item, OnScored, Scorer};

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
        if let Some(row) = rows.iter().find(|r| r.ground_truth.is_none()) {
            return Err(Error::input(&row.place, "no ground truth", "reward_model.ground_truth, or a column `answer`"));
        }
        Ok(VerifiedRows { name: name.into(), rows, scorer })
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
        let question = row.question();
        let item = Item {
            response,
            ground_truth: row.ground_truth.clone().unwrap_or_default(),
            question: Some(question).filter(|question| !question.is_empty()),
            place: row.place.clone(),
        };
        self.scorer.submit(item, on_scored);
    }
}
