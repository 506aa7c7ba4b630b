//! `omr replay`: computes steps of a run again and names the first thing that is not as it was recorded.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Context;
use crate::answers::RunStore;
use crate::checkpoint::{Checkpoint, Store};
use crate::config::{self, RecipeConfig, RlConfig, SftConfig};
use crate::device::{Body, Device};
use crate::error::{Error, Result};
use crate::eval::validation;
use crate::identity::{Manifest, Part};
use crate::observe::Observer;
use crate::rollout::file::{self, RolloutRow};
use crate::train::job::TrainingJob;
use crate::train::metrics::{self, Metrics};
use crate::{files, replay, rl, train};

/// Arguments of `omr replay`.
#[derive(clap::Args)]
#[command(
    after_help = "A step is computed from the newest checkpoint before it, or from the model the run began with, and all steps \
    up to it are compared: rollouts where rollouts/STEP.parquet is there, metrics but times, and weights where the run has a \
    checkpoint of the last. rollout_freq: 1 and keep_every: N keep what makes any step cheap to compute again.\n\
    Exit status: 0 all is as it was recorded, 1 something is not."
)]
pub struct Args {
    /// Run directory of omr sft or omr rl, or those in a recipe's
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// The step to compute again
    #[arg(long, value_name = "N", required_unless_present = "sample")]
    step: Option<u64>,
    /// Of the step, only this row of its rollouts (from 0), with the others of its prompt
    #[arg(long, value_name = "K", requires = "step")]
    rollout: Option<usize>,
    /// So many recorded steps, drawn at random
    #[arg(long, value_name = "M", conflicts_with_all = ["step", "rollout"], value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
}

/// Prints what is as it was recorded; errors with what is not.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let run = Recorded::open(&args.run)?;
    let steps = match (args.step, args.sample) {
        (Some(step), _) => vec![run.step(step)?],
        (None, sample) => drawn(run.steps.keys().copied().collect(), sample.unwrap_or(1) as usize),
    };
    let mut by_start: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for &step in &steps {
        by_start.entry(run.start(step).map_or(0, |from| from.step)).or_default().push(step);
    }
    let mut compared = Compared::default();
    for of in by_start.values() {
        let last = of.last().copied().unwrap_or_default();
        run.compare(context, last, args.rollout, &mut compared)?;
    }
    let named = steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let row = args.rollout.map_or(String::new(), |row| format!(", rollout {row}"));
    super::print(&format!("step {named}{row}: {compared} are as they were recorded\n"))
}

/// What was found to be as it was recorded.
#[derive(Default)]
struct Compared {
    steps: usize,
    rollouts: usize,
    weights: usize,
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Compared { steps, rollouts, weights } = self;
        let parts = [(steps, "metrics of", "steps"), (rollouts, "", "rollouts"), (weights, "weights of", "folders")];
        let said =
            parts.iter().filter(|part| *part.0 > 0).map(|(n, what, of)| format!("{what} {n} {of}").trim().to_owned());
        f.write_str(&said.collect::<Vec<_>>().join(", "))
    }
}

/// `count` of `steps`, ascending.
fn drawn(mut steps: Vec<u64>, count: usize) -> Vec<u64> {
    let order = RandomState::new();
    steps.sort_by_key(|step| order.hash_one(step));
    steps.truncate(count);
    steps.sort_unstable();
    steps
}

/// What a run has recorded.
struct Recorded {
    dir: PathBuf,
    steps: BTreeMap<u64, Metrics>,
    checkpoints: Vec<Checkpoint>,
    is_rl: bool,
}

impl Recorded {
    fn open(dir: &Path) -> Result<Recorded> {
        let (config, log) = (dir.join("config.yaml"), dir.join("metrics.jsonl"));
        if !config.is_file() || !log.is_file() {
            let inner =
                ["rl", "sft"].map(|name| dir.join(name)).into_iter().find(|inner| inner.join("config.yaml").is_file());
            let expected = "config.yaml and metrics.jsonl, as a run directory of omr sft or omr rl has them";
            let hint = inner.map_or(String::new(), |inner| inner.display().to_string());
            return Err(Error::input_hint(dir.display().to_string(), "no such files", expected, hint));
        }
        let step = |metrics: Metrics| Some((metrics.get("step")?.as_u64()?, metrics));
        let steps: BTreeMap<u64, Metrics> = metrics::read(&log)?.into_iter().filter_map(step).collect();
        if steps.is_empty() {
            return Err(Error::input(log.display().to_string(), "no step", "at least one that can be computed again"));
        }
        let text = files::read_to_string(&config).map_err(Error::io(&config))?;
        let is_rl = text.lines().any(|line| line.starts_with("train_files:"));
        Ok(Recorded { dir: dir.to_owned(), steps, checkpoints: Store::of(dir, 1).list()?, is_rl })
    }

