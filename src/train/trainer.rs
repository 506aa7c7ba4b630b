//! What SFT and RL share: model and optimizer in memory, checkpoints on disk, the update, the final model.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::lanes::Lanes;
use super::loading::Loaded;
use super::metrics::{Metrics, MetricsLog};
use super::saving::{Saving, Snapshot, copy_companions};
use super::trainer_config::TrainerConfig;
use crate::checkpoint::{Cadence, State, Store};
use crate::config::Changed;
use crate::device::{Body, Device, Plan, Region};
use crate::error::{Error, Result};
use crate::files;
use crate::identity::{Inputs, Manifest};
use crate::model::{Grads, Model};
use crate::observe::Observer;
use crate::optim::{Optimizer, StepStats, learning_rate};
use crate::ranks::{self, Ranks, Shards};
use crate::tensor::Tensor;

/// What a stop may cost before it saves a checkpoint by itself.
const MOST_REPEATED: Duration = Duration::from_secs(60);

/// Whether a stop saves the steps of so much time, as `asked` for in a config.
fn saves_on_stop(asked: Option<bool>, since: Duration) -> bool {
    asked.unwrap_or(since > MOST_REPEATED)
}

/// What checkpoints keep of the best one, as the Hugging Face trainer's state names it.
const METRIC_FOR_BEST: &str = "metric_for_best_model";
const BEST_METRIC: &str = "best_metric";
const BEST_STEP: &str = "best_global_step";

/// What checkpoints keep of updates that were skipped: how many in a row, nothing where the last was not.
const SKIPPED: &str = "skipped_updates";

/// A model in training.
pub struct Trainer<'r> {
    /// The model; weights change only in [`Trainer::update`].
    pub model: Model,
    /// Those who train it.
    pub ranks: &'r mut dyn Ranks,
    /// What an update's gradients are summed in.
    pub lanes: Lanes,
    /// Updates done.
    pub step: u64,
    /// Samples or prompts consumed.
    pub samples_consumed: u64,
    /// The run's metrics files.
    pub log: MetricsLog,
    /// What the job keeps in checkpoints beside these.
    pub extra: Map<String, Value>,
    config: TrainerConfig,
    inputs: Inputs,
    optimizer: Optimizer,
    store: Store,
    cadence: Cadence,
    saved_step: Option<u64>,
    begun_at: u64,
    saving: Option<Saving>,
}

