//! An answer recorded by another framework.

use serde::Serialize;

/// A framework whose logs can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Framework {
    /// lmms-eval's `--log_samples`: one jsonl file per task.
    #[serde(rename = "lmms-eval")]
    LmmsEval,
    /// VLMEvalKit's table of a data set, separated by tabs.
    #[serde(rename = "VLMEvalKit")]
    VlmEvalKit,
}

impl Framework {
    /// Returns the name of the framework.
    pub fn name(self) -> &'static str {
        match self {
            Framework::LmmsEval => "lmms-eval",
            Framework::VlmEvalKit => "VLMEvalKit",
        }
    }
}

/// An answer with the verdict of another framework.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Framework that wrote the log.
    pub framework: Framework,
    /// Task, as named by its file.
    pub task: String,
    /// Number or name of the row in the log.
    pub index: String,
    /// Filter of lmms-eval that read the answer, if the log names one. A question has a row for each.
    #[serde(skip)]
    pub(super) filter: String,
    /// Question with its options, if the log contains it.
    pub question: Option<String>,
    /// Correct answer.
    pub gold: String,
    /// The correct answers, if the log lists several.
    #[serde(skip)]
    pub(super) right_answers: Vec<String>,
    /// Response of the model.
    pub response: String,
    /// Verdict of the framework, if the log contains one.
    pub theirs: Option<bool>,
    /// Metric or column with this verdict, and the answer that the framework extracted.
    pub theirs_why: String,
    #[serde(skip)]
    pub(super) place: String,
}
