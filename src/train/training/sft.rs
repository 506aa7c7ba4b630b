//! Supervised fine-tuning (SFT). Rows are packed online. The loss of an update is the mean negative log-prob over all
//! its supervised tokens, independent of how the tokens are divided into packs and micro-batches.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::exchange::Reach;
use super::job::{JobCommon, Start, TrainingJob};
use super::lanes::interleaved;
use super::largest::LargestBySize;
use super::levels::{self, SizeClass};
use super::metrics::{self, Metrics, object};
use super::nll::{self, Mean};
use super::plan::{self, Planned};
use super::record;
use super::step::{self, Computed, Cost, Sequence};
use super::timeline::Activity;
use super::trainer::Trainer;
use super::trainer_config::TrainerConfig;
use super::updates::{Update, Updates};
use omr_base::config::{self, MicroBatchTokens, SftConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_data::rows::index::indexing::Longest;
use omr_data::rows::samples::encoder::{Encoder, EncodingPurpose};
use omr_data::rows::{Dataset, Index, Loader, Rejected, Sample, Samples, Shape};
use omr_runtime::device::{Device, Plan, Region, Target};
use omr_runtime::ranks::Ranks;
use omr_runtime::tensor::DType;

/// Number of micro-batches whose samples are prepared ahead of use.
pub const AHEAD: usize = 4;

/// Smallest size of micro-batches that is chosen or suggested, in tokens.
pub const SMALLEST: usize = 1024;

/// Settings that an error message suggests if the run needs too much memory.
pub const LOWER: &str = "micro_batch_tokens and packing_length, or image_max_pixels; optim: adamw_8bit and \
    bf16_stochastic_round: true need less memory, and optimizer_offload: true moves state from a GPU to its host";

/// A fine-tuning job.
pub struct SftJob {
    /// The state that every training job has.
    pub common: JobCommon,
    /// The settings of the run.
    pub config: SftConfig,
    /// The training samples, made on demand from the rows.
    pub samples: Arc<dyn Samples<Sample>>,
}

impl SftJob {
    /// Calls [`SftJob::open`] for a run that resumes if a checkpoint exists.
    pub fn new(dir: &Path, config: SftConfig) -> Result<SftJob> {
        SftJob::open(dir, config, false)
    }

    /// Indexes the data sets of `config`, or reads the index of an earlier start of this run unless the run is `fresh`.
    /// Errors name the file and the row.
    pub fn open(dir: &Path, config: SftConfig, fresh: bool) -> Result<SftJob> {
        let (key, parts) = match config.train_batch_size {
            Some(rows) => ("train_batch_size", rows),
            None => ("gradient_accumulation_steps", config.gradient_accumulation_steps),
        };
        let Start { model, config: model_config, encoder } =
            Start::open(config.model.as_deref(), EncodingPurpose::Train, &config.training.images, &config.optimizer)?;
        let encoder = encoder.with_variables(&config.training.chat_template_kwargs.variables())?;
        let encoder = encoder.with_newline(config.train_newline);
        if config.datasets.is_empty() {
            return Err(Error::input("datasets", "an empty list", "at least one dataset"));
        }
        let longest = Longest { tokens: config.packing_length, key: "packing_length" };
        let share = config.training.max_bad_rows;
        let fresh = fresh || record::rows_may_differ(&config.training.accept_changed);
        let data = Dataset::open(dir, &config.datasets, &encoder, longest, share, config.seed, fresh)?;
        let mut common = JobCommon::new(dir, "sft", model, model_config, data, config.validation.val_size)?;
        let (data, index) = (&mut common.data, &common.index);
        check_end(data, &encoder)?;
        let samples = data.samples(move |row| encoder.sample(&row));
        let mut updates = Updates::new(&config, index)?;
        let takes = updates.next(0)?.map_or(0, |update| update.consumed);
        data.remark_repeats(key, parts, takes);
        common.total_steps = if let Some(steps) = config.max_steps { steps } else { updates.count()? };
        Ok(SftJob { common, config, samples: Arc::new(samples) })
    }

    /// Returns made-up samples of the micro-batches that can determine this rank's peak memory, by their size, and the
    /// largest number of micro-batches of an update.
    fn largest_micro_batches(&self, config: &SftConfig) -> Result<(Vec<SizeClass<Vec<Sample>>>, usize)> {
        let JobCommon { model_config, index, ranks, total_steps, .. } = &self.common;
        let sizes = levels::sizes(config.micro_batch_tokens.get(), config.packing_length);
        let mut updates = Updates::new(config, index)?;
        let mut largest = LargestBySize::new(model_config, &sizes);
        let (mut most, mut consumed) = (0, 0);
        for _ in 0..*total_steps {
            let Some(update) = updates.next(consumed)? else { break };
            consumed = update.consumed;
            let micro_batches = micro_batches(index, &update, config);
            most = most.max(micro_batches.len());
            for part in micro_batches.into_iter().skip(ranks.rank()).step_by(ranks.size()) {
                if reach(index, &part).targets {
                    largest.push(part.into_iter().map(|i| index.shape(i)).collect());
                }
            }
        }
        Ok((largest.into_samples(model_config), most))
    }

    /// Plans the run with the settings of `config`. Errors if it does not fit.
    fn planned(&self, config: &SftConfig, target: Target) -> Result<Planned> {
        let JobCommon { model_config: model, ranks, .. } = &self.common;
        let (samples, most_micro_batches) = self.largest_micro_batches(config)?;
        plan::sft(model.clone(), config, target, *ranks, most_micro_batches, &sequences(&samples))?.check(LOWER)
    }

    /// Returns the largest power of two below `micro_batch_tokens` with which the run fits.
    fn fitting(&self, target: Target) -> Option<usize> {
        let most = self.config.micro_batch_tokens.get().min(self.config.packing_length);
        levels::smaller(most, SMALLEST).find(|&tokens| {
            self.planned(&SftConfig { micro_batch_tokens: tokens.into(), ..self.config.clone() }, target).is_ok()
        })
    }

    /// Returns a loader that prepares the samples of all micro-batches of this rank, for the remaining updates.
    fn loader(&self, trainer: &Trainer<'_>) -> Result<Loader<Sample>> {
        let (mut updates, index) = (Updates::new(&self.config, &self.common.index)?, self.common.index.clone());
        let (config, mut consumed) = (self.config.clone(), trainer.samples_consumed);
        let (rank, size) = (trainer.ranks.rank(), trainer.ranks.size());
        // The number of updates is bounded here. Without this bound, a rank without micro-batches would search for its
        // next micro-batch forever.
        let left = self.common.total_steps.saturating_sub(trainer.step) as usize;
        let mut next = move || -> Result<Option<Vec<Vec<usize>>>> {
            let Some(update) = updates.next(consumed)? else { return Ok(None) };
            consumed = update.consumed;
            Ok(Some(micro_batches(&index, &update, &config).into_iter().skip(rank).step_by(size).collect()))
        };
        let groups = std::iter::from_fn(move || next().transpose()).take(left).flat_map(|batches| match batches {
            Ok(batches) => batches.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        });
        Loader::new(self.samples.clone(), Box::new(groups), self.config.training.dataloader_num_workers, AHEAD)
    }
}

/// Returns an error if no sample trains a token that ends an answer. The model would never learn to stop.
fn check_end(data: &Dataset, encoder: &Encoder) -> Result<()> {
    let chat = &encoder.chat;
    // With any other template, the end of each trained answer is trained.
    if !chat.template.marks_generation() {
        return Ok(());
    }
    for i in 0..data.index.len() {
        let marked = chat.encode_trained(&data.row_at(data.index.number(i))?.trained_messages())?;
        if marked.is_some_and(|(ids, mask)| chat.turn.ends_trained(&ids, &mask)) {
            return Ok(());
        }
    }
    let end = chat.tokenizer.token(chat.turn.end).unwrap_or_default();
    let found = format!("{{% generation %}} blocks that end before {end} in every sample, so it is never trained");
    let expected = format!("blocks that contain {end}: a model learns to end its answer from this token");
    Err(Error::input("chat template", found, expected))
}

/// Returns the micro-batches of an update, of at most `micro_batch_tokens` tokens or a single row each, in the order in
/// which their gradients are added.
///
/// If micro-batches are smaller than packs, those of a lane are in descending order of tokens. The ranks compute
/// consecutive micro-batches at the same time, and wait for the slowest of them.
pub fn micro_batches(index: &Index, update: &Update, config: &SftConfig) -> Vec<Vec<usize>> {
    let cut = |lane: &Vec<usize>| -> Vec<Vec<usize>> {
        let costs: Vec<Cost> = lane.iter().map(|&i| Cost::whole(index.tokens(i))).collect();
        let ranges = step::micro_batches(&costs, config.micro_batch_tokens.get());
        let mut parts: Vec<Vec<usize>> = ranges.into_iter().map(|range| lane[range].to_vec()).collect();
        if config.micro_batch_tokens.get() < config.packing_length {
            parts.sort_by_key(|part| Reverse(tokens(index, part)));
        }
        parts
    };
    interleaved(update.lanes.iter().map(cut))
}

/// Returns the number of tokens of a micro-batch.
fn tokens(index: &Index, micro_batch: &[usize]) -> usize {
    micro_batch.iter().map(|&i| index.tokens(i)).sum()
}

/// Returns made-up samples as sequences.
pub fn sequences(classes: &[SizeClass<Vec<Sample>>]) -> Vec<SizeClass<Vec<Sequence<'_>>>> {
    classes.iter().map(|class| class.map(|batch| batch.iter().map(Sequence::from).collect())).collect()
}

