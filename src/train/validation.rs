//! Validation during training: its schedule, its memory and the recording of its metrics. A [`Validator`] generates and
//! scores the answers. It only reads the weights, so validation does not affect training.

use std::time::Instant;

use super::metrics::{Metrics, object};
use super::plan::{self, Planned};
use super::trainer::{Trainer, seconds};
use super::trainer_config::TaskFile;
use crate::config::ValidationConfig;
use crate::device::{Device, Plan, Region, Target};
use crate::error::{Error, Result};
use crate::model::{Model, ModelConfig};
use crate::observe::Observer;
use crate::ranks::Ranks;
use crate::tensor::DType;

/// Generates a model's answers to questions during training and scores them.
pub trait Validator {
    /// Returns the sorted names of the metrics that [`Validator::measure`] computes.
    fn names(&self) -> Vec<String>;

    /// Describes the validation data for users.
    fn describe(&self) -> String;

    /// Returns the files that the validation tasks read.
    fn task_files(&self) -> &[TaskFile];

    /// Returns the maximum number of answers that are generated at the same time.
    fn max_num_seqs(&self) -> usize;

    /// Lowers the maximum number of answers that are generated at the same time to `max_num_seqs`.
    fn limit_num_seqs(&mut self, max_num_seqs: usize);

    /// Makes the allocations of [`Validator::measure`] on a counting device.
    fn count(&self, dev: &mut Device, model: &Model) -> Result<()>;

    /// Computes the metrics of `model`. They are the same on each of `ranks` and for any number of ranks, and depend
    /// only on the weights, not on the step. Errors with [`Error::Stopped`] on every rank if any rank was asked to
    /// stop.
    fn measure(&self, dev: &mut Device, model: &Model, ranks: &mut dyn Ranks) -> Result<Metrics>;
}

/// The schedule of validation, and the metric that selects the best checkpoint.
pub struct Validation {
    validator: Box<dyn Validator>,
    every: Option<u64>,
    before_train: bool,
    metric_for_best_model: Option<String>,
}

/// Name of the metric for the duration of a validation.
const SECONDS: &str = "timing_s/testing";

impl Validation {
    /// Runs `validator` every `every` steps, with the settings of `config`. Errors if `metric_for_best_model` is not
    /// one of the validator's metrics.
    pub fn new(validator: Box<dyn Validator>, config: &ValidationConfig, every: Option<u64>) -> Result<Validation> {
        let metric_for_best_model = config.metric_for_best_model.clone();
        let names = validator.names();
        if let Some(metric) = metric_for_best_model.as_ref().filter(|metric| !names.contains(metric)) {
            let expected = format!("one of {}", names.join(", "));
            return Err(Error::input("metric_for_best_model", metric, expected));
        }
        Ok(Validation { validator, every, before_train: config.val_before_train, metric_for_best_model })
    }

    /// Returns the files that the validation tasks read.
    pub fn task_files(&self) -> Vec<TaskFile> {
        self.validator.task_files().to_vec()
    }

    /// Describes the schedule and the data of the validation for users.
    pub fn describe(&self) -> String {
        let every = self.every.map_or_else(String::new, |n| format!(" every {n} steps"));
        format!("validation on {}{every}", self.validator.describe())
    }

    /// Returns `planned` with the memory of the validation added. Halves the number of answers that are generated at
    /// the same time until they fit beside the model and the memory that stays allocated between steps. Errors if not
    /// even one answer fits.
    pub fn plan(
        &mut self,
        planned: &Planned,
        model: &ModelConfig,
        dtype: DType,
        target: Target,
        lower: &str,
    ) -> Result<Plan> {
        let mut dev = Device::count_for(target);
        let model = Model::empty(&mut dev, model.clone(), dtype)?;
        dev.alloc(Region::Overlay, DType::U8, &[planned.held])?;
        loop {
            dev.reset_high_water();
            self.validator.count(&mut dev, &model)?;
            let memory = planned.memory.max(&dev.high_water());
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

    /// Validates before the first step and logs the result as step 0 of `metrics.jsonl`, unless an earlier start of the
    /// run did so.
    pub fn before(&self, dev: &mut Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<()> {
        if !self.before_train || trainer.step > 0 || trainer.log.has_steps() {
            return Ok(());
        }
        let mut metrics = object(serde_json::json!({"step": 0}));
        self.measure(dev, trainer, observer, &mut metrics)?;
        trainer.log.append(&metrics)
    }

    /// Validates if a validation is due after the current step, and adds the results to the step's `metrics`.
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
