//! Recomputes steps of a run in a scratch folder.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::recorded::Recorded;
use crate::eval::validation;
use crate::training::job::TrainingJob;
use crate::{rl, training};
use omr_base::answers::RunStore;
use omr_base::config::{self, RlConfig, SftConfig, TrainingConfig, ValidationConfig};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::observe::Observer;
use omr_data::reward::Scorer;
use omr_model::checkpoint::Checkpoint;
use omr_runtime::machine::Machine;

/// Steps of a run to be recomputed in a scratch folder.
pub struct Replay<'a> {
    pub run: &'a Recorded,
    /// Checkpoint to start from. `None` starts at the beginning of the run.
    pub from: Option<&'a Checkpoint>,
    pub last: u64,
    /// Folder for the recomputed files.
    pub scratch: &'a Path,
    pub machine: &'a Machine<'a>,
}

impl Replay<'_> {
    /// Recomputes the steps. If `only` is a step and a prompt, only the rollouts of that prompt are sampled in that
    /// step.
    pub fn compute(&self, only: Option<(u64, u64)>) -> Result<()> {
        let (dir, scratch) = (&self.run.dir, self.scratch.to_owned());
        let file = dir.join("config.yaml");
        let resume = self.from.map_or("never".to_owned(), |from| from.path.display().to_string());
        let env = |name: &str| std::env::var(name).ok();
        // The tasks of a recipe are in its folder, next to its runs.
        let tasks = self.run.recipe().map(|recipe| recipe.join("data"));
        // Weights are saved only if the run has a checkpoint to compare them with.
        let weighs = self.run.checkpoints.iter().any(|checkpoint| checkpoint.step == self.last) && only.is_none();
        let save = weighs.then_some(self.last);
        let training = |training: TrainingConfig| {
            let (report_to, keep_every, save_on_stop) = (Vec::new(), None, Some(false));
            TrainingConfig { resume, report_to, keep_every, save_on_stop, ..training }
        };
        if self.run.is_rl {
            let mut config: RlConfig = config::load(Some(&file), &[], &env)?;
            (config.save_freq, config.save_seconds, config.rollout_freq) = (save, None, Some(1));
            config.training = training(config.training);
            config.validation = without_best(config.validation);
            let scorer = scorer(&config, self.answers()?, self.machine)?;
            let mut job = rl::run::RlJob::open(dir, config.clone(), scorer.clone(), false)?;
            job.common.validation = validation::rl(&config, &job.common, scorer, tasks.as_deref())?;
            (job.common.dir, job.only, job.common.data.kept) = (scratch, only, None);
            job.recorded = Some(dir.clone());
            return self.train(&mut job);
        }
        let mut config: SftConfig = config::load(Some(&file), &[], &env)?;
        (config.save_steps, config.save_seconds) = (save, None);
        config.training = training(config.training);
        config.validation = without_best(config.validation);
        let mut job = training::sft::SftJob::open(dir, config.clone(), false)?;
        job.common.validation = validation::sft(&config, &job.common, tasks.as_deref())?;
        // Nothing is written to the folder of the run, not even the data index.
        (job.common.dir, job.common.data.kept) = (scratch, None);
        self.train(&mut job)
    }

    /// Copies the recorded answers of judges to the scratch folder. In a recipe, all stages share one store of answers.
    fn answers(&self) -> Result<Arc<RunStore>> {
        let dir = self.run.recipe().unwrap_or(&self.run.dir);
        for path in files::entries(dir)? {
            let name = files::file_name(&path);
            if name.starts_with("answers") {
                std::fs::copy(&path, self.scratch.join(name)).map_err(Error::io(&path))?;
            }
        }
        Ok(RunStore::new(self.scratch))
    }

    fn train(&self, job: &mut dyn TrainingJob) -> Result<()> {
        let plan = job.plan(self.machine.target)?;
        let mut device = (self.machine.device)(&plan)?;
        self.run.same_arithmetic(&mut device)?;
        // The last step of a run ends normally, so that the model is written too.
        let last = if self.last < job.trainer_config().run.total_steps { Some(self.last) } else { None };
        let until = Until { inner: self.machine.observer, last, reached: AtomicBool::new(false) };
        match job.run(&mut device, &until) {
            Err(Error::Stopped) if !until.inner.stop_requested() => Ok(()),
            done => done,
        }
    }
}

/// Returns the scorer of an RL run, with recorded answers of its judge.
pub(super) fn scorer(config: &RlConfig, answers: Arc<RunStore>, machine: &Machine) -> Result<Arc<Scorer>> {
    let (reward, judge) = (&config.reward, config.judge.as_ref());
    let scorer = Scorer::new(reward.mode, judge, &reward.scorer, "reward", Some(answers), machine.runtime)?;
    Ok(Arc::new(scorer.with_programs(&config.rewards, "rewards")?))
}

/// Returns a validation that selects no checkpoint and does not end the run early. The step where the run ended is known.
fn without_best(validation: ValidationConfig) -> ValidationConfig {
    ValidationConfig {
        metric_for_best_model: None,
        early_stopping_patience: None,
        load_best_model_at_end: false,
        ..validation
    }
}

/// An observer that requests a stop after step `last`.
struct Until<'a> {
    inner: &'a dyn Observer,
    last: Option<u64>,
    reached: AtomicBool,
}

impl Observer for Until<'_> {
    fn begin(&self, name: &str, unit: &str, total: u64, done: u64) {
        self.inner.begin(name, unit, self.last.unwrap_or(total), done);
    }

    fn step(&self, done: u64, figures: &[(&str, f64)]) {
        if self.last.is_some_and(|last| done >= last) {
            self.reached.store(true, Ordering::Relaxed);
        }
        self.inner.step(done, figures);
    }

    fn end(&self) {
        self.inner.end();
    }

    // Messages about stopping and resuming are of no use in a comparison.
    fn note(&self, _: &str) {}

    fn stop_requested(&self) -> bool {
        self.reached.load(Ordering::Relaxed) || self.inner.stop_requested()
    }
}
