//! What SFT and RL have alike: the model they start from, the run around their steps, the summary it leaves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::broken::Broken;
use super::metrics::{self, Metrics};
use super::record;
use super::trainer::{Trainer, memory_summary};
use super::trainer_config::TrainerConfig;
use super::validation::Validation;
use crate::config::Dtype;
use crate::data::encoder::Use;
use crate::data::{Dataset, Encoder, Index};
use crate::device::{Device, Plan, Target};
use crate::error::{Error, Result};
use crate::files;
use crate::identity;
use crate::model::{Levels, ModelConfig};
use crate::observe::Observer;
use crate::ranks::{self, OneRank, Ranks};
use crate::tensor::DType;

/// The model a run starts from, and what makes samples for it of rows.
pub struct Start {
    /// Model directory.
    pub model: PathBuf,
    /// Its configuration.
    pub config: ModelConfig,
    /// Its tokenizer, chat template and image processor.
    pub encoder: Encoder,
}

impl Start {
    /// Reads the directory `model`, all but the weights, for rows of this `purpose`; pictures have from `pixels[0]` to `pixels[1]` pixels where
    /// these are given. Errors when the key `model` names no model directory.
    pub fn open(model: Option<&Path>, purpose: Use, pixels: [Option<usize>; 2]) -> Result<Start> {
        let model = Start::directory(model)?;
        let config = ModelConfig::load(&model.join("config.json"))?;
        let encoder = Encoder::load(model, purpose, config.vocab_size, pixels)?;
        Ok(Start { model: model.to_owned(), config, encoder })
    }

    /// The directory `model`. Errors when the key `model` names none.
    pub fn directory(model: Option<&Path>) -> Result<&Path> {
        let Some(model) = model else {
            return Err(Error::input("model", "nothing", "a model directory to start from"));
        };
        if !model.is_dir() {
            return Err(Error::input("model", model.display().to_string(), "a model directory"));
        }
        Ok(model)
    }
}

/// What a fine-tuning job and an RL job have in common.
pub struct JobCommon {
    /// Run directory.
    pub dir: PathBuf,
    /// Model directory to start from.
    pub model: PathBuf,
    /// Its configuration.
    pub model_config: ModelConfig,
    /// The data sets.
    pub data: Dataset,
    /// Sizes of their rows, for the plan.
    pub index: Arc<Index>,
    /// What progress is reported under.
    pub label: String,
    /// What is measured while it trains.
    pub validation: Option<Validation>,
    /// Which rank of how many this process is.
    pub ranks: OneRank,
    /// Steps in all: updates of SFT, generation batches of RL.
    pub total_steps: u64,
    /// What passes keep, as [`TrainingJob::plan`] chose.
    pub levels: Levels,
}

impl JobCommon {
    /// Describes a job of one process, in `dir`, that starts from `model` and trains on `data`.
    pub fn new(dir: &Path, model: PathBuf, model_config: ModelConfig, data: Dataset) -> JobCommon {
        JobCommon {
            dir: dir.to_owned(),
            model,
            model_config,
            index: data.index.clone(),
            data,
            label: String::new(),
            validation: None,
            ranks: OneRank::ALONE,
            total_steps: 0,
            levels: Levels::default(),
        }
    }

    /// Returns `planned` with the memory that the validation takes; see [`Validation::plan`].
    pub fn plan_validation(
        &mut self,
        planned: Plan,
        dtype: Dtype,
        lanes: Option<usize>,
        target: Target,
        lower: &str,
    ) -> Result<Plan> {
        let dtype = DType::of(dtype, target.kind);
        match &mut self.validation {
            Some(validation) => validation.plan(planned, &self.model_config, dtype, lanes, target, lower),
            None => Ok(planned),
        }
    }

