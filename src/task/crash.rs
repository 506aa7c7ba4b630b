//! Rows and answers that the published evaluation ends with an error on.

use crate::error::Error;

/// What a step of the published evaluation gives, or the error it ends with.
pub type Checked<T> = std::result::Result<T, Crash>;

/// The step at which the published evaluation ends with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the data set.
    ProcessDocs,
    /// Making the prompt.
    Messages,
    /// Scoring the answer.
    ProcessResults,
}

impl Stage {
    /// Its name there.
    pub fn name(self) -> &'static str {
        match self {
            Stage::ProcessDocs => "process_docs",
            Stage::Messages => "messages",
            Stage::ProcessResults => "process_results",
        }
    }
}

/// A row the published evaluation ends with an error on, and with it the whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Where.
    pub stage: Stage,
    /// The exception's class.
    pub class: &'static str,
    /// What stands in the row.
    pub found: String,
    /// What would be right.
    pub expected: String,
}

impl Crash {
    /// A crash.
    pub fn new(stage: Stage, class: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Crash {
        Crash { stage, class, found: found.into(), expected: expected.into() }
    }

    /// As an error of the row at `place`.
    pub fn error(&self, place: &str) -> Error {
        Error::input(place, self.found.clone(), self.expected.clone())
    }
}