/// Returns the parts of the model to which a micro-batch has gradients.
fn reach(index: &Index, micro_batch: &[usize]) -> Reach {
    let any = |of: fn(Shape<'_>) -> bool| micro_batch.iter().any(|&i| of(index.shape(i)));
    Reach { targets: any(|shape| shape.targets > 0), images: any(|shape| !shape.grids.is_empty()) }
}

/// Results of one micro-batch, which each rank sends to the others so that every rank can log and count them.
#[derive(Clone, Serialize, Deserialize)]
struct MicroBatchResult {
    /// Number of the micro-batch in its update.
    number: usize,
    done: Computed,
    rows: usize,
    rejected: Vec<Rejected>,
}

impl TrainingJob for SftJob {
    fn common(&self) -> &JobCommon {
        &self.common
    }

    fn micro_batch_tokens(&self) -> Option<MicroBatchTokens> {
        Some(self.config.micro_batch_tokens)
    }

    /// Computes the exact peak memory over all micro-batches of the run.
    fn plan(&mut self, target: Target) -> Result<Plan> {
        let target = target.within(plan::gib_to_bytes(self.config.training.max_memory_gib));
        let planned = self.planned(&self.config, target).map_err(|error| match error {
            Error::Input { place, found, expected, hint: Some(hint) } if place == "memory" => {
                let fits = self.fitting(target).map(|tokens| format!("it fits with micro_batch_tokens={tokens}; "));
                Error::input_hint(place, found, expected, fits.unwrap_or_default() + &hint)
            }
            error => error,
        })?;
        self.common.complete_plan(&planned, self.config.dtype, &self.config.optimizer, target, LOWER)
    }

    fn steps(&self, dev: &mut Device, trainer: &mut Trainer, observer: &dyn Observer) -> Result<()> {
        let JobCommon { index, total_steps, label, .. } = &self.common;
        let mut broken = self.common.open_rows(trainer, self.config.training.max_bad_rows, observer)?;
        let mut updates = Updates::new(&self.config, index)?;
        let mut loader = self.loader(trainer)?;
        let mut grads = trainer.new_grads(dev)?;
        observer.begin(label, "steps", *total_steps, trainer.step);
        self.common.validate_before(dev, trainer, observer)?;
        // The ranks may need different times to prepare, so they wait for each other here without a timeout.
        trainer.ranks.await_all("the first step", &[])?;
        while self.common.goes_on(trainer) {
            let Some(update) = updates.next(trainer.samples_consumed)? else { break };
            let (timeline, start) = (trainer.timeline.clone(), trainer.timeline.begin(dev)?);
            // The divisor counts the targets of all rows of the update. If a row turns out to be broken after other
            // rows were computed, its targets still count in the divisor and add no loss.
            let targets: usize = update.samples().map(|i| index.shape(i).targets).sum();
            let micro_batches = micro_batches(index, &update, &self.config);
            let reaches: Vec<Reach> = micro_batches.iter().map(|part| reach(index, part)).collect();
            let mark = dev.mark(Region::Overlay);
            let losses = dev.zeros(Region::Overlay, DType::F64, &[reaches.len()])?;
            let mut own = Vec::new();
            trainer.gradients(dev, &mut grads, &reaches, |dev, model, grads, number| {
                let samples = broken.sound(loader.take()?);
                let batch: Vec<Sequence<'_>> = samples.iter().map(|sample| (&**sample).into()).collect();
                let mean = Mean { targets, loss: losses.slice(number, number + 1) };
                // The plan knows the rows as they are in the index, with those that turn out to be broken.
                let levels = self.common.ladder.levels(tokens(index, &micro_batches[number]));
                let done = timeline
                    .queued(dev, Activity::Passes, |dev| nll::micro_batch(dev, model, grads, &batch, mean, levels))?;
                own.push(MicroBatchResult { number, done, rows: batch.len(), rejected: broken.found() });
                Ok(())
            })?;
            let (mut done, mut rows) = (Computed::default(), 0);
            let mut all = trainer.share("metrics of the micro-batches", &own)?.concat();
            all.sort_by_key(|figures| figures.number);
            for figures in all {
                done += figures.done;
                rows += figures.rows;
                broken.record(figures.rejected)?;
            }
            trainer.share_figures(dev, losses, reaches.len())?;
            let lr = trainer.update(dev, &grads, losses)?;
            // The host waits for the device here, where the step is logged, and nowhere earlier in the step.
            let loss: f64 = dev.read::<f64>(losses)?.into_iter().sum();
            let stats = trainer.stats(dev, "the loss", loss, observer)?;
            dev.release(mark);
            trainer.step += 1;
            trainer.samples_consumed = update.consumed;
            broken.keep(&mut trainer.extra)?;
            let time = start.elapsed().as_secs_f64();
            let metrics = json!({
                "step": trainer.step,
                "epoch": update.consumed as f64 / index.len() as f64,
                "loss": loss,
                "grad_norm": stats.grad_norm,
                metrics::SKIPPED_UPDATES: u64::from(!stats.finite),
                "learning_rate": lr,
                "num_rows": rows,
                "num_tokens": done.tokens,
                "num_target_tokens": done.targets,
                "num_micro_batches": done.micro_batches,
                "num_broken_rows": update.samples().count() - rows,
                "timing_s/step": time,
                "perf/tokens_per_second": done.tokens as f64 / time,
                metrics::MEMORY: metrics::memory(dev),
            });
            let figures = [("loss", loss), ("tok/s", (done.tokens as f64 / time).round())];
            self.common.end_step(dev, trainer, object(metrics), &figures, observer)?;
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
            optimizer: c.optimizer.clone(),
            training: c.training.clone(),
            validation: c.validation.clone(),
            dtype: c.dtype,
            seed: c.seed,
            warmup_steps: c.warmup_steps(self.common.total_steps),
            save_steps: c.save_steps,
            save_seconds: c.save_seconds,
            reference: false,
            teacher: None,
            config_text: config::deciding(c),
            run: self.common.run_setup(),
        }
    }
}
