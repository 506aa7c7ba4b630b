//! The RL loop. Each step samples rollouts, scores them, computes advantages within groups, updates the policy, and saves
//! a checkpoint if one is due.
//!
//! Sampler and trainer use the same weights and the same arithmetic, so the sampled log-probs serve as the old
//! log-probs: no second forward pass is necessary, and on policy the ratio is exactly 1 (see
//! `docs/dev/design/training.md`). Each step reports `training/rollout_probs_diff_max`, which is 0.

mod advantages;
mod job;
mod sample;
mod save;
mod update;

use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::rl::distillation::{self, Teacher};
use crate::rl::metrics::StepMetrics;
use crate::rl::plan;
use crate::training::job::{JobCommon, TrainingJob};
use crate::training::metrics::{self, Metrics, object};
use crate::training::plan::gib_to_bytes;
use crate::training::trainer::Trainer;
use crate::training::trainer_config::TrainerConfig;
use omr_base::config;
use omr_base::error::Result;
use omr_base::observe::Observer;
use omr_data::reward::judge;
use omr_model::engine::allowed_ids;
use omr_model::nn::Model;
use omr_model::rollout::journal;
use omr_runtime::device::{Device, Plan, Region, Target};
use omr_runtime::tensor::DType;

use job::Run;
pub use job::{AHEAD, RlJob};
use save::Times;

impl RlJob {
    /// Makes one step of the run.
    fn step(&self, run: &mut Run<'_>, dev: &mut Device, trainer: &mut Trainer<'_>) -> Result<()> {
        let start = trainer.timeline.begin(dev)?;
        let mut metrics = StepMetrics::new(trainer.step + 1);

        let mut batch = self.batch(dev, trainer, run.observer)?;
        dev.range(format_args!("rollout"), |dev| -> Result<()> {
            // One generation batch, or as many as dynamic sampling needs.
            while !self.is_complete(&batch)? {
                let groups = self.next_groups(run, &mut batch)?;
                // `sample` also scores: `self.task` scores each response as soon as it ends.
                let rollouts = self.sample(run, dev, trainer, &groups, &mut batch)?;
                self.score(groups, rollouts, &mut batch);
            }
            Ok(())
        })?;
        let generation = start.elapsed().as_secs_f64();

        self.compute_advantages(run, dev, trainer, &mut batch, &mut metrics)?;
        self.record_rollouts(run, trainer, &batch, &mut metrics)?;

        let update_start = Instant::now();
        self.update(run, dev, trainer, &batch.groups, &mut metrics)?;
        let times = Times { start, generation, update: update_start.elapsed().as_secs_f64() };
        self.save(run, dev, trainer, batch, metrics, times)
    }
}

impl TrainingJob for RlJob {
    fn common(&self) -> &JobCommon {
        &self.common
    }

    /// Plans each region's memory for the larger of a rollout and an update; see [`plan::rl`]. This also sets the size of
    /// the KV cache.
    fn plan(&mut self, target: Target) -> Result<Plan> {
        let JobCommon { model_config, index, ranks, .. } = &self.common;
        let target = target.within(gib_to_bytes(self.config.training.max_memory_gib));
        let bitmap = allowed_ids(model_config, &self.chat);
        let (planned, num_kv_blocks) = plan::rl(model_config.clone(), &self.config, target, *ranks, &bitmap, index)?;
        self.num_kv_blocks = num_kv_blocks;
        self.common.complete_plan(&planned, self.config.dtype, &self.config.optimizer, target, plan::LOWER)
    }

    fn steps(&self, dev: &mut Device, trainer: &mut Trainer, observer: &dyn Observer) -> Result<()> {
        let (config, JobCommon { model, model_config, total_steps, .. }) = (&self.config, &self.common);
        let reference = match config.has_reference() {
            // The reference of new adapters is the same weights without them.
            true if plan::trains_new_adapters(config) => Some(trainer.model.base()),
            true => {
                let of = model_config.clone().quantized(config.optimizer.quantization.as_ref())?;
                Some(Model::load_shown(dev, model, of, DType::of(config.dtype, dev.kind()), observer)?)
            }
            false => None,
        };
        let bitmap = allowed_ids(model_config, &self.chat);
        let mut run = Run {
            allowed: dev.upload(Region::State, &bitmap, &[bitmap.len()])?,
            reference,
            teacher: Teacher::load(dev, config, &bitmap)?,
            broken: self.common.open_rows(trainer, config.training.max_bad_rows, observer)?,
            loader: self.loader(trainer.samples_consumed)?,
            warned: false,
            observer,
        };
        observer.begin(&self.common.label, "steps", *total_steps, trainer.step);
        self.common.validate_before(dev, trainer, observer)?;
        while self.common.goes_on(trainer) {
            self.step(&mut run, dev, trainer)?;
        }
        Ok(())
    }

    fn summary(&self, trainer: &Trainer, log: &[Metrics], observer: &dyn Observer) -> Metrics {
        let sampling = metrics::sum(log, "timing_s/gen");
        let judge = self.scorer.judge().map(|name| {
            let sum = |count: &str| metrics::sum(log, &format!("reward/judge/{count}")) as u64;
            let (used, hits, unjudged) = (sum("used"), sum("hits"), sum("unjudged"));
            judge::Summary { used, hits, unjudged, ..judge::Summary::new(name) }
        });
        if let Some(judge) = &judge {
            observer.note(&judge.line());
        }
        object(json!({
            "judge": judge,
            "prompts_consumed": trainer.samples_consumed,
            "prompts_left_out": self.common.data.rejected.rejected.len(),
            "seconds": metrics::sum(log, "timing_s/step"),
            "rollout_tokens_per_sec": metrics::sum(log, "training/num_response_tokens") / f64::max(sampling, 1e-9),
        }))
    }

    fn settled(&self, step: u64) -> Result<()> {
        journal::forget(&self.common.dir, step)
    }

    fn trainer_config(&self) -> TrainerConfig {
        let c = &self.config;
        TrainerConfig {
            optimizer: c.optimizer.clone(),
            training: c.training.clone(),
            validation: c.validation.clone(),
            dtype: c.dtype,
            seed: c.seed,
            warmup_steps: c.warmup_steps,
            save_steps: c.save_freq,
            save_seconds: c.save_seconds,
            reference: c.has_reference(),
            teacher: distillation::directory(c).map(Path::to_owned),
            config_text: config::deciding(c),
            run: self.common.run_setup(),
        }
    }
}
