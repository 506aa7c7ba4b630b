//! The part of a training job that SFT and RL share: the initial model, the run around the steps, and the summary at
//! the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::broken::Broken;
use super::levels::Ladder;
use super::metrics::{self, Metrics};
use super::plan::Planned;
use super::timeline::{Activity, SPANS};
use super::trainer::{Trainer, memory_summary};
use super::trainer_config::{RunSetup, TrainerConfig};
use super::validation::Validation;
use super::{best, record};
use omr_base::config::{Dtype, ImageConfig, MicroBatchTokens, OptimConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_base::{files, identity};
use omr_data::rows::index::held_out::split_off;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Dataset, Encoder, Index, Row};
use omr_model::nn::{ModelConfig, family};
use omr_model::optim::check_adapter;
use omr_runtime::device::{Device, Plan, Target};
use omr_runtime::ranks::{self, OneRank, Ranks};
use omr_runtime::tensor::DType;

/// Key of the summary for the step of the final model.
const MODEL_STEP: &str = "model_global_step";

/// The model that a run starts from, with the encoder that turns rows into samples for it.
pub struct Start {
    /// Model directory.
    pub model: PathBuf,
    /// Model configuration.
    pub config: ModelConfig,
    /// Tokenizer, chat template and image processor of the model.
    pub encoder: Encoder,
}

impl Start {
    /// Reads everything except the weights from the directory `model`. The encoder prepares rows for `purpose`. `images` are the
    /// settings of images, and `optimizer` has the storage of a frozen base. Errors if the key `model` names no
    /// model directory.
    pub fn open(
        model: Option<&Path>,
        purpose: EncodingPurpose,
        images: &ImageConfig,
        optimizer: &OptimConfig,
    ) -> Result<Start> {
        let model = Start::directory(model)?;
        let config = ModelConfig::load(&model.join("config.json"))?.quantized(optimizer.quantization.as_ref())?;
        let encoder = Encoder::load(model, &config.chat(), purpose, images)?;
        check_adapter(model, &config, optimizer)?;
        Ok(Start { model: model.to_owned(), config, encoder })
    }

    /// Returns the directory `model`. Errors if the key `model` is missing or names no directory.
    pub fn directory(model: Option<&Path>) -> Result<&Path> {
        let Some(model) = model else {
            return Err(Error::input("model", "nothing", "a model directory to start training from"));
        };
        if model.is_dir() { Ok(model) } else { Err(family::not_a_directory("model", model)) }
    }
}

/// The state that a fine-tuning job and an RL job have in common.
pub struct JobCommon {
    /// Run directory.
    pub dir: PathBuf,
    /// Directory of the initial model.
    pub model: PathBuf,
    /// Model configuration.
    pub model_config: ModelConfig,
    /// The data sets.
    pub data: Dataset,
    /// Rows that `val_size` has split off. They are not trained on.
    pub held_out: Vec<Row>,
    /// Sizes of the rows, for the memory plan.
    pub index: Arc<Index>,
    /// Label under which progress is reported.
    pub label: String,
    /// Validation during training, if there is any.
    pub validation: Option<Validation>,
    /// Rank of this process and number of ranks.
    pub ranks: OneRank,
    /// Total number of steps: updates in SFT, generation batches in RL.
    pub total_steps: u64,
    /// Activation checkpointing policies of the training passes, chosen by [`TrainingJob::plan`].
    pub ladder: Ladder,
    /// True if the plan has the memory to exchange each decoder layer at once.
    pub whole_layers: bool,
}

impl JobCommon {
    /// Creates a job of one process, in `dir`, that starts from `model` and trains on `data`, from which `val_size` rows
    /// are split off.
    pub fn new(
        dir: &Path,
        label: &str,
        model: PathBuf,
        model_config: ModelConfig,
        mut data: Dataset,
        val_size: Option<f64>,
    ) -> Result<JobCommon> {
        let held_out = val_size.map(|size| split_off(&mut data, size)).transpose()?.unwrap_or_default();
        Ok(JobCommon {
            dir: dir.to_owned(),
            model,
            model_config,
            index: data.index.clone(),
            data,
            held_out,
            label: label.to_owned(),
            validation: None,
            ranks: OneRank::ALONE,
            total_steps: 0,
            ladder: Ladder::default(),
            whole_layers: false,
        })
    }

