//! The part of a training run that SFT and RL share: the model and the optimizer in memory, checkpoints on disk, the
//! parameter update, and the final model.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::best;
use super::exchange::{Collector, Exchange, ExchangeMode, Reach};
use super::loading::Loaded;
use super::metrics::{Metrics, MetricsLog};
use super::reporters::Reporters;
use super::saving::{Saving, Snapshot, copy_with_stops};
use super::slow_rank::{RankTimes, SlowRank};
use super::timeline::{Activity, Timeline};
use super::trainer_config::{RunSetup, TrainerConfig};
use omr_base::config::InputKind;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::identity::{Inputs, Manifest, Writer};
use omr_base::observe::Observer;
use omr_data::text::missing_stops;
use omr_model::checkpoint::{Cadence, State, Store};
use omr_model::nn::{GradientSink, Grads, Model};
use omr_model::optim::{Optimizer, StepStats, learning_rate};
use omr_runtime::device::{Device, KernelVariant, Plan, Region};
use omr_runtime::ranks::{self, Ranks};
use omr_runtime::tensor::Tensor;

/// Training time since the last checkpoint above which a stop saves a checkpoint by default.
const MOST_REPEATED: Duration = Duration::from_secs(60);

/// Returns true if a stop saves a checkpoint. `asked` is the value of `save_on_stop`, if given; `since` is the time
/// since the last checkpoint.
fn saves_on_stop(asked: Option<bool>, since: Duration) -> bool {
    asked.unwrap_or(since > MOST_REPEATED)
}

/// Key of a checkpoint's `extra` for the number of consecutive skipped updates. Absent if the last update was not
/// skipped.
const SKIPPED: &str = "skipped_updates";

/// Message of a rank to the others at the end of a step.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct StepEnd {
    /// True if a checkpoint is due, by rank 0's clock.
    is_due: bool,
    /// True if the user has requested a stop.
    is_stopped: bool,
    times: RankTimes,
}

/// A model in training, with everything that SFT and RL need around it.
pub struct Trainer<'r> {
    /// The model. Only [`Trainer::update`] changes its weights.
    pub model: Model,
    /// The ranks of this run.
    pub ranks: &'r mut dyn Ranks,
    /// The exchange of gradients with the other ranks.
    exchange: Exchange,
    /// Number of updates done.
    pub step: u64,
    /// Number of samples (SFT) or prompts (RL) consumed.
    pub samples_consumed: u64,
    /// The run's metrics files.
    pub log: MetricsLog,
    /// The programs that send the metrics to services.
    pub reporters: Reporters,
    /// The spans of the current step.
    pub timeline: Timeline,
    slow_rank: SlowRank,
    /// Further values that the job stores in checkpoints.
    pub extra: Map<String, Value>,
    config: TrainerConfig,
    inputs: Inputs,
    optimizer: Optimizer,
    store: Store,
    cadence: Cadence,
    saved_step: Option<u64>,
    begun_at: u64,
    saving: Option<Saving>,
    /// Result of [`missing_stops`] for the initial model, once a model was written.
    stops: OnceLock<Option<Arc<[u32]>>>,
    /// True from the first update of a step until the step is logged. A step of RL may have several updates.
    is_updating: bool,
}

