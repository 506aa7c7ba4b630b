//! What SFT and RL share: model and optimizer in memory, checkpoints on disk, the update, the final model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::metrics::MetricsLog;
use super::saving::{Saving, Snapshot, copy_companions};
use crate::checkpoint::{Cadence, Resume, State, Store};
use crate::config::{Dtype, OptimConfig};
use crate::device::{Device, Plan, Region};
use crate::error::{Error, Result};
use crate::files;
use crate::model::{Grads, Model};
use crate::observe::Observer;
use crate::optim::{Optimizer, StepStats, learning_rate};
use crate::tensor::{DType, Tensor};

/// How a run trains and saves: the part of a config SFT and RL have in common.
#[derive(Clone, Debug)]
pub struct TrainerConfig {
    /// Run directory.
    pub dir: PathBuf,
    /// Model directory to start from.
    pub model: PathBuf,
    /// Storage of weights and activations.
    pub dtype: Dtype,
    /// Optimizer and schedule.
    pub optimizer: OptimConfig,
    /// Updates of the warm-up.
    pub warmup_steps: u64,
    /// Updates in all.
    pub total_steps: u64,
    /// Seed, recorded in checkpoints.
    pub seed: u64,
    /// The settings that decide results, recorded as a hash.
    pub config_text: String,
    /// Checkpoint every so many steps.
    pub save_steps: Option<u64>,
    /// Checkpoint every so many seconds.
    pub save_seconds: Option<f64>,
    /// Checkpoints kept.
    pub save_total_limit: usize,
    /// `auto`, `never` or a path.
    pub resume: String,
}

/// A model in training.
pub struct Trainer {
    /// The model; weights change only in [`Trainer::update`].
    pub model: Model,
    /// Updates done.
    pub step: u64,
    /// Samples or prompts consumed.
    pub samples_consumed: u64,
    /// The run's metrics files.
    pub log: MetricsLog,
    /// What the job keeps in checkpoints beside these.
    pub extra: Map<String, Value>,
    config: TrainerConfig,
    optimizer: Optimizer,
    store: Store,
    cadence: Cadence,
    saved_step: Option<u64>,
    saving: Option<Saving>,
}

impl Trainer {
    /// Loads the newest checkpoint of the run, or the model to start from. Errors when files are broken or
    /// `resume` does not fit.
    pub fn open(dev: &mut Device, config: TrainerConfig, observer: &dyn Observer) -> Result<Trainer> {
        let store = Store::open(&config.dir, config.save_total_limit)?;
        let checkpoint = store.resume(&Resume::from(config.resume.as_str()))?;
        let dir = checkpoint.as_ref().map_or(&config.model, |c| &c.path);
        let model = Model::load(dev, dir, DType::of(config.dtype, dev.kind()))?;
        let mut optimizer = Optimizer::new(dev, &model.layout, config.optimizer, config.seed)?;
        let (mut step, mut samples_consumed, mut extra) = (0, 0, Map::new());
        if let Some(checkpoint) = &checkpoint {
            let state = checkpoint.state()?;
            optimizer.load(dev, &model.layout, &checkpoint.trainer())?;
            if let Some(warning) = state.other_arithmetic(dev.kind().name(), &dev.chains()) {
                observer.note(&warning);
            }
            (step, samples_consumed, extra) = (state.step, state.samples_consumed, state.extra);
            observer.note(&format!("going on from step {step} of {}", config.total_steps));
            if state.seed != config.seed || state.config_hash != State::hash_of(&config.config_text) {
                observer.note(
                    "the checkpoint's run had other settings or another seed: this run is not that run continued",
                );
            }
        }
        let log = MetricsLog::open(&config.dir, step)?;
        let cadence = Cadence::new(config.save_steps, config.save_seconds)?;
        // A checkpoint of another run is not one of this folder.
        let saved_step = checkpoint.filter(|c| c.path.starts_with(&config.dir)).map(|c| c.step);
        let saving = None;
        Ok(Trainer { model, step, samples_consumed, log, extra, config, optimizer, store, cadence, saved_step, saving })
    }