    /// Writes the rows' index once for all ranks, and returns the rows that the run does not use.
    pub fn open_rows<'a>(
        &'a self,
        trainer: &mut Trainer<'_>,
        max_bad_rows: f64,
        observer: &'a dyn Observer,
    ) -> Result<Broken<'a>> {
        ranks::by_first(trainer.ranks, "the rows' index", || self.data.keep(observer))?;
        self.data.record_pictures()?;
        Broken::new(&self.dir, &self.data, max_bad_rows, &trainer.extra, trainer.leads(), observer)
    }

    /// Measures before the first step, where the job validates; see [`Validation::before`].
    pub fn validate_before(&self, dev: &mut Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<()> {
        self.validation.as_ref().map_or(Ok(()), |validation| validation.before(dev, trainer, observer))
    }

    /// Ends the step just made: validates, logs `metrics`, shows `figures` and saves a checkpoint, each where it is due.
    pub fn end_step(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        mut metrics: Metrics,
        figures: &[(&'static str, f64)],
        observer: &dyn Observer,
    ) -> Result<()> {
        if let Some(validation) = &self.validation {
            validation.after(dev, trainer, self.total_steps, observer, &mut metrics)?;
        }
        trainer.log.append(&metrics)?;
        observer.step(trainer.step, figures);
        trainer.save_if_due(dev, observer)
    }
}

/// A run that trains a model: SFT or RL.
pub trait TrainingJob {
    /// What SFT and RL have in common.
    fn common(&self) -> &JobCommon;

    /// How it trains and saves.
    fn trainer_config(&self) -> TrainerConfig;

    /// Bytes each region needs. Within the memory of `target` and `max_memory_gib`, where that is limited, passes keep as
    /// much as fits; errors when nothing they could keep does.
    fn plan(&mut self, target: Target) -> Result<Plan>;

    /// Makes the steps that are left, or those up to the next signal.
    fn steps(&self, dev: &mut Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<()>;

    /// What its summary says between the number of steps and the memory; `log` has every step once.
    fn summary(&self, trainer: &Trainer, log: &[Metrics], observer: &dyn Observer) -> Metrics;

    /// Errors, at every rank, unless all have the same rows and model to start from.
    fn same_at(&self, ranks: &mut dyn Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        ranks.same("the rows", &self.common().data.hash())?;
        ranks.same("the model", &identity::of(&self.common().model)?)
    }

    /// True when the run is done.
    fn is_finished(&self) -> bool {
        let JobCommon { dir, total_steps, .. } = self.common();
        finished_steps(dir).is_some_and(|steps| steps >= *total_steps)
    }

    /// Trains to the end, or to the next signal, which ends it with [`Error::Stopped`]. Checkpoints, `metrics.jsonl`, `model/` and `summary.json` are in
    /// the run directory.
    fn run(&self, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let mut alone = OneRank::ALONE;
        self.run_over(&mut alone, dev, observer)
    }

    /// [`TrainingJob::run`], this process being one of `ranks`. Rank 0 writes.
    fn run_over(&self, ranks: &mut dyn Ranks, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let config = self.trainer_config();
        let dir = config.dir.clone();
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
        trainer.finish(dev)?;
        if !trainer.leads() {
            return Ok(());
        }
        // From the log: this process may have made few of the steps, or none.
        let log = metrics::read(&dir.join("metrics.jsonl"))?;
        let mut summary = Map::from_iter([("steps".to_owned(), trainer.step.into())]);
        summary.extend(self.summary(&trainer, &log, observer));
        summary.extend(trainer.best());
        summary.insert("peak_memory".to_owned(), memory_summary(&dev.high_water()));
        files::write(dir.join("summary.json"), format!("{:#}\n", Value::Object(summary)).as_bytes())?;
        self.settled(trainer.step)
    }

    /// What only steps up to `step` needed, all of them in a checkpoint, may go.
    fn settled(&self, _step: u64) -> Result<()> {
        Ok(())
    }
}

/// Steps of the finished run in `dir`, when its model is there.
pub fn finished_steps(dir: &Path) -> Option<u64> {
    let text = files::read_to_string(dir.join("summary.json")).ok()?;
    let summary: Value = serde_json::from_str(&text).ok()?;
    dir.join("model").is_dir().then(|| summary["steps"].as_u64())?
}
