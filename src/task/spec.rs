//! What a task is, and what it makes its questions from.

use std::ops::ControlFlow;
use std::path::Path;

use super::aggregate::{self, Counted, Metric};
use super::crash::Checked;
use super::dataset::Hub;
use super::doc::{Doc, Prompt};
use super::marks::{Marks, Metrics};
use super::recipe::Recipe;
use crate::config::{DatasetConfig, EvalConfig, Mode};
use crate::data::Row;
use crate::error::Result;

/// A task: where its questions come from, what its answers are worth, what has been published.
#[derive(Clone, Copy)]
pub struct TaskSpec {
    /// The name, in summaries and samples: that of the published evaluation.
    pub name: &'static str,
    /// Other names it is asked for by: lmms-eval's own and plain ones.
    pub aliases: &'static [&'static str],
    /// What it is, in a line.
    pub about: &'static str,
    /// The data set its rows come from, where that is one of the hub.
    pub hub: Option<&'static Hub<'static>>,
    /// How its questions are made.
    pub rows: Rows,
    /// Which answers are asked for.
    pub answers: Answers,
    /// Where an answer is cut when the user names no bound.
    pub max_new_tokens: usize,
    /// One question's metrics, from the marks of its answers.
    pub score: fn(&Row, &Marks, Mode) -> Checked<Metrics>,
    /// The task's metrics, from those of its questions.
    pub aggregate: fn(&[Counted], Mode) -> Vec<Metric>,
    /// The metric that is published of other models; see [`super::published::of`].
    pub published: Option<&'static str>,
    /// How `omr recipe` teaches it; none where it is only measured.
    pub recipe: Option<Recipe>,
}

/// How the questions of a task are made.
#[derive(Clone, Copy)]
pub enum Rows {
    /// From each row of the data set of the hub, as this function makes one.
    OfHub(fn(&Doc, Mode) -> Checked<Prompt>),
    /// As this function gives them, one after another. Errors name the file and the row.
    Made(fn(&TaskSpec, &Source, Take) -> Result<()>),
}

impl TaskSpec {
    /// A task that the published evaluation has: one greedy answer to each question, its accuracy published.
    pub const DEFAULT: TaskSpec = TaskSpec {
        name: "",
        aliases: &[],
        about: "",
        hub: None,
        rows: Rows::Made(|_, _, _| Ok(())),
        answers: Answers::Greedy,
        max_new_tokens: PUBLISHED_MAX_NEW_TOKENS,
        score: aggregate::accuracy_and_format,
        aggregate: aggregate::means,
        published: Some("acc_score"),
        recipe: None,
    };
}

/// A benchmark of the user's own.
pub trait OwnRows: Sync {
    /// Gives the questions to `take`, one after another. Errors name the file and the row.
    fn rows(&self, take: Take) -> Result<()>;
}

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
    pub file: Option<&'a dyn OwnRows>,
}

impl Source<'_> {
    /// Returns what `config` names, without a benchmark of one's own.
    pub fn of(config: &EvalConfig) -> Source<'_> {
        let EvalConfig { data, data_dir, mode, seed, shuffle_seed, .. } = config;
        let (mode, seed, shuffle_seed) = (*mode, *seed, *shuffle_seed);
        Source { datasets: data, folder: data_dir.as_deref(), mode, seed, shuffle_seed, file: None }
    }
}

/// Where the published evaluation cuts answers.
pub const PUBLISHED_MAX_NEW_TOKENS: usize = 49_152;
