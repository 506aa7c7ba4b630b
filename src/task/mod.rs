//! Tasks: rows to prompts and scores. The same object serves RL and evaluation.

#![forbid(unsafe_code)]

pub mod digits;
pub mod digits_teacher;

use crate::config::Mode;
use crate::data::Row;
use crate::reward::{self, Score};

/// Questions with a way to score answers to them.
pub trait Task: Send + Sync {
    /// The task's name.
    fn name(&self) -> &str;
    /// The questions.
    fn rows(&self) -> &[Row];
    /// The score of a response to `row`, one of [`Task::rows`].
    fn score(&self, row: &Row, response: &str) -> Score;
}

/// Questions whose answers are held against the row's ground truth by the reward's rules.
pub struct VerifiedRows {
    name: String,
    rows: Vec<Row>,
    mode: Mode,
}

impl VerifiedRows {
    /// A task of `rows`, scored in `mode`. Errors, naming the row, when one has no ground truth.
    pub fn new(name: impl Into<String>, rows: Vec<Row>, mode: Mode) -> crate::error::Result<VerifiedRows> {
        if let Some(row) = rows.iter().find(|r| r.ground_truth.is_none()) {
            return Err(crate::error::Error::input(
                &row.place,
                "no ground truth",
                "reward_model.ground_truth, or a column `answer`",
            ));
        }
        Ok(VerifiedRows { name: name.into(), rows, mode })
    }
}

impl Task for VerifiedRows {
    fn name(&self) -> &str {
        &self.name
    }

    fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn score(&self, row: &Row, response: &str) -> Score {
        let truth = row.ground_truth.as_deref().unwrap_or_default();
        reward::score(response, truth, Some(&row.question()), self.mode)
    }
}
