//! The task AMC 2023. The paper reports it, but the published evaluation contains no such task, so it uses the prompts
//! of AIME.

use super::{RowSource, TaskSpec, aime};

/// The task AMC 2023.
pub const TASK: TaskSpec =
    TaskSpec { name: "amc23", rows: RowSource::OfHub(aime::prompt), published: None, ..aime::AIME24 };
