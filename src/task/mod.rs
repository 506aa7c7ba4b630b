//! Tasks: rows to prompts, scores and aggregates. The same object serves RL and evaluation; [`TASKS`] is what there
//! is to measure a model on.

#![forbid(unsafe_code)]

pub mod aggregate;
pub mod aime;
mod amc;
pub mod charxiv;
pub mod digits;
mod dynamath;
pub mod file;
pub mod gpqa;
pub mod hub;
mod interleave;
mod literal;
mod logicvista;
mod mathverse;
mod mathvision;
mod mathvista;
mod mmmu;
mod mmmu_pro;
pub mod published;
pub mod recipe;
mod rows;
mod shuffle;
mod wemath;

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::{Map, Value};

pub use self::aggregate::{Counted, Metric};
pub use self::file::TaskFile;
pub use self::hub::Hub;
use self::recipe::Recipe;
pub use self::rows::{Task, TaskRows, VerifiedRows};
use crate::config::{DatasetConfig, Mode};
use crate::data::Row;
use crate::error::{Error, Result};

/// Everything that can be measured, one file each. The first is measured where none is named.
pub const TASKS: &[TaskSpec] = &[
    digits::TASK,
    mathvista::TASK,
    mathvision::TEST,
    mathvision::TESTMINI,
    mathverse::TASK,
    dynamath::TASK,
    wemath::TASK,
    logicvista::TASK,
    mmmu::TASK,
    mmmu_pro::STANDARD,
    mmmu_pro::VISION,
    charxiv::REASONING_TASK,
    charxiv::DESCRIPTIVE_TASK,
    gpqa::TASK,
    aime::AIME24,
    aime::AIME25,
    amc::TASK,
];

/// Names of several tasks, as the published evaluation has them.
pub const GROUPS: &[(&str, &[&str])] = &[
    ("aime_agg8", &["aime24", "aime25"]),
    ("mmmu_pro", &["mmmu_pro_standard", "mmmu_pro_vision"]),
    ("mmmu_pro_cot", &["mmmu_pro_standard", "mmmu_pro_vision"]),
    ("charxiv", &["charxiv_reasoning", "charxiv_descriptive"]),
];

/// A task: where its questions come from, what its answers are worth, what has been published.
pub struct TaskSpec {
    /// The name, in summaries and samples: that of the published evaluation.
    pub name: &'static str,
    /// Other names it is asked for by: lmms-eval's own and plain ones.
    pub aliases: &'static [&'static str],
    /// What it is, in a line.
    pub about: &'static str,
    /// The data set its rows come from, where that is one of the hub.
    pub hub: Option<Hub>,
    /// Gives the questions, as prompts with their right answers, one after another. Errors name the file and the row.
    pub rows: fn(&TaskSpec, &Source, Take) -> Result<()>,
    /// Which answers are asked for.
    pub answers: Answers,
    /// Where an answer is cut when the user names no bound.
    pub max_new_tokens: usize,
    /// One question's metrics, from the marks of its answers.
    pub score: fn(&Row, &Marks, Mode) -> Checked<Metrics>,
    /// The task's metrics, from those of its questions.
    pub aggregate: fn(&[Counted], Mode) -> Vec<Metric>,
    /// The metric that is published of other models; see [`published::of`].
    pub published: Option<&'static str>,
    /// How `omr recipe` teaches it; none where it is only measured.
    pub recipe: Option<Recipe>,
}

/// What a step of the published evaluation gives, or the error it ends with.
pub type Checked<T> = std::result::Result<T, Crash>;

/// Metrics by their names.
pub type Metrics = Map<String, Value>;

/// Takes questions one after another, and says whether it wants more.
pub type Take<'a> = &'a mut dyn FnMut(Asked) -> Result<ControlFlow<()>>;

/// A question, or why the published evaluation has none there.
pub struct Asked {
    /// Its number in the task, from 0.
    pub index: usize,
    /// File and row.
    pub place: String,
    /// The question.
    pub row: Checked<Row>,
}

/// Which answers a task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// As the config says: a greedy one, and so many at temperature 1.
    AsConfigured,
    /// One, greedily.
    Greedy,
    /// So many at temperature 1.
    Sampled(usize),
}