    /// One update from `grads`, queued: nothing waits for it, a checkpoint's last bytes aside. Where the gradient norm or
    /// one of `losses` (f64) is not finite it changes nothing, which [`Trainer::stats`] tells. The learning rate it had.
    pub fn update(&mut self, dev: &mut Device, grads: &Grads, losses: Tensor) -> Result<f64> {
        let TrainerConfig { optimizer, warmup_steps, total_steps, .. } = &self.config;
        let lr = learning_rate(optimizer, *warmup_steps, self.step, *total_steps);
        dev.finish_readback()?;
        self.optimizer.step_guarded(dev, &self.model.layout, grads, lr, Some(losses))?;
        Ok(lr)
    }

    /// What the last update saw; waits for it. `loss` is what its step computed. Errors when that or the gradient norm is
    /// not finite; the update changed nothing then. The step it names is the one under way.
    pub fn stats(&self, dev: &mut Device, what: &str, loss: f64) -> Result<StepStats> {
        if !loss.is_finite() {
            return Err(Error::NonFinite { step: self.step + 1, what: what.to_owned() });
        }
        let stats = self.optimizer.stats(dev)?;
        if !stats.finite {
            return Err(Error::NonFinite { step: self.step + 1, what: "the gradient norm".to_owned() });
        }
        Ok(stats)
    }

    /// Saves a checkpoint when one is due, or when the user asked to stop; then errors with [`Error::Stopped`].
    pub fn save_if_due(&mut self, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let stop = observer.stop_requested();
        if stop || self.cadence.due(self.step) {
            dev.range(format_args!("checkpoint"), |dev| self.save(dev))?;
        }
        if stop && self.step < self.config.total_steps {
            self.saved(dev)?;
            observer.end();
            observer.note(&format!("checkpoint of step {} is in {}", self.step, self.config.dir.display()));
            return Err(Error::Stopped);
        }
        Ok(())
    }

    /// Saves a checkpoint of the present step, unless it has one. Where kernels run it is written beside the steps that
    /// follow, and [`Trainer::saved`] waits for it.
    pub fn save(&mut self, dev: &mut Device) -> Result<()> {
        if self.saved_step == Some(self.step) {
            return Ok(());
        }
        self.saved(dev)?;
        let state = State {
            step: self.step,
            samples_consumed: self.samples_consumed,
            seed: self.config.seed,
            config_hash: State::hash_of(&self.config.config_text),
            device: dev.kind().name().to_owned(),
            cpu_body: dev.chains(),
            versions: State::versions(),
            extra: self.extra.clone(),
        };
        let layout = Arc::new(self.model.layout.clone());
        let snapshot = Snapshot {
            model: self.model.outgoing(&layout, layout.dtype),
            optimizer: self.optimizer.outgoing(&layout),
            state,
            companions: self.config.model.clone(),
        };
        self.saving = Saving::begin(dev, self.store.clone(), snapshot)?;
        self.saved_step = Some(self.step);
        self.cadence.saved();
        Ok(())
    }

    /// Waits until the last checkpoint is on disk. Errors with what went wrong with it.
    pub fn saved(&mut self, dev: &mut Device) -> Result<()> {
        self.saving.take().map_or(Ok(()), |saving| saving.finish(dev))
    }

    /// What `done` says, once the checkpoint under way is on disk: steps that failed after it do not undo it.
    pub fn settle(&mut self, dev: &mut Device, done: Result<()>) -> Result<()> {
        let saved = self.saved(dev);
        done.and(saved)
    }

    /// Writes the final model directory `DIR/model`, whole.
    pub fn finish(&mut self, dev: &mut Device) -> Result<()> {
        self.save(dev)?;
        self.saved(dev)?;
        let (model, config) = (&self.model, &self.config);
        files::folder(config.dir.join("model"), |folder| {
            model.save(dev, folder, model.layout.dtype)?;
            copy_companions(&config.model, folder)
        })
    }
}

/// Peak bytes by region, as summaries record them.
pub fn memory_summary(plan: &Plan) -> Value {
    let mut out = Map::new();
    for region in Region::ALL {
        out.insert(region.name().to_owned(), plan.bytes(region).into());
    }
    out.insert("total".to_owned(), plan.total().into());
    Value::Object(out)
}

/// Seconds of a duration, for metrics.
pub fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