    /// Stores the choices of `planned`, and returns its memory with that of the validation added; see
    /// [`Validation::plan`]. If the remaining memory suffices, each decoder layer is exchanged at once.
    pub fn complete_plan(
        &mut self,
        planned: &Planned,
        dtype: Dtype,
        optimizer: &OptimConfig,
        target: Target,
        lower: &str,
    ) -> Result<Plan> {
        let dtype = DType::of(dtype, target.kind);
        let memory = match &mut self.validation {
            Some(validation) => validation.plan(planned, &self.model_config, dtype, optimizer, target, lower)?,
            None => planned.memory,
        };
        let wide = planned.with_whole_layers(&memory);
        (self.ladder, self.whole_layers) = (planned.ladder.clone(), wide.is_some());
        Ok(wide.unwrap_or(memory))
    }

    /// Returns the properties of the run that a trainer needs.
    pub fn run_setup(&self) -> RunSetup {
        let validation = self.validation.as_ref();
        RunSetup {
            dir: self.dir.clone(),
            model: self.model.clone(),
            total_steps: self.total_steps,
            whole_layers: self.whole_layers,
            val_images: validation.map(Validation::images).unwrap_or_default(),
            val_task_files: validation.map(Validation::task_files).unwrap_or_default(),
        }
    }