/// What a task makes its questions from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Rows in RL form, for tasks of one's own rows.
    pub datasets: &'a [DatasetConfig],
    /// The folder the user named for the tasks' files.
    pub folder: Option<&'a Path>,
    /// How prompts are made and scored.
    pub mode: Mode,
    /// The run's seed.
    pub seed: u64,
    /// Seed of the order of options, where a task draws one.
    pub shuffle_seed: u64,
    /// One's own benchmark.
    pub file: Option<&'a TaskFile>,
}

/// What an answer came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark<'a> {
    /// 1 when it is right.
    pub acc: f64,
    /// How well it keeps to the format.
    pub format: f64,
    /// What was taken as the answer.
    pub predict_str: &'a str,
}

/// The marks of one question's answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks<'a> {
    /// Of the greedy answer, where there is one.
    pub greedy: Option<Mark<'a>>,
    /// Of the sampled ones.
    pub sampled: Vec<Mark<'a>>,
}

impl Marks<'_> {
    /// All of them, the greedy one first.
    pub fn all(&self) -> impl Iterator<Item = &Mark<'_>> {
        self.greedy.iter().chain(&self.sampled)
    }
}

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

/// Where the published evaluation cuts answers.
pub const PUBLISHED_MAX_NEW_TOKENS: usize = 49_152;

/// The letter of an option, from A; past Z the characters that follow it.
pub fn letter(index: usize) -> char {
    char::from_u32('A' as u32 + index as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The task of a name or alias. Errors name those there are.
pub fn find(name: &str) -> Result<&'static TaskSpec> {
    let known = |task: &&TaskSpec| task.name == name || task.aliases.contains(&name);
    TASKS.iter().find(known).ok_or_else(|| {
        let names: Vec<&str> = TASKS.iter().map(|task| task.name).collect();
        Error::input("--tasks", name, format!("a task of `omr eval --list`: {}", names.join(", ")))
    })
}

/// The task of a name that a recipe can teach, and how. Errors name those there are.
pub fn taught(name: &str) -> Result<(&'static TaskSpec, &'static Recipe)> {
    let taught = || TASKS.iter().filter_map(|task| Some((task, task.recipe.as_ref()?)));
    taught().find(|(task, _)| task.name == name).ok_or_else(|| {
        let names: Vec<&str> = taught().map(|(task, _)| task.name).collect();
        Error::input("task.name", name, names.join(", "))
    })
}

/// The tasks of names, aliases and groups, each once, in their order. Errors name those there are.
pub fn named(names: &[String]) -> Result<Vec<&'static TaskSpec>> {
    let mut tasks: Vec<&'static TaskSpec> = Vec::new();
    for name in names {
        let group = GROUPS.iter().find(|(group, _)| group == name);
        let members = group.map_or_else(|| vec![name.as_str()], |(_, members)| members.to_vec());
        for member in members {
            let spec = find(member)?;
            if !tasks.iter().any(|known| known.name == spec.name) {
                tasks.push(spec);
            }
        }
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_one_task() {
        let mut names: Vec<&str> =
            TASKS.iter().flat_map(|task| task.aliases.iter().copied().chain([task.name])).collect();
        for name in &names {
            assert!(find(name).is_ok_and(|task| task.name == *name || task.aliases.contains(name)));
        }
        names.extend(GROUPS.iter().map(|(group, _)| *group));
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
        let error = find("no such task").err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains(TASKS[0].name), "{error}");
    }

    #[test]
    fn groups_are_their_members_once() {
        for (group, members) in GROUPS {
            let twice = [(*group).to_owned(), members[0].to_owned()];
            assert_eq!(named(&twice).unwrap().len(), members.len(), "{group}");
        }
    }

    #[test]
    fn a_task_that_no_recipe_teaches_is_refused_with_those_that_one_does() {
        let error = taught("no such task").err().unwrap();
        let text = error.to_string();
        assert!(error.exit_code() == 2 && text.contains("task.name") && text.contains(digits::NAME), "{text}");
    }
}