impl<'r> Trainer<'r> {
    /// Loads the newest whole checkpoint of the run, or the model to start from, at each of `ranks`; the run depends on
    /// `inputs`. Errors when files are broken or `resume` does not fit.
    pub fn open(
        ranks: &'r mut dyn Ranks,
        dev: &mut Device,
        config: TrainerConfig,
        inputs: Inputs,
        observer: &dyn Observer,
    ) -> Result<Trainer<'r>> {
        let leads = ranks.rank() == 0;
        let store = match leads {
            true => Store::open(&config.dir, config.keep)?,
            false => Store::of(&config.dir, config.keep),
        };
        let Loaded { model, optimizer, checkpoint } = Loaded::open(ranks, dev, &store, &config, observer)?;
        let lanes = Lanes::new(config.lanes, ranks, &Shards::new(&model.layout.lens(), ranks.size()))?;
        // A checkpoint of another run is not one of this folder, nor is that run's best.
        let saved_step = checkpoint.as_ref().filter(|(of, _)| store.has(of)).map(|(of, _)| of.step);
        let (mut step, mut samples_consumed, mut extra) = (0, 0, Map::new());
        if let Some((_, state)) = checkpoint {
            let recorded = state.gpu_body.as_deref().and_then(Body::named);
            if let Some(body) = recorded.filter(|body| dev.body().is_some_and(|now| now != *body))
                && dev.use_body(body).is_ok()
            {
                observer.note(&format!("matrix products run by {}, as the checkpoint's did", body.name()));
            }
            let body = dev.body().map(Body::recorded);
            if let Some(warning) = state.other_arithmetic(dev.kind().name(), dev.isa().chains(), body) {
                observer.note(&warning);
            }
            state.newer().iter().for_each(|warning| observer.note(warning));
            (step, samples_consumed, extra) = (state.step, state.samples_consumed, state.extra);
            observer.note(&format!("going on from step {step} of {}", config.total_steps));
            let same = state.seed == config.seed && state.inputs.agree(&inputs);
            // The settings of this folder's own run were compared key by key; a newer version's hash has more keys.
            let other = saved_step.is_none() && state.config_hash != State::hash_of(&config.config_text);
            if !same || other {
                observer.note(
                    "the checkpoint's run had other settings, other inputs or another seed: this run is not that run continued",
                );
            }
        }
        let body = dev.body().map_or(dev.isa().chains(), |body| body.recorded());
        ranks.same("the arithmetic", &format!("{} {body}", dev.kind().name()))?;
        let log = leads.then(|| MetricsLog::open(&config.dir, step)).transpose()?;
        let has_steps = ranks::first_finds(ranks, "steps so far", || log.as_ref().is_some_and(MetricsLog::has_steps))?;
        let log = log.unwrap_or_else(|| MetricsLog::elsewhere(step, has_steps));
        let cadence = Cadence::new(config.save_steps, config.save_seconds)?;
        if saved_step.is_none() {
            extra.retain(|name, _| ![METRIC_FOR_BEST, BEST_METRIC, BEST_STEP].contains(&name.as_str()));
        }
        let (begun_at, saving) = (step, None);
        Ok(Trainer {
            model,
            ranks,
            lanes,
            step,
            samples_consumed,
            log,
            extra,
            config,
            inputs,
            optimizer,
            store,
            cadence,
            saved_step,
            begun_at,
            saving,
        })
    }

    /// Whether this process writes the run's files.
    pub fn leads(&self) -> bool {
        self.ranks.rank() == 0
    }

    /// [`Lanes::add`] of what this rank has done in `round`, which is given back. Errors with [`Error::Stopped`] at every rank
    /// where one was asked to stop; the update is dropped then.
    pub fn add_lanes<T>(&mut self, dev: &mut Device, grads: &mut Grads, round: usize, done: Result<T>) -> Result<T> {
        let done = self.agreed("a lane's end", done)?;
        self.lanes.add(dev, self.ranks, grads, round)?;
        Ok(done)
    }

    /// What each rank says of itself, by rank.
    pub fn share<T: Serialize + DeserializeOwned>(&mut self, what: &'static str, own: &T) -> Result<Vec<T>> {
        let broken = |e: serde_json::Error| Error::Failed(format!("{what}: {e}"));
        let all = self.ranks.gather(what, &serde_json::to_vec(own).map_err(broken)?)?;
        all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(broken)).collect()
    }

    /// `figures` `[lanes * n]`, of which each rank has computed those of its lanes: at each rank as they were computed.
    pub fn share_figures(&mut self, dev: &mut Device, figures: Tensor) -> Result<()> {
        let n = figures.len() / self.lanes.count();
        let owners = self.lanes.owners().enumerate();
        let owned: Vec<(usize, Tensor)> =
            owners.map(|(lane, rank)| (rank, figures.slice(lane * n, (lane + 1) * n))).collect();
        self.ranks.all_gather(dev, "figures of lanes", &owned)
    }

    /// [`ranks::agreed`] with the other ranks.
    pub fn agreed<T>(&mut self, what: &'static str, done: Result<T>) -> Result<T> {
        ranks::agreed(self.ranks, what, done)
    }

    /// One update from `grads`, queued: nothing waits for it, a checkpoint's last bytes and ranks over TCP aside. Where the gradient norm or
    /// one of `losses` (f64) is not finite it changes nothing, which [`Trainer::stats`] tells. The learning rate it had.
    pub fn update(&mut self, dev: &mut Device, grads: &Grads, losses: Tensor) -> Result<f64> {
        let TrainerConfig { optimizer, warmup_steps, total_steps, .. } = &self.config;
        let lr = learning_rate(optimizer, *warmup_steps, self.step, *total_steps);
        dev.finish_readback()?;
        self.saving.as_mut().map_or(Ok(()), |saving| saving.poll(self.ranks))?;
        self.optimizer.step_guarded(self.ranks, dev, &self.model.layout, grads, lr, Some(losses))?;
        Ok(lr)
    }

    /// What the last update saw; waits for it. One whose loss or gradient norm is not finite changed nothing: it is skipped, at
    /// every rank, and `observer` hears of it. Errors when more than `max_skipped_updates` in a row are. `loss` is what the step
    /// under way computed, `what` its name.
    pub fn stats(&mut self, dev: &mut Device, what: &str, loss: f64, observer: &dyn Observer) -> Result<StepStats> {
        let stats = self.optimizer.stats(dev)?;
        if stats.finite {
            self.extra.remove(SKIPPED);
            return Ok(stats);
        }
        let skipped = 1 + self.extra.get(SKIPPED).and_then(Value::as_u64).unwrap_or(0);
        let (step, most) = (self.step + 1, self.config.optimizer.max_skipped_updates);
        let what = if loss.is_finite() { "the gradient norm" } else { what };
        if skipped > most {
            return Err(Error::NonFinite { step, what: what.to_owned() });
        }
        observer.note(&format!(
            "step {step}: {what} is not finite; the update is skipped ({skipped} in a row, at most {most})"
        ));
        self.extra.insert(SKIPPED.to_owned(), skipped.into());
        Ok(stats)
    }

    /// Takes down that the model of this step has `value` as its `metric`. The checkpoint of a step that has the highest so
    /// far is saved when one may be, and kept; among equals the first.
    pub fn measured(&mut self, metric: &str, value: f64) {
        let same = self.extra.get(METRIC_FOR_BEST).and_then(Value::as_str) == Some(metric);
        if same && self.extra.get(BEST_METRIC).and_then(Value::as_f64).is_some_and(|best| value <= best) {
            return;
        }
        self.extra.insert(METRIC_FOR_BEST.to_owned(), metric.into());
        self.extra.insert(BEST_METRIC.to_owned(), value.into());
        self.extra.insert(BEST_STEP.to_owned(), self.step.into());
    }

    /// What the best checkpoint so far is, in the words of the Hugging Face trainer; nothing where none is looked for.
    pub fn best(&self) -> Metrics {
        let of = |name: &str| Some((name.to_owned(), self.extra.get(name)?.clone()));
        [METRIC_FOR_BEST, BEST_METRIC, BEST_STEP].into_iter().filter_map(of).collect()
    }

    fn best_step(&self) -> Option<u64> {
        self.extra.get(BEST_STEP).and_then(Value::as_u64)
    }

    /// Saves a checkpoint when one is due. Errors with [`Error::Stopped`] when the user asked to stop. Clocks and signals
    /// differ from rank to rank: rank 0's clock counts, and any rank's signal.
    pub fn save_if_due(&mut self, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let kept = self.config.keep.always(self.step) || self.best_step() == Some(self.step);
        let due = self.leads() && (self.cadence.due(self.step) || kept);
        let flags = self.ranks.any("the end of a step", &[due, observer.stop_requested()])?;
        if flags[0] {
            dev.range(format_args!("checkpoint"), |dev| self.save(dev))?;
        }
        if flags[1] { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Ends a run that is asked to stop. An update in progress is dropped: the next run repeats it, and what came after the
    /// last checkpoint, in the same bits. Saves the last step that is whole where `save_on_stop` or their time wants it, says what
    /// will be repeated elsewhere.
    pub fn stop(&mut self, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let asked = saves_on_stop(self.config.save_on_stop, self.cadence.since());
        // A step is whole once it is logged.
        let save = ranks::first_finds(self.ranks, "the end of a stopped run", || asked)?
            && self.step == self.log.last_step()
            && self.step > 0;
        if save {
            self.save(dev)?;
        }
        self.saved(dev)?;
        observer.end();
        if save {
            observer.note(&format!("checkpoint of step {} is in {}", self.step, self.config.dir.display()));
        } else {
            let (done, from) = (self.log.last_step(), self.saved_step.unwrap_or(self.begun_at));
            let since = self.saved_step.map_or("the start".to_owned(), |step| format!("the checkpoint of step {step}"));
            observer.note(&format!(
                "stopped after step {done}: the {} updates since {since} will be repeated",
                done - from
            ));
        }
        Err(Error::Stopped)
    }

    /// The step of the newest checkpoint that is on disk, 0 with none.
    pub fn step_on_disk(&self) -> Result<u64> {
        Ok(self.store.latest()?.map_or(0, |checkpoint| checkpoint.step))
    }

    /// Saves a checkpoint of the present step, unless it has one. Where kernels run it is written beside the steps that
    /// follow, and [`Trainer::saved`] waits for it.
    pub fn save(&mut self, dev: &mut Device) -> Result<()> {
        if self.saved_step == Some(self.step) {
            return Ok(());
        }
        self.saved(dev)?;
        let mut state = State { extra: self.extra.clone(), ..self.state(dev) };
        state.inputs.set(Changed::Log.name(), self.log.settle()?);
        let layout = Arc::new(self.model.layout.clone());
        let snapshot = Snapshot {
            model: self.model.outgoing(&layout, layout.dtype, self.optimizer.own()),
            optimizer: self.optimizer.outgoing(&layout),
            state,
            companions: self.config.model.clone(),
        };
        let best = self.best_step();
        self.saving = Saving::begin(self.ranks, dev, &self.store, best, snapshot)?;
        self.saved_step = Some(self.step);
        self.cadence.saved();
        Ok(())
    }

    /// Where the run stands and how it computes, without what the job keeps.
    pub fn state(&self, dev: &Device) -> State {
        State {
            step: self.step,
            samples_consumed: self.samples_consumed,
            seed: self.config.seed,
            config_hash: State::hash_of(&self.config.config_text),
            device: dev.kind().name().to_owned(),
            cpu_body: dev.isa().chains().to_owned(),
            gpu_body: dev.body().map(|body| body.recorded().to_owned()),
            versions: State::versions(),
            inputs: self.inputs.clone(),
            extra: Map::new(),
        }
    }

    /// Waits until the last checkpoint is on disk. Errors with what went wrong with it.
    pub fn saved(&mut self, dev: &mut Device) -> Result<()> {
        self.saving.take().map_or(Ok(()), |saving| saving.finish(self.ranks, dev))
    }

    /// What `done` says, once the checkpoint under way is on disk: steps that failed after it do not undo it. Of several
    /// ranks one that failed does not meet the others again, and the checkpoint before that one is the last.
    pub fn settle(&mut self, dev: &mut Device, done: Result<()>) -> Result<()> {
        if self.ranks.size() > 1 && done.as_ref().is_err_and(|error| !matches!(error, Error::Stopped)) {
            return done;
        }
        let saved = self.saved(dev);
        done.and(saved)
    }

    /// Writes the final model directory `DIR/model`, whole; rank 0 does.
    pub fn finish(&mut self, dev: &mut Device) -> Result<()> {
        self.save(dev)?;
        self.saved(dev)?;
        if !self.leads() {
            return Ok(());
        }
        let (model, config) = (&self.model, &self.config);
        files::folder(config.dir.join("model"), |folder| {
            model.save(dev, folder, model.layout.dtype)?;
            copy_companions(&config.model, folder)?;
            Manifest::write(folder)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_that_would_cost_more_than_a_minute_saves() {
        let [short, long] = [59, 61].map(Duration::from_secs);
        assert!(!saves_on_stop(None, short) && saves_on_stop(None, long));
        assert!(saves_on_stop(Some(true), short) && !saves_on_stop(Some(false), long));
    }
}