    /// Writes the row index once for all ranks, and returns the rows that the run does not use.
    pub fn open_rows<'a>(
        &'a self,
        trainer: &mut Trainer<'_>,
        max_bad_rows: f64,
        observer: &'a dyn Observer,
    ) -> Result<Broken<'a>> {
        ranks::by_first(trainer.ranks, "the index of the rows", || self.data.keep(observer))?;
        self.data.record_images()?;
        Broken::new(&self.dir, &self.data, max_bad_rows, &trainer.extra, trainer.leads(), observer)
    }

    /// Validates before the first step if the job is configured to; see [`Validation::before`].
    pub fn validate_before(&self, dev: &mut Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<()> {
        let total_steps = self.total_steps;
        self.validation.as_ref().map_or(Ok(()), |validation| validation.before(dev, trainer, total_steps, observer))
    }

    /// Returns true if the run has another step: it has not made all steps, and its validation has not ended it early.
    pub fn goes_on(&self, trainer: &Trainer<'_>) -> bool {
        trainer.step < self.total_steps && !self.is_over(&trainer.extra)
    }

    fn is_over(&self, state: &Metrics) -> bool {
        self.validation.as_ref().is_some_and(|validation| validation.is_over(state))
    }

    /// Ends the current step: adds its spans and the times of the ranks to `metrics`, validates, displays `figures`, logs
    /// `metrics` and saves a checkpoint. Validation and checkpoint happen only if they are due.
    pub fn end_step(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        mut metrics: Metrics,
        figures: &[(&'static str, f64)],
        observer: &dyn Observer,
    ) -> Result<()> {
        let waits = trainer.ranks.waits();
        trainer.timeline.add(Activity::Exchange, waits);
        let (spans, times) = trainer.timeline.end(dev)?;
        metrics.insert(SPANS.to_owned(), spans);
        if let Some(validation) = &self.validation {
            validation.after(dev, trainer, self.total_steps, observer, &mut metrics)?;
        }
        // An observer may request a stop at this step.
        observer.step(trainer.step, figures);
        let end = trainer.end_step(times, &mut metrics, observer)?;
        trainer.log.append(&metrics)?;
        trainer.reporters.check(observer);
        trainer.save_if_due(dev, end)
    }
}

/// A run that trains a model: SFT or RL.
pub trait TrainingJob {
    /// Returns the state that SFT and RL have in common.
    fn common(&self) -> &JobCommon;

    /// Returns the size of micro-batches of fine-tuning, which the job may have chosen.
    fn micro_batch_tokens(&self) -> Option<MicroBatchTokens> {
        None
    }

    /// Returns the settings that control training and saving.
    fn trainer_config(&self) -> TrainerConfig;

    /// Returns the bytes that each region needs. If `target` or `max_memory_gib` limits the memory, this chooses the
    /// activation checkpointing policy with the least recomputation that fits. Errors if no policy fits.
    fn plan(&mut self, target: Target) -> Result<Plan>;

    /// Runs the remaining steps. A signal that requests a stop ends them with [`Error::Stopped`].
    fn steps(&self, dev: &mut Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<()>;

    /// Returns the entries that this job adds to the summary, after `steps` and before the peak memory. `log` contains
    /// every step once.
    fn summary(&self, trainer: &Trainer, log: &[Metrics], observer: &dyn Observer) -> Metrics;

    /// Errors, on every rank, unless all ranks have the same rows and the same initial model. One rank of each host reads
    /// the model for this.
    fn same_at(&self, ranks: &mut dyn Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        ranks.same("the rows", &self.common().data.hash())?;
        let model = if ranks.leads_host() { identity::of(&self.common().model)? } else { String::new() };
        ranks.same("the model", &model)
    }

    /// Returns true if the run is finished.
    fn is_finished(&self) -> bool {
        let common = self.common();
        let is_last = |(steps, summary): (u64, Metrics)| steps >= common.total_steps || common.is_over(&summary);
        finished(&common.dir).is_some_and(is_last)
    }

    /// Trains to the end, or until the next signal, which ends the run with [`Error::Stopped`]. Writes checkpoints,
    /// `metrics.jsonl`, `model/` and `summary.json` to the run directory.
    fn run(&self, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let mut alone = OneRank::ALONE;
        self.run_over(&mut alone, dev, observer)
    }

    /// Does the same as [`TrainingJob::run`] for a process that is one of `ranks`. Only rank 0 writes the run's files,
    /// except for the parts of a checkpoint that the other ranks own.
    fn run_over(&self, ranks: &mut dyn Ranks, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let config = self.trainer_config();
        let dir = config.run.dir.clone();
        let inputs = record::open(ranks, &config, &self.common().data, observer)?;
        let mut trainer = Trainer::open(ranks, dev, config, inputs.clone(), observer)?;
        if trainer.leads() {
            record::write(&dir, inputs)?;
        }
        observer.patient(true);
        let done = match self.steps(dev, &mut trainer, observer) {
            Err(Error::Stopped) => trainer.stop(dev, observer),
            done => done,
        };
        trainer.settle(dev, done)?;
        observer.patient(false);
        observer.end();
        let model_step = trainer.finish(dev)?;
        if !trainer.leads() {
            return Ok(());
        }
        // The summary is computed from the log, because this process may have run only some of the steps, or none.
        let log = metrics::read(&dir.join("metrics.jsonl"))?;
        let skipped =
            log.iter().filter(|step| step.get(metrics::SKIPPED_UPDATES).is_some_and(|count| *count != 0.0)).count();
        if skipped * 2 > log.len() {
            let steps = log.len();
            return Err(Error::Failed(format!(
                "{skipped} of {steps} steps skipped updates, because a loss or a gradient norm was not finite; model/ is \
                 of little use, and a lower learning rate may help"
            )));
        }
        let mut summary = Map::from_iter([("steps".to_owned(), trainer.step.into())]);
        summary.extend(self.summary(&trainer, &log, observer));
        summary.extend(best::entries(&trainer.extra));
        summary.insert(MODEL_STEP.to_owned(), model_step.into());
        if model_step < trainer.step {
            observer.note(&format!("model/ is the model of step {model_step}, the best one"));
        }
        summary.insert("peak_memory".to_owned(), memory_summary(&dev.high_water()));
        files::write(dir.join("summary.json"), format!("{:#}\n", Value::Object(summary)).as_bytes())?;
        trainer.reporters.finish(observer);
        self.settled(trainer.step)
    }

    /// Removes files that only the steps up to `step` needed. The caller guarantees that a checkpoint contains all
    /// these steps.
    fn settled(&self, _step: u64) -> Result<()> {
        Ok(())
    }
}

/// Returns the number of steps of the finished run in `dir`, or `None` if the run is not finished.
pub fn finished_steps(dir: &Path) -> Option<u64> {
    finished(dir).map(|(steps, _)| steps)
}

/// Returns the step of the final model of the finished run in `dir`, or `None` if no finished run recorded it.
pub fn model_step(dir: &Path) -> Option<u64> {
    finished(dir)?.1.get(MODEL_STEP)?.as_u64()
}

/// Returns the number of steps of the finished run in `dir`, and its summary.
fn finished(dir: &Path) -> Option<(u64, Metrics)> {
    let summary: Metrics = files::json::read(&dir.join("summary.json")).ok()?;
    dir.join("model").is_dir().then(|| Some((summary.get("steps")?.as_u64()?, summary)))?
}