impl<'r> Trainer<'r> {
    /// Loads the newest intact checkpoint of the run, or the initial model, on every rank. `inputs` are the inputs that
    /// the run depends on; checkpoints record them. Errors if files are broken or if `resume` does not fit the run.
    pub fn open(
        ranks: &'r mut dyn Ranks,
        dev: &mut Device,
        config: TrainerConfig,
        inputs: Inputs,
        observer: &dyn Observer,
    ) -> Result<Trainer<'r>> {
        let leads = ranks.rank() == 0;
        let store = match leads {
            true => Store::open(&config.run.dir, config.retention())?,
            false => Store::of(&config.run.dir, config.retention()),
        };
        let Loaded { model, optimizer, checkpoint } = Loaded::open(ranks, dev, &store, &config, observer)?;
        // Ranks that have different amounts of memory exchange the same pieces.
        let whole_layers = !ranks.any("the memory for exchanges", &[!config.run.whole_layers])?[0];
        let mode = ExchangeMode { whole_layers, overlap: config.training.dist.overlap };
        let exchange = Exchange::new(&model.layout, ranks.rank(), ranks.size()).with(mode);
        // `None` if the checkpoint belongs to another run. The best step that such a checkpoint records is ignored.
        let saved_step = checkpoint.as_ref().filter(|(of, _)| store.has(of)).map(|(of, _)| of.step);
        let (mut step, mut samples_consumed, mut extra) = (0, 0, Map::new());
        if let Some((of, state)) = checkpoint {
            if saved_step.is_some() {
                state.check_arithmetic(&of.path)?;
            }
            let recorded = state.gpu_body.as_deref().and_then(KernelVariant::named);
            if let Some(variant) = recorded.filter(|variant| dev.follow_record(*variant)) {
                observer.note(&format!("matrix products use {}, as in the checkpoint's run", variant.name()));
            }
            let variant = dev.recorded_variant();
            if let Some(warning) = state.other_arithmetic(dev.kind().name(), dev.isa().chains(), variant.as_deref()) {
                observer.note(&warning);
            }
            state.newer().iter().for_each(|warning| observer.note(warning));
            (step, samples_consumed, extra) = (state.step, state.samples_consumed, state.extra);
            observer.note(&format!("continuing from step {step} of {}", config.run.total_steps));
            let same = state.seed == config.seed && state.inputs.agree(&inputs);
            // If the checkpoint belongs to this folder's run, its settings have already been compared key by key. The
            // hash is not compared then, because a newer version hashes more keys.
            let other = saved_step.is_none() && state.config_hash != State::hash_of(&config.config_text);
            if !same || other {
                observer.note(
                    "the checkpoint comes from a run with other settings, inputs or seed: results differ from that run",
                );
            }
        }
        ranks.same("the arithmetic", &dev.arithmetic())?;
        let log = leads.then(|| MetricsLog::open(&config.run.dir, step, &config.training.report_to)).transpose()?;
        let has_steps = ranks::first_finds(ranks, "steps so far", || log.as_ref().is_some_and(|log| log.has_steps))?;
        let log = log.unwrap_or_else(|| MetricsLog::elsewhere(step, has_steps));
        let reporters = Reporters::start(&config.run.dir, if leads { &config.training.report_to } else { &[] })?;
        let cadence = Cadence::new(config.save_steps, config.save_seconds)?;
        let best_is_gone = best::step(&extra).is_some_and(|best| !store.path(best).is_dir());
        if saved_step.is_none() || best_is_gone {
            best::forget(&mut extra);
        }
        if saved_step.is_some() && leads {
            store.settle(step, best::step(&extra))?;
        }
        let (begun_at, saving) = (step, None);
        Ok(Trainer {
            model,
            ranks,
            exchange,
            step,
            samples_consumed,
            log,
            reporters,
            timeline: Timeline::default(),
            slow_rank: SlowRank::default(),
            extra,
            config,
            inputs,
            optimizer,
            store,
            cadence,
            saved_step,
            begun_at,
            is_updating: false,
            saving,
            stops: OnceLock::new(),
        })
    }

    /// Returns true if this process writes the run's files.
    pub fn leads(&self) -> bool {
        self.ranks.rank() == 0
    }

    /// Allocates the gradients of this rank.
    pub fn new_grads(&self, dev: &mut Device) -> Result<Grads> {
        self.exchange.new_grads(dev, &self.model.layout, self.optimizer.own())
    }

    /// Computes the gradients of an update and adds them in the order of its micro-batches. `reaches` describes each
    /// micro-batch; rank r computes the micro-batches r, r + R, r + 2R and so on of R ranks by calling `compute` with the
    /// number of the micro-batch. Afterwards `grads` has the sums of the elements that this rank owns. If a rank was
    /// asked to stop, all ranks return [`Error::Stopped`] before the next micro-batch, and the update is dropped.
    pub fn gradients(
        &mut self,
        dev: &mut Device,
        grads: &mut Grads,
        reaches: &[Reach],
        mut compute: impl FnMut(&mut Device, &Model, &mut dyn GradientSink, usize) -> Result<()>,
    ) -> Result<()> {
        grads.zero(dev)?;
        let (rank, size) = (self.ranks.rank(), self.ranks.size());
        if size > 1 {
            // This list determines what the ranks send to one another, so they compare it once per update.
            self.ranks.same("the micro-batches of an update", &format!("{reaches:?}"))?;
        }
        for (round, reaches) in reaches.chunks(size).enumerate() {
            let stop = self.ranks.any("the next micro-batches", &[dev.check_stop().is_err()])?[0];
            if stop {
                return Err(Error::Stopped);
            }
            // Within a round, a rank that stopped would leave the others waiting for its gradients.
            let flag = if size > 1 { dev.take_stop_flag() } else { None };
            let mut collector = Collector::new(&self.exchange, self.ranks, grads, reaches).timed(&self.timeline);
            let done = match rank < reaches.len() {
                true => compute(dev, &self.model, &mut collector, round * size + rank),
                false => Ok(()),
            };
            let done = done.and_then(|()| collector.finish(dev));
            flag.into_iter().for_each(|flag| dev.set_stop_flag(flag));
            done?;
        }
        Ok(())
    }

    /// Sends `own` to all ranks and returns the values of all ranks, by rank.
    pub fn share<T: Serialize + DeserializeOwned>(&mut self, what: &'static str, own: &T) -> Result<Vec<T>> {
        let broken = |e: serde_json::Error| Error::Failed(format!("{what}: {e}"));
        let all = self.ranks.gather(what, &serde_json::to_vec(own).map_err(broken)?)?;
        all.iter().map(|bytes| serde_json::from_slice(bytes).map_err(broken)).collect()
    }

    /// Copies `figures` `[count * n]` between ranks. Before the call, each rank has the values of the micro-batches that
    /// it computed; after it, every rank has the values of all `count` micro-batches.
    pub fn share_figures(&mut self, dev: &mut Device, figures: Tensor, count: usize) -> Result<()> {
        let (n, size) = (figures.len() / count.max(1), self.ranks.size());
        let owned: Vec<(usize, Tensor)> = (0..count).map(|i| (i % size, figures.slice(i * n, (i + 1) * n))).collect();
        self.ranks.all_gather(dev, "metrics of all micro-batches", &owned)
    }

    /// Queues one update from `grads` and returns its learning rate. The host waits only for the last bytes of a
    /// checkpoint and for ranks that are connected over TCP. If the gradient norm or one of `losses` (f64) is not
    /// finite, the update changes nothing; [`Trainer::stats`] reports it.
    pub fn update(&mut self, dev: &mut Device, grads: &Grads, losses: Tensor) -> Result<f64> {
        let TrainerConfig { optimizer, warmup_steps, run: RunSetup { total_steps, .. }, .. } = &self.config;
        let lr = learning_rate(optimizer, *warmup_steps, self.step, *total_steps);
        self.is_updating = true;
        if let Some(saving) = &mut self.saving {
            self.timeline.host(Activity::Checkpoint, || {
                dev.finish_readback()?;
                saving.poll(self.ranks)
            })?;
        }
        self.timeline.queued(dev, Activity::Update, |dev| {
            self.optimizer.step_guarded(self.ranks, dev, &self.model.layout, grads, lr, Some(losses))
        })?;
        Ok(lr)
    }

    /// Waits for the last update and returns its statistics. An update whose loss or gradient norm is not finite has
    /// changed nothing: it is skipped on every rank, and `observer` receives a note. Errors if more than
    /// `max_skipped_updates` consecutive updates are skipped. `loss` is the loss of the current step and `what` is its
    /// name in messages.
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

    /// Gathers what the ranks need to know of each other at the end of a step. Clocks and signals differ between ranks:
    /// rank 0's clock decides when a checkpoint is due, and a signal at any rank stops all. Adds the `times` of the ranks
    /// to `metrics`; rank 0 reports a rank that has been slow for several steps.
    pub fn end_step(&mut self, times: RankTimes, metrics: &mut Metrics, observer: &dyn Observer) -> Result<StepEnd> {
        let kept = self.config.retention().always(self.step) || best::step(&self.extra) == Some(self.step);
        let is_due = self.leads() && (self.cadence.due(self.step) || kept);
        let all = self.share("the end of a step", &StepEnd { is_due, is_stopped: observer.stop_requested(), times })?;
        let times: Vec<RankTimes> = all.iter().map(|of| of.times).collect();
        let slow = if all.len() > 1 { self.slow_rank.step(&times, metrics) } else { None };
        if let Some((rank, what)) = slow.filter(|_| self.leads()) {
            let (step, name) = (self.step, self.ranks.name(rank));
            observer.note(&format!("step {step}: {name} is slower than the others, who wait for it: {what}"));
        }
        let (is_due, is_stopped) = (all[0].is_due, all.iter().any(|of| of.is_stopped));
        Ok(StepEnd { is_due, is_stopped, times: all[0].times })
    }

    /// Saves a checkpoint if one is due at this `end` of a step. Errors with [`Error::Stopped`] if the user has requested
    /// a stop.
    pub fn save_if_due(&mut self, dev: &mut Device, end: StepEnd) -> Result<()> {
        self.is_updating = false;
        if end.is_due {
            let timeline = self.timeline.clone();
            timeline.host(Activity::Checkpoint, || dev.range(format_args!("checkpoint"), |dev| self.save(dev)))?;
        }
        if end.is_stopped { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Ends a run that was asked to stop. An update in progress is dropped. The next start of the run repeats this
    /// update and all updates after the last checkpoint, with bitwise identical results. Saves a checkpoint of the last
    /// complete step if `save_on_stop` or the time since the last checkpoint requires it; otherwise it reports how many
    /// updates will be repeated.
    pub fn stop(&mut self, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let asked = saves_on_stop(self.config.training.save_on_stop, self.cadence.since());
        // A step is complete once it is logged.
        let save = ranks::first_finds(self.ranks, "the end of a stopped run", || asked)?
            && self.step == self.log.last_step
            && !self.is_updating
            && self.step > 0;
        if save {
            self.save(dev)?;
        }
        self.saved(dev)?;
        observer.end();
        if save {
            observer.note(&format!("checkpoint of step {} is in {}", self.step, self.config.run.dir.display()));
        } else {
            let (done, from) = (self.log.last_step, self.saved_step.unwrap_or(self.begun_at));
            let since = self.saved_step.map_or("the start".to_owned(), |step| format!("the checkpoint of step {step}"));
            let again = match done - from {
                0 => "no finished update is lost".to_owned(),
                updates => format!("the {updates} updates since {since} will be repeated"),
            };
            observer.note(&format!("stopped after step {done}: {again}"));
        }
        Err(Error::Stopped)
    }

    /// Returns the step of the newest checkpoint on disk, or 0 if there is none.
    pub fn step_on_disk(&self) -> Result<u64> {
        Ok(self.store.latest()?.map_or(0, |checkpoint| checkpoint.step))
    }

    /// Saves a checkpoint of the current step, unless that step already has one. On a GPU the checkpoint is written
    /// while the next steps run, and [`Trainer::saved`] waits for it.
    pub fn save(&mut self, dev: &mut Device) -> Result<()> {
        if self.saved_step == Some(self.step) {
            return Ok(());
        }
        self.saved(dev)?;
        let mut state = State { extra: self.extra.clone(), ..self.state(dev) };
        state.inputs.set(InputKind::Log.name(), self.log.settle()?);
        let layout = Arc::new(self.model.layout.clone());
        let own = self.optimizer.own();
        let model = match self.config.adapter()? {
            Some(mut adapter) => {
                adapter.base_weights = Some(self.inputs.base_weights());
                self.model.outgoing_adapters(&layout, &adapter, |id| self.optimizer.low_halves(id), own)
            }
            None => self.model.outgoing(&layout, layout.dtype, own),
        };
        let snapshot = Snapshot {
            model,
            optimizer: self.optimizer.outgoing(&layout),
            state,
            companions: self.config.run.model.clone(),
            images: self.config.training.images.clone(),
            stops: self.stops()?,
        };
        let best = best::step(&self.extra);
        self.saving = Saving::begin(self.ranks, dev, &self.store, best, snapshot)?;
        self.saved_step = Some(self.step);
        self.cadence.saved();
        Ok(())
    }

    /// Returns the end tokens of the written models, if the initial model's files lack one. Reads its tokenizer once. Only rank 0 writes the file.
    fn stops(&self) -> Result<Option<Arc<[u32]>>> {
        if let Some(known) = self.stops.get() {
            return Ok(known.clone());
        }
        let found = if self.leads() { missing_stops(&self.config.run.model)? } else { None };
        Ok(self.stops.get_or_init(|| found).clone())
    }

    /// Returns the state of the run (step, seed, device, versions) without the values in `extra`.
    pub fn state(&self, dev: &Device) -> State {
        State {
            step: self.step,
            samples_consumed: self.samples_consumed,
            seed: self.config.seed,
            config_hash: State::hash_of(&self.config.config_text),
            device: dev.kind().name().to_owned(),
            cpu_body: dev.isa().chains().to_owned(),
            gpu_body: dev.recorded_variant(),
            versions: State::versions(),
            inputs: self.inputs.clone(),
            extra: Map::new(),
        }
    }

    /// Waits until the last checkpoint is on disk. Returns its error if saving it has failed.
    pub fn saved(&mut self, dev: &mut Device) -> Result<()> {
        self.saving.take().map_or(Ok(()), |saving| saving.finish(self.ranks, dev))
    }

    /// Waits for the checkpoint in progress and returns `done`. Steps that fail after a checkpoint do not invalidate
    /// it. In a run of several ranks, a rank that failed does not wait, because it no longer takes part in collective
    /// calls; the checkpoint in progress is then lost and the previous one remains the newest.
    pub fn settle(&mut self, dev: &mut Device, done: Result<()>) -> Result<()> {
        if self.ranks.size() > 1 && done.as_ref().is_err_and(|error| !matches!(error, Error::Stopped)) {
            return done;
        }
        let saved = self.saved(dev);
        done.and(saved)
    }

    /// Writes the final model directory `DIR/model`, which appears only when it is complete. Only rank 0 writes it. With
    /// `load_best_model_at_end`, it is the model of the best checkpoint. Returns the step of the model.
    pub fn finish(&mut self, dev: &mut Device) -> Result<u64> {
        self.save(dev)?;
        self.saved(dev)?;
        let best =
            best::step(&self.extra).filter(|_| self.config.validation.load_best_model_at_end).unwrap_or(self.step);
        if !self.leads() {
            return Ok(best);
        }
        self.store.check_place()?;
        let (model, config) = (&self.model, &self.config);
        files::folder(config.run.dir.join("model"), |folder| {
            // The masters of adapters are divided among the ranks. The checkpoint has all of them.
            let written = if best == self.step && config.optimizer.lora.is_none() {
                let written = model.save(dev, folder, model.layout.dtype)?;
                copy_with_stops(&config.run.model, folder, &config.training.images, self.stops()?.as_deref())?;
                written
            } else {
                self.store.copy_model(best, folder)?;
                Vec::new()
            };
            Manifest::write_checked(folder, &Writer::alone(written))
        })?;
        Ok(best)
    }
}

/// Returns the peak memory of each region in bytes, as `summary.json` records it.
pub fn memory_summary(plan: &Plan) -> Value {
    let regions = Region::ALL.map(|region| (region.name(), plan.bytes(region)));
    regions.into_iter().chain([("total", plan.total())]).collect()
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
