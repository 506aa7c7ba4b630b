//! An answer that another framework recorded.

use serde::Serialize;

/// Whose log it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Framework {
    /// lmms-eval's `--log_samples`: a jsonl file a task.
    #[serde(rename = "lmms-eval")]
    LmmsEval,
    /// VLMEvalKit's table of a data set, with tabs.
    #[serde(rename = "VLMEvalKit")]
    VlmEvalKit,
}

impl Framework {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Framework::LmmsEval => "lmms-eval",
            Framework::VlmEvalKit => "VLMEvalKit",
        }
    }
}

/// An answer with another framework's verdict.
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
