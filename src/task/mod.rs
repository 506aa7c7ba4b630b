//! Tasks: rows to prompts, scores and aggregates. The same object serves RL and evaluation; [`TASKS`] is what there
//! is to measure a model on.

#![forbid(unsafe_code)]

mod aggregate;
pub mod digits;
pub mod recipe;

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use self::recipe::Recipe;
use crate::config::{DatasetConfig, Mode};
use crate::data::Row;
use crate::error::{Error, Result};
use crate::reward::{Item, OnScored, Scorer};

/// Everything that can be measured, one file each. The first is measured where none is named.
pub const TASKS: &[TaskSpec] = &[digits::TASK];

/// A task: where its questions come from, what its answers are worth, what has been published.
pub struct TaskSpec {
    /// The name, in summaries and samples.
    pub name: &'static str,
    /// Other names it is asked for by.
    pub aliases: &'static [&'static str],
    /// What it is and where its rows come from, in a line.
    pub about: &'static str,
    /// The questions, as prompts with their right answers. Errors name the file and the row.
    pub rows: fn(&Source) -> Result<Vec<Row>>,
    /// One question's metrics, from the marks of its answers.
    pub score: fn(&Row, &Marks) -> Metrics,
    /// The task's metrics, from those of its questions.
    pub aggregate: fn(&[Metrics], Mode) -> Metrics,
    /// The published score of OpenMMReasoner-7B: a metric's name, and its value.
    pub published: Option<(&'static str, f64)>,
    /// How `omr recipe` teaches it; none where it is only measured.
    pub recipe: Option<Recipe>,
}

/// Metrics by their names.
pub type Metrics = Map<String, Value>;

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

/// Questions with a way to score answers to them.
pub trait Task: Send + Sync {
    /// The task's name.
    fn name(&self) -> &str;
    /// The questions.
    fn rows(&self) -> &[Row];
    /// Scores a response to `row`, one of [`Task::rows`]: `on_scored` has the score at once or, where a judge or a
    /// command decides, later and on another thread.
    fn score(&self, row: &Row, response: String, on_scored: OnScored);
}

/// Questions whose answers are held against the row's ground truth.
pub struct VerifiedRows {
    name: String,
    rows: Vec<Row>,
    scorer: Arc<Scorer>,
}

impl VerifiedRows {
    /// A task of `rows`, scored by the rules of `mode`. Errors, naming the row, when one has no ground truth.
    pub fn new(name: impl Into<String>, rows: Vec<Row>, mode: Mode) -> Result<VerifiedRows> {
        VerifiedRows::scored_by(name, rows, Arc::new(Scorer::rules(mode)))
    }

    /// A task of `rows`, scored by `scorer`. Errors, naming the row, when one has no ground truth.
    pub fn scored_by(name: impl Into<String>, rows: Vec<Row>, scorer: Arc<Scorer>) -> Result<VerifiedRows> {
        if let Some(row) = rows.iter().find(|r| r.ground_truth.is_none()) {
            return Err(Error::input(&row.place, "no ground truth", "reward_model.ground_truth, or a column `answer`"));
        }
        Ok(VerifiedRows { name: name.into(), rows, scorer })
    }
}

impl Task for VerifiedRows {
    fn name(&self) -> &str {
        &self.name
    }

    fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn score(&self, row: &Row, response: String, on_scored: OnScored) {
        let question = row.question();
        let item = Item {
            response,
            ground_truth: row.ground_truth.clone().unwrap_or_default(),
            question: Some(question).filter(|question| !question.is_empty()),
            place: row.place.clone(),
        };
        self.scorer.submit(item, on_scored);
    }
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
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
        let error = find("no such task").err().unwrap();
        assert!(error.exit_code() == 2 && error.to_string().contains(TASKS[0].name), "{error}");
    }

    #[test]
    fn a_task_that_no_recipe_teaches_is_refused_with_those_that_one_does() {
        let error = taught("no such task").err().unwrap();
        let text = error.to_string();
        assert!(error.exit_code() == 2 && text.contains("task.name") && text.contains(digits::NAME), "{text}");
    }
}
