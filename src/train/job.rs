//! What SFT and RL have alike: the model they start from, the run around their steps, the summary it leaves.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::metrics::{self, Metrics};
use super::record;
use super::trainer::{Trainer, TrainerConfig, memory_summary};
use crate::data::encoder::Use;
use crate::data::{Dataset, Encoder};
use crate::device::{Device, Plan, Target};
use crate::error::{Error, Result};
use crate::files;
use crate::identity;
use crate::model::{Levels, ModelConfig};
use crate::observe::Observer;
use crate::ranks::{Alone, Ranks};

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

/// A run that trains a model: SFT or RL.
pub trait Job {
    /// How it trains and saves.
    fn trainer_config(&self) -> TrainerConfig;

    /// What it trains on.
    fn data(&self) -> &Dataset;

    /// Bytes each region needs. Within the memory of `target` and `max_memory_gib`, where that is limited, passes keep as
    /// much as fits; errors when nothing they could keep does.
    fn plan(&mut self, target: Target) -> Result<Plan>;

    /// What passes keep, as [`Job::plan`] chose.
    fn levels(&self) -> Levels;

    /// Makes the steps that are left, or those up to the next signal.
    fn steps(&self, dev: &mut Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<()>;

    /// What its summary says between the number of steps and the memory; `log` has every step once.
    fn summary(&self, trainer: &Trainer, log: &[Metrics], observer: &dyn Observer) -> Metrics;

    /// Errors, at every rank, unless all have the same rows and model to start from.
    fn same_at(&self, ranks: &mut dyn Ranks) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        ranks.same("the rows", &self.data().hash())?;
        ranks.same("the model", &identity::of(&self.trainer_config().model)?)
    }

    /// True when the run is done.
    fn is_finished(&self) -> bool {
        let config = self.trainer_config();
        finished_steps(&config.dir).is_some_and(|steps| steps >= config.total_steps)
    }

    /// Trains to the end, or to the next signal, which ends it with [`Error::Stopped`]. Checkpoints, `metrics.jsonl`, `model/` and `summary.json` are in
    /// the run directory.
    fn run(&self, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let mut alone = Alone::ONE;
        self.run_over(&mut alone, dev, observer)
    }

    /// [`Job::run`], this process being one of `ranks`. Rank 0 writes.
    fn run_over(&self, ranks: &mut dyn Ranks, dev: &mut Device, observer: &dyn Observer) -> Result<()> {
        let config = self.trainer_config();
        let dir = config.dir.clone();
        let inputs = record::open(ranks, &config, self.data(), observer)?;
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
