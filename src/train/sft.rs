//! Supervised fine-tuning: rows, packed online, to the mean negative log-prob of all supervised tokens of an
//! update, whatever packs and micro-batches they fell into.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use super::job::{self, Start};
use super::metrics::{self, Metrics, object};
use super::nll;
use super::plan::{self, Largest, Size};
use super::step::{self, Sequence};
use super::trainer::{Trainer, TrainerConfig, seconds};
use super::updates::Updates;
use crate::config::{SftConfig, deciding};
use crate::data::index::grids;
use crate::data::{self, Eager, Index, Row, Sample, Samples, Shape};
use crate::device::{Device, Plan, Region, Target};
use crate::error::{Error, Result};
use crate::model::inputs::check_ids;
use crate::model::vision::CHUNK_PATCHES;
use crate::model::{Grads, Levels, ModelConfig, VisionConfig};
use crate::observe::Observer;
use crate::tensor::DType;

/// What makes a run smaller.
pub const LOWER: &str =
    "micro_batch_tokens and packing_length, or image_max_pixels; optim: adamw_8bit takes less than adamw_torch";

/// A fine-tuning job: config, data and where results go.
pub struct Job {
    /// Run directory.
    pub dir: PathBuf,
    /// Model directory to start from.
    pub model: PathBuf,
    /// Settings.
    pub config: SftConfig,
    /// Sizes of the data, for the plan.
    pub index: Arc<Index>,
    /// The data, ready to be packed.
    pub samples: Arc<dyn Samples<Sample>>,
    /// What progress is reported under: `sft`, unless the caller has a better word.
    pub label: String,
    levels: Levels,
    total_steps: u64,
}

impl Job {
    /// Reads the data sets of `config` and turns their rows into samples. Errors name file and row.
    pub fn new(dir: &Path, config: SftConfig) -> Result<Job> {
        let start = Start::open(config.model.as_deref(), [config.image_min_pixels, config.image_max_pixels])?;
        if config.datasets.is_empty() {
            return Err(Error::input("datasets", "an empty list", "at least one data set"));
        }
        let Start { model, config: model_config, chat, processor } = start;
        let (rows, order) = data::load(&config.datasets, config.seed)?;
        let sample = |row: &Row| -> Result<Sample> {
            let sample = data::sft_sample(row, &chat, &processor)?;
            check_ids(&model_config, &sample.input_ids).map_err(|e| e.within(&row.place))?;
            // A row longer than a pack is left out and counted; one that fits must be computable.
            let tokens = sample.input_ids.len();
            if tokens <= config.packing_length && tokens > config.micro_batch_tokens {
                let expected = format!("at most micro_batch_tokens, which is {}", config.micro_batch_tokens);
                return Err(Error::input(&row.place, format!("{tokens} tokens"), expected));
            }
            Ok(sample)
        };
        let samples = Eager::new(&rows, |row| sample(row).map(Some))?.ordered(&order);
        let mut index = Index::default();
        for sample in samples.iter() {
            let targets = sequence(sample).num_targets();
            index.push(Shape { tokens: sample.input_ids.len(), targets, grids: &grids(&sample.images) });
        }
        Job::over(dir, model, config, Arc::new(index), Arc::new(samples))
    }

    /// A job over samples made elsewhere, whose sizes are those of `index`. Errors when none fits a pack.
    pub fn over(
        dir: &Path,
        model: PathBuf,
        config: SftConfig,
        index: Arc<Index>,
        samples: Arc<dyn Samples<Sample>>,
    ) -> Result<Job> {
        let mut updates = Updates::new(&config, &index)?;
        let total_steps = match config.max_steps {
            Some(steps) => steps,
            None => updates.count()?,
        };
        Ok(Job {
            dir: dir.to_owned(),
            model,
            config,
            index,
            samples,
            label: "sft".to_owned(),
            levels: Levels::default(),
            total_steps,
        })
    }

    /// Updates in all.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// The samples of the micro-batches that decide how much memory the run takes.
    fn largest_micro_batches(&self, vision: &VisionConfig) -> Result<Vec<Vec<usize>>> {
        let mut updates = Updates::new(&self.config, &self.index)?;
        let (mut largest, mut consumed) = (Largest::default(), 0);
        for _ in 0..self.total_steps {
            let Some(update) = updates.next(consumed)? else { break };
            consumed = update.consumed;
            let lengths: Vec<usize> = update.samples.iter().map(|&i| self.index.tokens(i)).collect();
            for range in step::micro_batches(&lengths, self.config.micro_batch_tokens)? {
                let part = &update.samples[range];
                let batch = || part.iter().map(|&i| self.index.shape(i));
                if batch().any(|shape| shape.targets > 0) {
                    largest.push(Size::of(vision, CHUNK_PATCHES, batch()), part.to_vec());
                }
            }
        }
        Ok(largest.into_batches())
    }
}

