//! A recipe and its folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use omr_base::answers::RunStore;
use omr_base::config::{EvalConfig, RecipeConfig};
use omr_base::error::{Error, Result};
use omr_data::task::{self, Source, TaskSpec};
use omr_model::nn::ModelConfig;
use omr_runtime::machine::Machine;

/// Folder of a model's results on `eval.tasks`, in `eval/STAGE`.
pub const COLUMNS: &str = "tasks";

/// Stages whose models are evaluated, in order.
pub const MEASURED: [&str; 4] = ["base", "sft", "control", "rl"];

/// A recipe and its folder.
pub struct Recipe<'a> {
    pub(super) dir: PathBuf,
    /// Config of the recipe.
    pub config: RecipeConfig,
    pub(super) spec: &'static TaskSpec,
    pub(super) task: &'static task::recipe::Recipe,
    /// Tasks of `eval.tasks` that are evaluated in addition to the recipe's own task, and the reasons why others are
    /// left out.
    pub(super) columns: Vec<&'static TaskSpec>,
    pub(super) left_out: Vec<String>,
    pub(super) machine: &'a Machine<'a>,
    /// Store of answers of judges and evaluated models, for all stages. With several ranks, each stage opens its own.
    pub(super) store: Arc<RunStore>,
}

impl<'a> Recipe<'a> {
    /// Makes the recipe of `config` in `dir`. Returns an error if recipes do not support its task, if one of
    /// `eval.tasks` is unknown, or if `base.model` has no vision tower, because the questions of all recipes have images.
    pub fn new(dir: &Path, config: RecipeConfig, machine: &'a Machine<'a>) -> Result<Recipe<'a>> {
        let (spec, task) = task::recipe_of(&config.task.name)?;
        if let Some(model) = config.base.model.as_ref().filter(|_| !dir.join("base/model").exists())
            && ModelConfig::load(&model.join("config.json"))?.media.is_none()
        {
            let found = format!("{}, a text model", model.display());
            return Err(Error::input("base.model", found, "a model with a vision tower: the questions have images"));
        }
        let (columns, left_out) = columns(&config.eval, spec)?;
        Ok(Recipe { dir: dir.to_owned(), config, spec, task, columns, left_out, machine, store: RunStore::new(dir) })
    }

    /// Returns the path of the report.
    pub fn page(&self) -> PathBuf {
        self.path("report.html")
    }

    /// True if nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.path("summary.json").exists() && self.page().exists()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn model(&self, stage: &str) -> PathBuf {
        self.dir.join(stage).join("model")
    }
}

/// Returns the tasks of `eval.tasks` whose files exist, and a line for each task that is left out. The recipe's own task
/// is evaluated anyway and has no files. Returns an error if a task is unknown or its folder cannot be read.
fn columns(config: &EvalConfig, own: &TaskSpec) -> Result<(Vec<&'static TaskSpec>, Vec<String>)> {
    let (mut there, mut left_out) = (Vec::new(), Vec::new());
    for spec in task::named(&config.tasks)?.into_iter().filter(|spec| spec.name != own.name) {
        match task::hub::files(spec, &Source::of(config)) {
            Ok(_) => there.push(spec),
            Err(error @ Error::Io { .. }) => return Err(error),
            Err(error) => left_out.push(format!("{} is left out: {error}", spec.name)),
        }
    }
    Ok((there, left_out))
}
