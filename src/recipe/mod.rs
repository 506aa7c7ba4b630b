//! A whole recipe: data, SFT, RL, control, evaluation and report, each stage in its own folder, each gone on with where it
//! stopped. What is taught is a task's ([`crate::task::recipe`]).

#![forbid(unsafe_code)]

mod announce;
mod base;
mod stages;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use crate::answers::RunStore;
use crate::config::RecipeConfig;
use crate::device::{Device, Plan, Target};
use crate::error::Result;
use crate::files::{self, Lock};
use crate::observe::Observer;
use crate::ranks::{self, Ranks};
use crate::report;
use crate::task::{self, TaskSpec};

/// Folder of a measured model with its columns, in `eval/STAGE`.
const COLUMNS: &str = "tasks";

/// The models measured, in order.
const MEASURED: [&str; 4] = ["base", "sft", "control", "rl"];

/// What a recipe works with.
pub struct Means<'a> {
    /// The device that plans are made for.
    pub target: Target,
    /// Where it computes, for people.
    pub place: String,
    /// Makes a device with a plan's memory.
    pub device: &'a dyn Fn(&Plan) -> Result<Device>,
    /// The asynchronous runtime, for teacher and judges.
    pub runtime: &'a dyn Fn() -> Result<Handle>,
    /// Whom it reports to.
    pub observer: &'a dyn Observer,
}

/// A recipe and its folder.
pub struct Recipe<'a> {
    dir: PathBuf,
    config: RecipeConfig,
    spec: &'static TaskSpec,
    task: &'static task::recipe::Recipe,
    /// Tasks of `eval.tasks` that are measured beside the recipe's own, and why each of the others is not.
    columns: Vec<&'static TaskSpec>,
    left_out: Vec<String>,
    means: Means<'a>,
    /// What judges and measured models say, in all stages; of several ranks each stage opens its own.
    store: Arc<RunStore>,
}

impl<'a> Recipe<'a> {
    /// The recipe of `config` in `dir`. Errors when its task is none that can be taught, or one of
    /// `eval.tasks` is not known.
    pub fn new(dir: &Path, config: RecipeConfig, means: Means<'a>) -> Result<Recipe<'a>> {
        let (spec, task) = task::taught(&config.task.name)?;
        let (columns, left_out) = stages::columns(&config.eval)?;
        Ok(Recipe { dir: dir.to_owned(), config, spec, task, columns, left_out, means, store: RunStore::new(dir) })
    }

    /// The settings.
    pub fn config(&self) -> &RecipeConfig {
        &self.config
    }

    /// The report.
    pub fn page(&self) -> PathBuf {
        self.path("report.html")
    }

    /// True when nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.path("summary.json").exists() && self.page().exists()
    }

    /// Does what is left, stage by stage, and writes `summary.json` and `report.html`. `ranks` train and answer together; what is
    /// one process's work rank 0 does, the data among it.
    pub fn run(&self, ranks: &mut dyn Ranks) -> Result<()> {
        let (begun, leads) = (Instant::now(), ranks.rank() == 0);
        // Each stage's folder, from its start to the end of the recipe: no other command works in it.
        let mut locks = Vec::new();
        let mut claim = |stage: &str| -> Result<()> {
            locks.extend(leads.then(|| Lock::take(&self.path(stage), "")).transpose()?);
            Ok(())
        };
        claim("base")?;
        ranks::by_first(ranks, "the base model", || self.base())?;
        claim("data")?;
        claim("data/distill")?;
        ranks::by_first(ranks, "the data", || self.data())?;
        claim("sft")?;
        self.sft(ranks)?;
        if self.config.control.enable {
            claim("control")?;
            self.control(ranks)?;
        }
        claim("rl")?;
        self.rl(ranks)?;
        for stage in MEASURED {
            if stage != "control" || self.config.control.enable {
                claim(&format!("eval/{stage}"))?;
                self.measure(stage, ranks)?;
            }
        }
        ranks::by_first(ranks, "the report", || {
            self.summarise(begun.elapsed().as_secs_f64())?;
            let report = report::report(&self.dir)?;
            files::write(self.page(), report::page(&report)?.as_bytes())?;
            self.means.observer.note(&report.headline);
            Ok(())
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn model(&self, stage: &str) -> PathBuf {
        self.dir.join(stage).join("model")
    }
}
