//! The description of a task: the source of its questions, its prompts and its metrics.

use std::ops::ControlFlow;
use std::path::Path;

use super::aggregate::{self, Counted, Metric};
use super::crash::PublishedResult;
use super::dataset::Hub;
use super::doc::{Doc, Prompt};
use super::marks::{Marks, Metrics};
use super::recipe::Recipe;
use crate::rows::Row;
use omr_base::config::{DatasetConfig, EvalConfig, Mode};
use omr_base::error::Result;

/// A task: the source of its questions, the scoring of its answers, and its published metric.
#[derive(Clone, Copy)]
pub struct TaskSpec {
    /// Name in summaries and samples, which is the name in the published evaluation.
    pub name: &'static str,
    /// Other accepted names: the names in lmms-eval, and short names.
    pub aliases: &'static [&'static str],
    /// Number of questions of the published evaluation, if there is one.
    pub questions: Option<usize>,
    /// Description in one line.
    pub about: &'static str,
    /// Data set of the hub that contains the rows of the task, if any.
    pub hub: Option<&'static Hub<'static>>,
    /// Function that makes the questions of the task.
    pub rows: RowSource,
    /// Answers to generate per question.
    pub answers: Answers,
    /// Default maximum length of an answer, in tokens.
    pub max_new_tokens: usize,
    /// Computes the metrics of a question from the scores of its answers.
    pub score: fn(&Row, &Marks, Mode) -> PublishedResult<Metrics>,
    /// Computes the metrics of the task from the metrics of its questions.
    pub aggregate: fn(&[Counted], Mode) -> Vec<Metric>,
    /// Metric for which scores of other models are published, see [`super::published::of`].
    pub published: Option<&'static str>,
    /// Functions with which `omr recipe` trains on the task. `None` if the task is only for evaluation.
    pub recipe: Option<Recipe>,
}

/// Source of a task's questions.
#[derive(Clone, Copy)]
pub enum RowSource {
    /// The function makes one question from each row of the hub data set.
    OfHub(fn(&Doc, Mode) -> PublishedResult<Prompt>),
    /// The function passes the questions to `take`, one after another. Errors name the file and the row.
    Made(fn(&TaskSpec, &Source, QuestionSink) -> Result<()>),
}

impl TaskSpec {
    /// Properties of a task of the published evaluation: one greedy answer per question, published accuracy.
    pub const DEFAULT: TaskSpec = TaskSpec {
        name: "",
        aliases: &[],
        questions: None,
        about: "",
        hub: None,
        rows: RowSource::Made(|_, _, _| Ok(())),
        answers: Answers::Greedy,
        max_new_tokens: PUBLISHED_MAX_NEW_TOKENS,
        score: aggregate::accuracy_and_format,
        aggregate: aggregate::means,
        published: Some("acc_score"),
        recipe: None,
    };

    /// Properties of a task of omr or of the user: the answers and the metrics that the config requests.
    pub const AS_CONFIGURED: TaskSpec =
        TaskSpec { answers: Answers::AsConfigured, score: Marks::as_configured, published: None, ..TaskSpec::DEFAULT };
}

/// A user-defined benchmark.
pub trait OwnRows: Sync {
    /// Passes the questions to `take`, one after another. Errors name the file and the row.
    fn rows(&self, take: QuestionSink) -> Result<()>;
}

/// Callback that receives questions one after another and returns whether to continue.
pub type QuestionSink<'a> = &'a mut dyn FnMut(TaskQuestion) -> Result<ControlFlow<()>>;

/// A question, or the error with which the published evaluation ends on it.
pub struct TaskQuestion {
    /// Number of the question in the task, from 0.
    pub index: usize,
    /// File and row, for error messages.
    pub place: String,
    /// The question.
    pub row: PublishedResult<Row>,
}

/// Answers that a task generates per question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// The answers that the config requests: optionally a greedy one, and a number of answers at temperature 1.
    AsConfigured,
    /// One greedy answer.
    Greedy,
    /// This number of answers at temperature 1.
    Sampled(usize),
}

/// Inputs from which a task makes its questions.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Rows in RL form, for tasks that use the user's rows.
    pub datasets: &'a [DatasetConfig],
    /// Folder with the tasks' files, given by the user.
    pub folder: Option<&'a Path>,
    /// Mode for prompts and scoring.
    pub mode: Mode,
    /// Seed of the run.
    pub seed: u64,
    /// Seed for the order of options, used by tasks that draw one.
    pub shuffle_seed: u64,
    /// The user-defined benchmark.
    pub file: Option<&'a dyn OwnRows>,
}

impl Source<'_> {
    /// Returns the source that `config` describes, without a task file.
    pub fn of(config: &EvalConfig) -> Source<'_> {
        let EvalConfig { data, data_dir, mode, seed, shuffle_seed, .. } = config;
        let (mode, seed, shuffle_seed) = (*mode, *seed, *shuffle_seed);
        Source { datasets: data, folder: data_dir.as_deref(), mode, seed, shuffle_seed, file: None }
    }
}

/// Maximum length of an answer in the published evaluation, in tokens.
pub const PUBLISHED_MAX_NEW_TOKENS: usize = 49_152;