    fn step(&self, step: u64) -> Result<u64> {
        if self.steps.contains_key(&step) {
            return Ok(step);
        }
        let last = self.steps.keys().last().copied().unwrap_or_default();
        Err(Error::input("--step", step.to_string(), format!("a recorded step, 1 to {last}")))
    }

    /// From where `step` is computed; none for the beginning.
    fn start(&self, step: u64) -> Option<&Checkpoint> {
        self.checkpoints.iter().rev().find(|checkpoint| checkpoint.step < step)
    }

    /// Computes the steps up to `last` again and compares them, or only the rollouts of the prompt that row `row` of the
    /// rollouts of `last` answers; adds to `compared`.
    fn compare(&self, context: &Context, last: u64, row: Option<usize>, compared: &mut Compared) -> Result<()> {
        let from = self.start(last);
        if let Some(from) = from {
            let manifest = Manifest::read(&from.path).map_err(differs)?;
            let check = |part| manifest.as_ref().map_or(Ok(()), |manifest| manifest.check(&from.path, part));
            check(Part::Settings).and_then(|()| check(Part::Tensors)).map_err(differs)?;
        } else if let Some(first) = self.steps.keys().next().filter(|first| **first > 1) {
            let found = format!("a run whose first step is {first} and no checkpoint before {last}");
            let expected = "a checkpoint to begin with: this run began from another one's";
            return Err(Error::input(self.dir.display().to_string(), found, expected));
        }
        let first = from.map_or(0, |from| from.step) + 1;
        let origin = from.map_or("the start".to_owned(), |from| format!("the checkpoint of step {}", from.step));
        context.say(&format!("steps {first} to {last}, from {origin}"));
        let scratch = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
        let again = Again { run: self, from, last, scratch: scratch.path(), context };
        if let Some(row) = row {
            let recorded = self.rollouts(last)?;
            let prompt = recorded.get(row).map(|row| row.prompt).ok_or_else(|| {
                Error::input("--rollout", row.to_string(), format!("a row of step {last}, 0 to {}", recorded.len() - 1))
            })?;
            again.compute(Some((last, prompt)))?;
            let recorded: Vec<RolloutRow> = recorded.into_iter().filter(|row| row.prompt == prompt).collect();
            compared.rollouts += recorded.len();
            return self.same_rollouts(last, &recorded, scratch.path());
        }
        again.compute(None)?;
        let computed = metrics::read(&scratch.path().join("metrics.jsonl"))?;
        for metrics in &computed {
            let step = metrics.get("step").and_then(serde_json::Value::as_u64).unwrap_or_default();
            if let Some(recorded) = file::read(&self.dir, step)? {
                self.same_rollouts(step, &recorded, scratch.path())?;
                compared.rollouts += recorded.len();
            }
            let recorded =
                self.steps.get(&step).ok_or_else(|| different(step, "computed, and not in metrics.jsonl"))?;
            replay::metrics(recorded, metrics).map_or(Ok(()), |what| Err(different(step, &what)))?;
            compared.steps += 1;
        }
        for (theirs, ours) in self.weights(last, scratch.path()) {
            let name = theirs.display();
            replay::tensors(&theirs, &ours)?.map_or(Ok(()), |what| Err(different(last, &format!("{name}: {what}"))))?;
            compared.weights += 1;
        }
        Ok(())
    }

    fn rollouts(&self, step: u64) -> Result<Vec<RolloutRow>> {
        let expected = "the rollouts of the step: rollout_freq says of which they are written";
        let missing = || Error::input(file::path(&self.dir, step).display().to_string(), "nothing", expected);
        file::read(&self.dir, step)?.filter(|rows| !rows.is_empty()).ok_or_else(missing)
    }

    fn same_rollouts(&self, step: u64, recorded: &[RolloutRow], scratch: &Path) -> Result<()> {
        let again = file::read(scratch, step)?.unwrap_or_default();
        replay::rollouts(recorded, &again).map_or(Ok(()), |what| Err(different(step, &what)))
    }

    /// Folders of the run with the weights after `step`, and what was computed of each.
    fn weights(&self, step: u64, scratch: &Path) -> Vec<(PathBuf, PathBuf)> {
        let checkpoint = format!("checkpoints/global_step_{step}");
        let both = [checkpoint.as_str(), "model"].map(|name| (self.dir.join(name), scratch.join(name)));
        both.into_iter().filter(|(theirs, ours)| theirs.is_dir() && ours.is_dir()).collect()
    }
}

fn differs(error: Error) -> Error {
    Error::Failed(error.to_string())
}

fn different(step: u64, what: &str) -> Error {
    Error::Failed(format!("step {step}: {what}"))
}

/// Steps of a run, computed again into a folder of their own.
struct Again<'a> {
    run: &'a Recorded,
    from: Option<&'a Checkpoint>,
    last: u64,
    scratch: &'a Path,
    context: &'a Context,
}

