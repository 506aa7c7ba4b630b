//! Tasks: convert rows to prompts, score answers and aggregate metrics. RL and evaluation use the same tasks. [`TASKS`]
//! lists all tasks that a model can be evaluated on.

#![forbid(unsafe_code)]

pub mod aggregate;
pub mod aime;
pub mod charts;
pub mod charxiv;
mod crash;
mod dataset;
pub mod digits;
pub mod doc;
mod dynamath;
pub mod file;
pub mod gpqa;
pub mod hub;
mod interleave;
mod logicvista;
mod made;
mod marks;
mod mathverse;
mod mathvision;
mod mathvista;
mod mmmu;
mod mmmu_pro;
pub mod published;
pub mod recipe;
mod registry;
mod rows;
mod shuffle;
mod spec;
pub mod teacher;
mod wemath;

pub use self::aggregate::{Counted, Metric, Observation};
pub use self::crash::{Crash, PublishedResult, Stage};
pub use self::doc::{Doc, Prompt, letter, written};
pub use self::file::TaskFile;
pub use self::marks::{Mark, Marks, Metrics};
pub use self::registry::{GROUPS, TASKS, find, named, recipe_of};
pub use self::rows::{TaskRows, VerifiedRows};
pub use self::spec::{Answers, OwnRows, QuestionSink, RowSource, Source, TaskQuestion, TaskSpec};
