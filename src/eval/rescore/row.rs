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
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub(super) framework: Framework,
    pub(super) task: String,
    pub(super) index: String,
    pub(super) question: Option<String>,
    pub(super) gold: String,
    pub(super) response: String,
    pub(super) theirs: Option<bool>,
    pub(super) theirs_why: String,
    pub(super) place: String,
}
