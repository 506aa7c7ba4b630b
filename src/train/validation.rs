//! What a run measures while it trains: when, within which memory, and what becomes of the figures. Who answers and
//! scores is a [`Validator`]; the weights are read and nothing else, so that training does not know of it.

use std::time::Instant;

use super::metrics::{Metrics, object};
use super::plan;
use super::trainer::{Trainer, seconds};
use super::trainer_config::TaskFile;
use crate::config::ValidationConfig;
use crate::device::{Device, Plan, Region, Target};
use crate::error::{Error, Result};
use crate::model::{Grads, Model, ModelConfig};
use crate::observe::Observer;
use crate::ranks::Ranks;
use crate::tensor::DType;

/// Asks a model in training questions and scores its answers.
pub trait Validator {
    /// The names of the figures that [`Validator::measure`] gives, sorted.
    fn names(&self) -> Vec<String>;

    /// What it measures on, for people.
    fn describe(&self) -> String;

    /// The files that its tasks read.
    fn task_files(&self) -> &[TaskFile];

    /// Answers at once, at most.
    fn max_num_seqs(&self) -> usize;

    /// From here on at most so many answers at once.
    fn limit_num_seqs(&mut self, max_num_seqs: usize);

    /// Allocates what [`Validator::measure`] allocates, on a device that only counts.
    fn count(&self, dev: &mut Device, model: &Model) -> Result<()>;

    /// The figures of `model`, the same at each of `ranks` and for any number of them. Equal weights have equal figures, whatever
    /// the step. Errors with [`Error::Stopped`] at every rank where one was asked to stop.
    fn measure(&self, dev: &mut Device, model: &Model, ranks: &mut dyn Ranks) -> Result<Metrics>;
}

/// When a run measures, and by which figure it keeps its best checkpoint.
pub struct Validation {
    validator: Box<dyn Validator>,
    every: Option<u64>,
    before_train: bool,
    metric_for_best_model: Option<String>,
}

/// The name of what a validation took.
const SECONDS: &str = "timing_s/testing";

impl Validation {
    /// `validator` asked every so many steps, as `config` says. Errors when `metric_for_best_model` is none of its
    /// figures.
    pub fn new(validator: Box<dyn Validator>, config: &ValidationConfig, every: Option<u64>) -> Result<Validation> {
        let metric_for_best_model = config.metric_for_best_model.clone();
        let names = validator.names();
        if let Some(metric) = metric_for_best_model.as_ref().filter(|metric| !names.contains(metric)) {
            let expected = format!("one of {}", names.join(", "));
            return Err(Error::input("metric_for_best_model", metric, expected));
        }
        Ok(Validation { validator, every, before_train: config.val_before_train, metric_for_best_model })
    }

    /// The files that its tasks read.
    pub fn task_files(&self) -> Vec<TaskFile> {
        self.validator.task_files().to_vec()
    }

    /// When it measures on what, for people.
    pub fn describe(&self) -> String {
        let every = self.every.map_or_else(String::new, |n| format!(" every {n} steps"));
        format!("validation on {}{every}", self.validator.describe())
    }

    /// `planned` with what measuring takes: as many answers at once as fit beside the model, and beside gradients and the
    /// losses of so many `lanes` where these lie there between steps. Errors when not even one does.
    pub fn plan(
        &mut self,
        planned: Plan,
        model: &ModelConfig,
        dtype: DType,
        lanes: Option<usize>,
        target: Target,
        lower: &str,
    ) -> Result<Plan> {
        let mut dev = Device::count_for(target);
        let model = Model::empty(&mut dev, model.clone(), dtype)?;
        if let Some(lanes) = lanes {
            Grads::new(&mut dev, &model.layout)?;
            dev.zeros(Region::Overlay, DType::F64, &[lanes])?;
        }
        loop {
            dev.reset_high_water();
            self.validator.count(&mut dev, &model)?;
            let memory = planned.max(&dev.high_water());
            let at_once = self.validator.max_num_seqs();
            if target.memory.is_none_or(|budget| memory.total() <= budget) {
                return Ok(memory);
            }
            if at_once == 1 {
                plan::within(&memory, target.memory, lower)?;
            }
            self.validator.limit_num_seqs(at_once.div_ceil(2));
        }
    }

    /// Measures before the first step, as step 0 of `metrics.jsonl`, unless an earlier start of the run has.
    pub fn before(&self, dev: &mut Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<()> {
        if !self.before_train || trainer.step > 0 || trainer.log.has_steps() {
            return Ok(());
        }
        let mut metrics = object(serde_json::json!({"step": 0}));
        self.measure(dev, trainer, observer, &mut metrics)?;
        trainer.log.append(&metrics)
    }

    /// Measures where the step just made is one to measure after, and adds the figures to the step's `metrics`.
    pub fn after(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        total_steps: u64,
        observer: &dyn Observer,
        metrics: &mut Metrics,
    ) -> Result<()> {
        let step = trainer.step;
        if !self.every.is_some_and(|n| step.is_multiple_of(n) || step == total_steps) {
            return Ok(());
        }
        self.measure(dev, trainer, observer, metrics)?;
        if let Some(metric) = &self.metric_for_best_model
            && let Some(value) = metrics.get(metric).and_then(serde_json::Value::as_f64)
        {
            trainer.measured(metric, value);
        }
        Ok(())
    }

    fn measure(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        observer: &dyn Observer,
        metrics: &mut Metrics,
    ) -> Result<()> {
        let begun = Instant::now();
        let (model, ranks) = (&trainer.model, &mut *trainer.ranks);
        let figures = dev.range(format_args!("testing"), |dev| self.validator.measure(dev, model, ranks))?;
        let core = figures.iter().filter(|(name, _)| name.starts_with("val-core/"));
        let shown: Vec<String> = core.map(|(name, value)| format!("{name} {value:.4}")).collect();
        observer.note(&format!("step {}: {}", trainer.step, shown.join(", ")));
        metrics.extend(figures);
        metrics.insert(SECONDS.to_owned(), seconds(begun.elapsed()).into());
        Ok(())
    }
}
