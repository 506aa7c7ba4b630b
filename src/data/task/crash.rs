//! Errors with which the published evaluation ends on certain rows and answers.

use omr_base::choice::choice;
use omr_base::error::Error;

/// Result of a step of the published evaluation, or the error with which the step ends.
pub type PublishedResult<T> = std::result::Result<T, Crash>;

choice! {
    /// Step of the published evaluation in which an error occurs, with its name there.
    pub enum Stage {
        /// Reading the data set.
        ProcessDocs = "process_docs",
        /// Making the prompt.
        Messages = "messages",
        /// Scoring the answer.
        ProcessResults = "process_results",
    }
}

/// An error on a row, with which the published evaluation ends the whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Step in which the error occurs.
    pub stage: Stage,
    /// Class of the Python exception.
    pub class: &'static str,
    /// Content of the row that causes the error.
    pub found: String,
    /// Content that would be correct.
    pub expected: String,
}

impl Crash {
    /// Makes a crash from its parts.
    pub fn new(stage: Stage, class: &'static str, found: impl Into<String>, expected: impl Into<String>) -> Crash {
        Crash { stage, class, found: found.into(), expected: expected.into() }
    }

    /// Converts the crash to an error of the row at `place`.
    pub fn error(&self, place: &str) -> Error {
        Error::input(place, self.found.clone(), self.expected.clone())
    }
}
