//! AMC 2023. The paper has a column of it, the published evaluation has no task: it is asked as AIME is.

use super::{Rows, TaskSpec, aime};

/// The task.
pub const TASK: TaskSpec = TaskSpec { name: "amc23", rows: Rows::OfHub(aime::prompt), published: None, ..aime::AIME24 };