impl Again<'_> {
    /// With `only` (a step and a prompt), of that step the rollouts of that prompt alone.
    fn compute(&self, only: Option<(u64, u64)>) -> Result<()> {
        let (dir, scratch) = (&self.run.dir, self.scratch.to_owned());
        let file = dir.join("config.yaml");
        let resume = self.from.map_or("never".to_owned(), |from| from.path.display().to_string());
        let env = |name: &str| std::env::var(name).ok();
        // A recipe has its tasks beside its runs.
        let tasks = self.recipe().map(|recipe| recipe.join("data"));
        // To compare it with the run's.
        let weighs = self.run.checkpoints.iter().any(|checkpoint| checkpoint.step == self.last) && only.is_none();
        let save = weighs.then_some(self.last);
        if self.run.is_rl {
            let mut config: RlConfig = config::load(Some(&file), &[], &env)?;
            (config.resume, config.save_freq, config.save_seconds) = (resume, save, None);
            (config.keep_every, config.save_on_stop, config.rollout_freq) = (None, Some(false), Some(1));
            config.validation.metric_for_best_model = None;
            let (reward, store) = (config.reward.scorer(), Some(self.answers()?));
            let scorer = self.context.scorer(config.reward.mode, config.judge.as_ref(), (&reward, "reward"), store)?;
            let mut job = rl::run::Job::open(dir, config.clone(), scorer.clone(), false)?;
            job.common.validation = validation::rl(&config, &job.common.model, scorer, tasks.as_deref())?;
            (job.common.dir, job.only, job.common.data.kept) = (scratch, only, None);
            job.recorded = Some(dir.clone());
            return self.train(&mut job);
        }
        let mut config: SftConfig = config::load(Some(&file), &[], &env)?;
        (config.resume, config.save_steps, config.save_seconds) = (resume, save, None);
        (config.keep_every, config.save_on_stop) = (None, Some(false));
        config.validation.metric_for_best_model = None;
        let mut job = train::sft::Job::open(dir, config.clone(), false)?;
        job.common.validation = validation::sft(&config, &job.common.model, tasks.as_deref())?;
        // Nothing is kept in the run's folder, its index neither.
        (job.common.dir, job.common.data.kept) = (scratch, None);
        self.train(&mut job)
    }

    /// The recipe that the run is a stage of.
    fn recipe(&self) -> Option<&Path> {
        let parent = self.run.dir.parent()?;
        config::load::<RecipeConfig>(Some(&parent.join("config.yaml")), &[], &|_| None).ok().map(|_| parent)
    }

    /// A copy of what judges said in the run; a recipe keeps that of all its stages together.
    fn answers(&self) -> Result<Arc<RunStore>> {
        let dir = self.recipe().unwrap_or(&self.run.dir);
        for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
            let path = entry.map_err(Error::io(dir))?.path();
            let name = path.file_name().unwrap_or_default();
            if name.to_string_lossy().starts_with("answers") {
                std::fs::copy(&path, self.scratch.join(name)).map_err(Error::io(&path))?;
            }
        }
        Ok(RunStore::new(self.scratch))
    }

    fn train(&self, job: &mut dyn TrainingJob) -> Result<()> {
        let plan = job.plan(self.context.target())?;
        let mut device = self.context.device(&plan)?;
        self.run.same_arithmetic(&mut device)?;
        // The last step of all ends the run as it ended, with its model.
        let last = if self.last < job.trainer_config().total_steps { Some(self.last) } else { None };
        let until = Until { inner: self.context.observer(), last, reached: AtomicBool::new(false) };
        match job.run(&mut device, &until) {
            Err(Error::Stopped) if !until.inner.stop_requested() => Ok(()),
            done => done,
        }
    }
}

impl Recorded {
    /// Errors where the run was computed by another kind of device or by another arithmetic than `device` has.
    fn same_arithmetic(&self, device: &mut Device) -> Result<()> {
        for checkpoint in &self.checkpoints {
            let state = checkpoint.state()?;
            if let Some(body) = state.gpu_body.as_deref().and_then(Body::named) {
                // What cannot be used is named below.
                let _ = device.use_body(body);
            }
            let body = device.body().map(Body::recorded);
            if let Some(other) = state.other_arithmetic(device.kind().name(), device.isa().chains(), body) {
                let expected = "the device, the bodies and the version that made it: nothing is compared";
                return Err(Error::input(checkpoint.path.display().to_string(), other, expected));
            }
        }
        Ok(())
    }
}

/// Asks the job to stop after a step.
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

    // That it stops, and where it could go on, is nothing to whoever asked for a comparison.
    fn note(&self, _: &str) {}

    fn stop_requested(&self) -> bool {
        self.reached.load(Ordering::Relaxed) || self.inner.stop_requested()
    }
}
