//! AMC 2023. The paper has a column of it, the published evaluation has no task: it is asked as AIME is.

use super::hub::{self, Hub, Subject};
use super::{TaskSpec, aime};

/// The task.
pub const TASK: TaskSpec = TaskSpec {
    name: "amc23",
    aliases: &["amc"],
    about: "AMC 2023, asked as AIME is: the published evaluation has no such task, so nothing says how it asked",
    hub: Some(Hub {
        repo: "math-ai/amc23",
        config: None,
        split: &["test"],
        columns: &["answer"],
        optional: &["problem", "question"],
        pictures: &[],
        subject: Subject::Unsaid,
    }),
    rows: |spec, source, take| hub::questions(spec, source, take, aime::prompt),
    published: None,
    ..aime::AIME24
};
