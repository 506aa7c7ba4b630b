//! Validation during training: its schedule, its memory, its duration and the recording of its metrics. It only reads
//! the weights, so it does not affect training.

use std::cell::Cell;
use std::time::Instant;

use super::best::BestRule;
use super::metrics::{Metrics, VAL_LOSS, object};
use super::plan::Planned;
use super::trainer::Trainer;
use super::trainer_config::{RowImages, TaskFile};
use super::val_loss::HeldOut;
use omr_base::config::{OptimConfig, ValidationConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_model::nn::{Model, ModelConfig};
use omr_model::optim::frozen;
use omr_runtime::device::{Device, Kind, Plan, Region, Target};
use omr_runtime::ranks::Ranks;
use omr_runtime::tensor::DType;

/// Generates a model's answers to questions during training and scores them.
pub trait Validator {
    /// Returns the sorted names of the metrics that [`Validator::measure`] computes.
    fn names(&self) -> Vec<String>;

    /// Describes the questions for users.
    fn describe(&self) -> String;

    /// Returns the files that the validation tasks read.
    fn task_files(&self) -> &[TaskFile];

    /// Returns the number of answers.
    fn answers(&self) -> usize;

    /// Returns the maximum number of answers that are generated at the same time.
    fn max_num_seqs(&self) -> usize;

    /// Lowers the maximum number of answers that are generated at the same time to `max_num_seqs`.
    fn limit_num_seqs(&mut self, max_num_seqs: usize);

    /// Makes the allocations of [`Validator::measure`] on a counting device.
    fn count(&self, dev: &mut Device, model: &Model) -> Result<()>;

    /// Returns the time in seconds that `size` ranks need if all answers have the maximum length, from the times of the
    /// first tokens of a few answers.
    fn seconds(&self, dev: &mut Device, model: &Model, size: usize) -> Result<f64>;

    /// Computes the metrics of `model`. They are the same on each of `ranks` and for any number of ranks, and depend
    /// only on the weights, not on the step. `on_progress` receives the number of answers that this rank has generated.
    /// Also returns a warning for the user, if there is one. Errors with [`Error::Stopped`] on every rank if any rank was
    /// asked to stop.
    fn measure(
        &self,
        dev: &mut Device,
        model: &Model,
        ranks: &mut dyn Ranks,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<(Metrics, Option<String>)>;
}

/// The measurements of a validation.
#[derive(Default)]
pub struct Measured {
    /// Rows whose loss is measured.
    pub loss: Option<HeldOut>,
    /// Questions that the model answers.
    pub answers: Option<Box<dyn Validator>>,
    /// Images of the user's rows, by the file of the rows.
    pub images: Vec<RowImages>,
}

/// The schedule of validation, and the rule that selects the best checkpoint.
pub struct Validation {
    measured: Measured,
    every: Option<u64>,
    before_train: bool,
    best: Option<BestRule>,
    /// True after a warning about the answers.
    warned: Cell<bool>,
}

/// Name of the metric for the duration of a validation.
const SECONDS: &str = "timing_s/testing";

impl Validation {
    /// Validates every `every` steps, with the settings of `config`. Errors if `metric_for_best_model` is not one of
    /// the metrics.
    pub fn new(measured: Measured, config: &ValidationConfig, every: Option<u64>) -> Result<Validation> {
        let loss = measured.loss.iter().map(|_| VAL_LOSS.to_owned());
        let answers = measured.answers.iter().flat_map(|validator| validator.names());
        let best = BestRule::new(config, &loss.chain(answers).collect::<Vec<_>>())?;
        Ok(Validation { measured, every, before_train: config.val_before_train, best, warned: Cell::new(false) })
    }

    /// Returns the files that the validation tasks read.
    pub fn task_files(&self) -> Vec<TaskFile> {
        self.measured.answers.iter().flat_map(|validator| validator.task_files()).cloned().collect()
    }

    /// Returns the images of the user's rows.
    pub fn images(&self) -> Vec<RowImages> {
        self.measured.images.clone()
    }

    /// Returns true if a run with this state of its best checkpoint ends early.
    pub fn is_over(&self, state: &Metrics) -> bool {
        self.best.as_ref().is_some_and(|best| best.is_over(state))
    }

    /// Describes the schedule and the data of the validation for users.
    pub fn describe(&self) -> String {
        let every = match (self.every, self.before_train) {
            (Some(n), _) => format!(" every {n} steps"),
            (None, true) => " before the first step only, because test_freq or eval_steps is not set".to_owned(),
            (None, false) => " never, because neither val_before_train nor test_freq or eval_steps is set".to_owned(),
        };
        let loss = self.measured.loss.iter().map(HeldOut::describe);
        let answers = self.measured.answers.iter().map(|validator| validator.describe());
        format!("validation{every}: {}", loss.chain(answers).collect::<Vec<_>>().join("; "))
    }

    /// Returns `planned` with the memory of the validation added. Halves the number of answers that are generated at
    /// the same time until they fit beside the model and the memory that stays allocated between steps. Errors if not
    /// even one answer fits.
    pub fn plan(
        &mut self,
        planned: &Planned,
        model: &ModelConfig,
        dtype: DType,
        optimizer: &OptimConfig,
        target: Target,
        lower: &str,
    ) -> Result<Plan> {
        let mut dev = Device::count_for(target);
        let model = frozen(&mut dev, model.clone(), dtype, optimizer)?;
        dev.alloc(Region::Overlay, DType::U8, &[planned.held])?;
        let mut memory = planned.memory;
        if let Some(held) = &self.measured.loss {
            held.count(&mut dev, &model)?;
            memory = memory.max(&dev.high_water());
            memory.within(target.memory, lower)?;
        }
        let Some(validator) = &mut self.measured.answers else { return Ok(memory) };
        loop {
            dev.reset_high_water();
            validator.count(&mut dev, &model)?;
            let memory = memory.max(&dev.high_water());
            let at_once = validator.max_num_seqs();
            if target.memory.is_none_or(|budget| memory.total() <= budget) {
                return Ok(memory);
            }
            if at_once == 1 {
                memory.within(target.memory, lower)?;
            }
            validator.limit_num_seqs(at_once.div_ceil(2));
        }
    }

    /// Says how long the validations of a run of `total_steps` steps will take. Then validates before the first step
    /// and logs the result as step 0 of `metrics.jsonl`, unless an earlier start of the run did so.
    pub fn before(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        total_steps: u64,
        observer: &dyn Observer,
    ) -> Result<()> {
        let is_first = self.before_train && trainer.step == 0 && !trainer.log.has_steps;
        let done = |steps: u64| {
            self.every.map_or(0, |n| steps / n + u64::from(steps == total_steps && !steps.is_multiple_of(n)))
        };
        let count = done(total_steps).saturating_sub(done(trainer.step)) + u64::from(is_first);
        // The times of the emulator are not those of a GPU.
        if count > 0 && trainer.leads() && dev.kind() != Kind::Emu {
            let marks = Region::ALL.map(|region| dev.mark(region));
            match self.expected(dev, trainer, count) {
                Ok(line) => observer.note(&line),
                // The other ranks do not take part here: all of them stop in the validation or in the first step.
                Err(Error::Stopped) => {}
                Err(error) => return Err(error),
            }
            marks.into_iter().for_each(|mark| dev.release(mark));
        }
        if !is_first {
            return Ok(());
        }
        let mut metrics = object(serde_json::json!({"step": 0}));
        self.measure(dev, trainer, observer, &mut metrics)?;
        trainer.log.append(&metrics)
    }

    /// Describes the expected duration of `count` validations.
    fn expected(&self, dev: &mut Device, trainer: &mut Trainer<'_>, count: u64) -> Result<String> {
        let (model, size) = (&trainer.model, trainer.ranks.size());
        let (mut all, mut parts) = (0.0, Vec::new());
        if let Some(held) = &self.measured.loss {
            let seconds = held.seconds(dev, model, size)?;
            all += seconds;
            parts.push(format!("{} about {seconds:.1} s", held.describe()));
        }
        if let Some(validator) = &self.measured.answers {
            let seconds = validator.seconds(dev, model, size)?;
            all += seconds;
            parts.push(format!("{} at most about {seconds:.1} s", validator.describe()));
        }
        let times = format!("{count} validations, {:.1} s", all * count as f64);
        Ok(format!("expected time of a validation: {} ({times})", parts.join("; ")))
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
        if let Some(best) = &self.best {
            let value = metrics.get(&best.metric).and_then(serde_json::Value::as_f64);
            best.record(&mut trainer.extra, step, value.unwrap_or(f64::NAN));
            if best.is_over(&trainer.extra) && step < total_steps {
                observer.note(&best.describe(&trainer.extra));
            }
        }
        Ok(())
    }

    /// Adds the results and the duration to `metrics`, and shows them to the user.
    fn measure(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        observer: &dyn Observer,
        metrics: &mut Metrics,
    ) -> Result<()> {
        let begun = Instant::now();
        let (model, ranks) = (&trainer.model, &mut *trainer.ranks);
        let (step, size) = (trainer.step, ranks.size());
        let Measured { loss, answers, .. } = &self.measured;
        let all = loss.as_ref().map_or(0, HeldOut::rows) + answers.as_ref().map_or(0, |validator| validator.answers());
        // Each rank shows its own progress as that of all. A step is not complete before its validation.
        let on_progress = |done: usize| {
            let done = done.min(all) as f64;
            observer.step(step.saturating_sub(1), &[("validated", done), ("of", all as f64)]);
        };
        dev.range(format_args!("testing"), |dev| {
            let mut before = 0;
            if let Some(held) = loss {
                let mut on_rows = |done: usize| on_progress((done * size).min(held.rows()));
                metrics.insert(VAL_LOSS.to_owned(), held.measure(dev, model, ranks, &mut on_rows)?.into());
                before = held.rows();
            }
            if let Some(validator) = answers {
                let mut on_answers = |done: usize| on_progress(before + done * size);
                let (measured, warning) = validator.measure(dev, model, ranks, &mut on_answers)?;
                metrics.extend(measured);
                if let Some(line) = warning.filter(|_| !self.warned.replace(true)) {
                    observer.note(&format!("validation: {line}"));
                }
            }
            Result::Ok(())
        })?;
        metrics.insert(SECONDS.to_owned(), begun.elapsed().as_secs_f64().into());
        let shown = metrics.iter().filter(|(name, _)| *name == VAL_LOSS || name.starts_with("val-core/"));
        let value = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
        let shown: Vec<String> = shown.map(|(name, of)| format!("{name} {:.4}", value(of))).collect();
        observer.note(&format!("step {step}: {}", shown.join(", ")));
        Ok(())
    }
}