impl job::Job for Job {
    /// The most that any micro-batch of the run takes, exactly.
    fn plan(&mut self, target: Target) -> Result<Plan> {
        let model = ModelConfig::load(&self.model.join("config.json"))?;
        let target = target.within(plan::gib_to_bytes(self.config.max_memory_gib));
        let largest = self.largest_micro_batches(&model.vision_config)?;
        let blank = |batch: &Vec<usize>| batch.iter().map(|&i| plan::blank(&model, self.index.shape(i))).collect();
        let samples: Vec<Vec<Sample>> = largest.iter().map(blank).collect();
        let batches: Vec<Vec<Sequence<'_>>> =
            samples.iter().map(|batch| batch.iter().map(sequence).collect()).collect();
        let planned = plan::sft(model, &self.config, target, &batches)?;
        let planned = planned.check(LOWER)?;
        self.levels = planned.levels;
        Ok(planned.memory)
    }

    fn levels(&self) -> Levels {
        self.levels
    }

    fn steps(&self, dev: &mut Device, trainer: &mut Trainer, observer: &dyn Observer) -> Result<()> {
        let mut updates = Updates::new(&self.config, &self.index)?;
        let mut grads = Grads::new(dev, &trainer.model.layout)?;
        let loss = dev.zeros(Region::Overlay, DType::F64, &[1])?;
        observer.begin(&self.label, "steps", self.total_steps, trainer.step);
        while trainer.step < self.total_steps {
            let Some(update) = updates.next(trainer.samples_consumed)? else { break };
            let start = Instant::now();
            grads.zero(dev)?;
            let samples: Vec<Arc<Sample>> =
                update.samples.iter().map(|&i| self.samples.get(i)).collect::<Result<_>>()?;
            let batch: Vec<Sequence<'_>> = samples.iter().map(|sample| sequence(sample)).collect();
            let tokens = self.config.micro_batch_tokens;
            let done = nll::gradients(dev, &trainer.model, &mut grads, &batch, tokens, self.levels, loss)?;
            let lr = trainer.update(dev, &grads, loss)?;
            // Here, where the step is logged, and nowhere before it, the host waits for the device.
            let loss = dev.read::<f64>(loss)?[0];
            let stats = trainer.stats(dev, "the loss", loss)?;
            trainer.step += 1;
            trainer.samples_consumed = update.consumed;
            let time = seconds(start.elapsed());
            let metrics = json!({
                "step": trainer.step,
                "epoch": update.consumed as f64 / updates.epoch_len() as f64,
                "loss": loss,
                "grad_norm": stats.grad_norm,
                "learning_rate": lr,
                "num_rows": update.samples.len(),
                "num_tokens": done.tokens,
                "num_target_tokens": done.targets,
                "num_dropped_rows": update.dropped,
                "timing_s/step": time,
                "perf/tokens_per_second": done.tokens as f64 / time,
            });
            trainer.log.append(&object(metrics))?;
            let figures = [("loss", loss), ("tok/s", (done.tokens as f64 / time).round())];
            observer.step(trainer.step, &figures);
            trainer.save_if_due(dev, observer)?;
        }
        Ok(())
    }

    fn summary(&self, trainer: &Trainer, log: &[Metrics], _: &dyn Observer) -> Metrics {
        let elapsed = metrics::sum(log, "timing_s/step");
        object(json!({
            "samples_consumed": trainer.samples_consumed,
            "loss": log.last().and_then(|m| m.get("loss")),
            "seconds": elapsed,
            "tokens_per_sec": metrics::sum(log, "num_tokens") / f64::max(elapsed, 1e-9),
        }))
    }

    fn trainer_config(&self) -> TrainerConfig {
        let c = &self.config;
        TrainerConfig {
            dir: self.dir.clone(),
            model: self.model.clone(),
            dtype: c.dtype,
            optimizer: c.optimizer,
            warmup_steps: c.warmup_steps(self.total_steps),
            total_steps: self.total_steps,
            seed: c.seed,
            config_text: deciding(c),
            save_steps: c.save_steps,
            save_seconds: c.save_seconds,
            save_total_limit: c.save_total_limit,
            resume: c.resume.clone(),
        }
    }
}

/// A sample as it is trained on.
pub fn sequence(sample: &Sample) -> Sequence<'_> {
    Sequence {
        input_ids: &sample.input_ids,
        images: &sample.images,
        prompt_len: sample.input_ids.len(),
        loss_mask: &sample.loss_mask,
    }
}
