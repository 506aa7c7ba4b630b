//! AMC 2023. The paper has a column of it, the published evaluation has no task: it is asked as AIME is.

use super::{Hub, Rows, TaskSpec, aime};

/// The task.
pub const TASK: TaskSpec = TaskSpec {
    name: "amc23",
    aliases: &["amc"],
    about: "AMC 2023, asked as AIME is: the published evaluation has no such task, so nothing says how it asked",
    hub: Some(Hub { repo: "math-ai/amc23", columns: &["answer"], optional: &["problem", "question"], ..Hub::DEFAULT }),
    rows: Rows::OfHub(aime::prompt),
    published: None,
    ..aime::AIME24
};
