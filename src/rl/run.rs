//! The RL loop. Each step generates rollouts, scores them, computes advantages within groups and updates the policy.
//! Checkpoints are saved between steps.
//!
//! Sampler and trainer use the same weights and the same arithmetic, so the sampled log-probs serve as the old
//! log-probs: no second forward pass is necessary, and on policy the ratio is exactly 1 (see
//! `docs/design/training.md`). Each step reports `training/rollout_probs_diff_max`, which is 0.

mod asking;
mod learning;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::config::RlConfig;
use crate::data::encoder::EncodingPurpose;
use crate::data::held_out::split_off;
use crate::data::indexing::Longest;
use crate::data::packing::PackPlan;
use crate::data::{Dataset, Loader, Samples};
use crate::device::{Device, Plan, Region, Target};
use crate::engine::{allowed_ids, stop_token_ids};
use crate::error::{Error, Result};
use crate::image::{ImageInput, thumbnail};
use crate::model::{GradientSink, Model, Policy};
use crate::observe::Observer;
use crate::reward::judge::{self, Ruling};
use crate::reward::{Mode, Scorer, Shares};
use crate::rl::curriculum;
use crate::rl::experience::Experience;
use crate::rl::group::Group;
use crate::rl::kl::KL_COEF;
use crate::rl::metrics::StepMetrics;
use crate::rl::parity::FirstUpdate;
use crate::rl::plan;
use crate::rl::update::{self, Dealt, Learner, MicroBatchStats, Reference};
use crate::rollout::file::RolloutRow;
use crate::rollout::journal::{self, Journal};
use crate::rollout::{self, Question, Rollout, generate};
use crate::task::VerifiedRows;
use crate::tensor::{DType, Tensor};
use crate::text::Chat;
use crate::train::job::{JobCommon, Start, TrainingJob};
use crate::train::metrics::{self, Metrics, object};
use crate::train::plan::gib_to_bytes;
use crate::train::record;
use crate::train::step::Computed;
use crate::train::timeline::Activity;
use crate::train::trainer::{Trainer, seconds};
use crate::train::trainer_config::{TrainerConfig, trainer_config};

/// An RL job.
pub struct Job {
    /// The state that every training job has.
    pub common: JobCommon,
    /// The settings of the run.
    pub config: RlConfig,
    /// The task that scores responses.
    pub task: VerifiedRows,
    /// The questions, made on demand from the rows.
    pub questions: Arc<dyn Samples<Question>>,
    /// Step and prompt number, if only one prompt is wanted. In that step, only the rollouts of this prompt are
    /// generated and written, and then the run stops.
    pub only: Option<(u64, u64)>,
    /// Folder of a recorded run that is computed again. Its recorded rollouts are used as drafts.
    pub recorded: Option<PathBuf>,
    scorer: Arc<Scorer>,
    chat: Chat,
    stop_token_ids: Arc<[u32]>,
    curriculum: Option<Arc<[usize]>>,
    num_kv_blocks: Option<usize>,
}

/// Number of generation batches whose questions are prepared ahead of use.
pub const AHEAD: usize = 1;

impl Job {
    /// Calls [`Job::open`] for a run that resumes if a checkpoint exists.
    pub fn new(dir: &Path, config: RlConfig, scorer: Arc<Scorer>) -> Result<Job> {
        Job::open(dir, config, scorer, false)
    }

    /// Indexes the prompts of `config`, or reads the index of an earlier start of this run unless the run is `fresh`.
    /// `scorer` scores the responses. Errors name the file and the row.
    pub fn open(dir: &Path, config: RlConfig, scorer: Arc<Scorer>, fresh: bool) -> Result<Job> {
        let pixels = [config.image_min_pixels, config.image_max_pixels];
        let start = Start::open(config.model.as_deref(), EncodingPurpose::Ask, pixels)?;
        if config.train_files.is_empty() {
            return Err(Error::input("train_files", "an empty list", "at least one file of prompts"));
        }
        let Start { model, config: model_config, encoder } = start;
        let chat = encoder.chat.clone();
        let stop_token_ids = stop_token_ids(&model, &[chat.ids.im_end, chat.ids.endoftext])?;
        let longest = Longest { tokens: config.max_prompt_length, key: "max_prompt_length" };
        let share = config.max_bad_rows;
        let fresh = fresh || record::rows_may_differ(&config.accept_changed);
        let mut data = Dataset::open(dir, &config.train_files, &encoder, longest, share, config.seed, fresh)?;
        let held = config.validation.val_size.map(|size| split_off(&mut data, size)).transpose()?;
        let mut common = JobCommon::new(dir, model, model_config, data);
        common.held_out = held.unwrap_or_default();
        common.label = "rl".to_owned();
        let (data, index) = (&mut common.data, &common.index);
        let longest = index.shapes().map(|shape| shape.tokens).max().unwrap_or(0) + config.max_response_length;
        if longest > config.micro_batch_tokens {
            let expected = format!("at least {longest}, the tokens of the longest prompt and response");
            return Err(Error::input("micro_batch_tokens", config.micro_batch_tokens.to_string(), expected));
        }
        data.remark_repeats("train_batch_size", config.train_batch_size, config.train_batch_size as u64);
        if config.rollout.n == 1 {
            // A group of one is accepted, as in verl (TRL rejects it). It is REINFORCE without a baseline, and a remark
            // reports that.
            let what =
                "rollout.n is 1: a group of one response has no baseline, so each advantage is the reward itself";
            data.remarks.push(what.to_owned());
        }
        let questions = generate::streamed(data, encoder, common.model_config.clone());
        if config.reward.mode == Mode::Compat && config.reward.command.is_empty() {
            let what = "reward.mode compat accepts unevaluated answers, as the published scorer does: a model can learn to \
                        answer \"15 + 63\" with \\boxed{15 + 63}";
            data.remarks.push(what.to_owned());
        }
        common.total_steps = config.total_steps(index.len());
        Ok(Job {
            // The task only scores the rows that it receives and has no rows of its own.
            task: VerifiedRows::scored_by("rl", Vec::new(), scorer.clone())?,
            curriculum: curriculum::order(config.curriculum, data)?,
            num_kv_blocks: config.rollout.num_kv_blocks,
            common,
            config,
            questions: Arc::new(questions),
            only: None,
            recorded: None,
            scorer,
            chat,
            stop_token_ids,
        })
    }

    /// Returns a loader that prepares the questions of all generation batches after the first `consumed` questions.
    fn loader(&self, consumed: u64) -> Result<Loader<Question>> {
        let (config, size) = (&self.config, self.config.gen_batch() as u64);
        let mut order = PackPlan::new(self.common.index.len(), 1, config.seed, config.shuffle)?;
        let sorted = self.curriculum.clone();
        let mut sample_at = move |at: u64| match &sorted {
            Some(sorted) => sorted[(at % sorted.len() as u64) as usize],
            None => order.sample_at(at),
        };
        let batches = (0..).map(move |k| {
            let first = consumed + k * size;
            Ok((first..first + size).map(&mut sample_at).collect())
        });
        Loader::new(self.questions.clone(), Box::new(batches), config.dataloader_num_workers, AHEAD)
    }

    /// Runs all updates of a batch: `ppo_epochs` passes over its mini-batches, which consist of complete groups.
    fn update(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        groups: &[Group],
        policy: Policy,
        metrics: &mut StepMetrics,
        observer: &dyn Observer,
    ) -> Result<()> {
        let config = &self.config;
        let mark = dev.mark(Region::Overlay);
        let mut grads = trainer.new_grads(dev)?;
        let figures = MicroBatchStats::new(dev, config)?;
        let (rank, size) = (trainer.ranks.rank(), trainer.ranks.size());
        for _ in 0..config.ppo_epochs {
            for batch in groups.chunks(config.ppo_mini_batch_size) {
                let dealt = Dealt::new(config, trainer.step, batch, config.lanes());
                let micro_batches = dealt.micro_batches(config.micro_batch_tokens)?;
                let figures = figures.of_update(dev, micro_batches.len())?;
                let (levels, step, timeline) = (self.common.levels, trainer.step, trainer.timeline.clone());
                let mut done = Computed::default();
                let mut compute = |dev: &mut Device, model: &Model, grads: &mut dyn GradientSink, number: usize| {
                    let learner = Learner { model, policy, config, levels, step };
                    done += timeline.queued(dev, Activity::Passes, |dev| {
                        dealt.compute(dev, learner, grads, &micro_batches[number], figures.of(number))
                    })?;
                    Ok(())
                };
                let moving: Vec<_> = micro_batches.iter().filter(|part| part.moves).map(|m| dealt.reach(m)).collect();
                trainer.gradients(dev, &mut grads, &moving, &mut compute)?;
                // Micro-batches without backward need no order: each rank computes its part of them.
                let mine = (moving.len()..micro_batches.len()).filter(|number| number % size == rank);
                let idle = mine.into_iter().try_for_each(|i| compute(dev, &trainer.model, &mut grads, i));
                trainer.agreed("the end of an update's passes", idle)?;
                let done = trainer.share("work of the micro-batches", &done)?.into_iter().sum();
                trainer.share_figures(dev, figures.stats, micro_batches.len())?;
                let losses = figures.losses(dev)?;
                let lr = trainer.update(dev, &grads, losses)?;
                // The host waits for the device here, where the update is logged, and nowhere earlier in the update.
                let seen = dealt.queued(done, figures.stats).read(dev)?;
                let stats = trainer.stats(dev, "the policy loss", seen.stats.loss, observer)?;
                if metrics.has_no_update() {
                    let (step, device) = (trainer.step + 1, dev.kind());
                    let update =
                        FirstUpdate { step, groups: batch, micro_batches: &micro_batches, seen: &seen, device };
                    update.check(config.parity, observer)?;
                }
                metrics.update(&seen, stats, lr, &update::loss_of(config));
            }
        }
        dev.release(mark);
        Ok(())
    }

    /// Opens the journal of the next step, and removes the journals of steps that a checkpoint contains.
    fn journal(&self, dev: &Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<Journal> {
        if trainer.leads() {
            journal::forget(&self.common.dir, trainer.step_on_disk()?)?;
        }
        // The other ranks create their journals only after the folder is cleared.
        trainer.ranks.await_all("the journal of a step", &[])?;
        let run = trainer.state(dev).without_arithmetic();
        let (rank, arithmetic) = (trainer.ranks.rank(), dev.arithmetic());
        let journal = Journal::open(&self.common.dir, trainer.step + 1, rank, &run, arithmetic)?;
        if journal.ended() > 0 {
            let (step, ended) = (trainer.step + 1, journal.ended());
            observer.note(&format!(
                "step {step}: {ended} finished rollouts are read from the journal and not generated again"
            ));
        }
        Ok(journal)
    }

    /// Returns the rollouts of a step as rows of its file.
    fn rollout_rows(&self, groups: &[Group]) -> Vec<RolloutRow> {
        let rewards: Vec<Vec<f64>> = groups.iter().map(Group::rewards).collect();
        let mut rows: Vec<Vec<RolloutRow>> = groups.iter().map(|group| self.group_rows(group)).collect();
        for i in rollout::file::shown_groups(&rewards) {
            let small = |image: &Arc<ImageInput>| thumbnail(image.first_frame(), rollout::file::PICTURE_SIDE);
            if let Some(first) = rows[i].first_mut() {
                first.pictures = groups[i].question.prompt.pixels.iter().filter_map(small).collect();
            }
        }
        rows.concat()
    }

    fn group_rows(&self, group: &Group) -> Vec<RolloutRow> {
        let question = group.question.row.messages.iter().rfind(|message| message.role == "user");
        let question: String =
            question.iter().flat_map(|message| &message.content).filter_map(|part| part.text()).collect();
        let row = |(rollout, learned): (&Rollout, &Experience)| RolloutRow {
            prompt: group.number,
            rollout: rollout.output.rollout as u32,
            id: group.question.row.id.clone(),
            input: generate::prompt_text(&self.chat, &group.question.prompt),
            output: rollout.response.clone(),
            gts: group.question.row.ground_truth.clone().unwrap_or_default(),
            score: learned.score,
            reward: learned.reward,
            acc_score: rollout.score.acc_score,
            format_reward_score: rollout.score.format_reward_score,
            predict_str: rollout.score.predict_str.clone(),
            advantage: learned.advantage,
            response_length: rollout.output.token_ids.len() as u32,
            token_ids: rollout.output.token_ids.clone(),
            log_probs: rollout.output.logprobs.clone(),
            finish_reason: rollout.output.finish_reason.as_str().to_owned(),
            judge: match &rollout.judge {
                None => String::new(),
                Some(Ruling::Said(number)) => number.to_string(),
                Some(Ruling::Unjudged(_)) => "unjudged".to_owned(),
            },
            question: question.clone(),
            pictures: Vec::new(),
        };
        group.rollouts.iter().zip(&group.experience).map(row).collect()
    }

    /// Sets the shares of responses that the strict rules did not read. Returns a warning if they are many.
    fn shares(&self, groups: &[Group], metrics: &mut StepMetrics) -> Option<String> {
        let mut shares = Shares::default();
        let rollouts = groups.iter().flat_map(|group| &group.rollouts).filter(|_| self.scorer.is_strict());
        rollouts.for_each(|rollout| shares.count(&rollout.response, &rollout.score.why));
        for (name, share) in shares.named().into_iter().filter(|_| self.scorer.is_strict()) {
            metrics.set(&format!("critic/score/{name}"), share);
        }
        shares.warning()
    }

    fn policy(&self, allowed: Tensor) -> Policy {
        Policy { allowed: Some(allowed), temperature: self.config.rollout.temperature as f32 }
    }
}

impl TrainingJob for Job {
    fn common(&self) -> &JobCommon {
        &self.common
    }

    /// Plans the larger of a rollout and an update in each region; see [`plan::rl`]. This also sets the size of the KV
    /// cache.
    fn plan(&mut self, target: Target) -> Result<Plan> {
        let JobCommon { model_config, index, ranks, .. } = &self.common;
        let target = target.within(gib_to_bytes(self.config.max_memory_gib));
        let bitmap = allowed_ids(model_config, &self.chat);
        let (planned, num_kv_blocks) = plan::rl(model_config.clone(), &self.config, target, *ranks, &bitmap, index)?;
        self.num_kv_blocks = num_kv_blocks;
        self.common.complete_plan(&planned, self.config.dtype, &self.config.optimizer, target, plan::LOWER)
    }

    fn steps(&self, dev: &mut Device, trainer: &mut Trainer, observer: &dyn Observer) -> Result<()> {
        let (config, JobCommon { dir, model, model_config, total_steps, .. }) = (&self.config, &self.common);
        let reference = match config.has_reference() {
            // The reference of new adapters is the same weights without them.
            true if plan::trains_new_adapters(config) => Some(trainer.model.base()),
            true => Some(Model::load(dev, model, DType::of(config.dtype, dev.kind()))?),
            false => None,
        };
        let bitmap = allowed_ids(model_config, &self.chat);
        let allowed = dev.upload(Region::State, &bitmap, &[bitmap.len()])?;
        let mut broken = self.common.open_rows(trainer, config.max_bad_rows, observer)?;
        let mut loader = self.loader(trainer.samples_consumed)?;
        let mut warned = false;
        observer.begin(&self.common.label, "steps", *total_steps, trainer.step);
        self.common.validate_before(dev, trainer, observer)?;
        while self.common.goes_on(trainer) {
            let start = trainer.timeline.begin(dev)?;
            let mut journal = self.journal(dev, trainer, observer)?;
            let batch = dev.range(format_args!("rollout"), |dev| {
                let next = || {
                    let sound = broken.sound(loader.take()?);
                    let found = broken.found();
                    broken.record(found).map(|()| sound)
                };
                self.ask(dev, trainer, allowed, next, &mut journal, observer)
            })?;
            let gen_time = seconds(start.elapsed());
            let mut metrics = StepMetrics::new(trainer.step + 1);
            let (mut groups, policy) = (batch.groups, self.policy(allowed));
            let reference = reference.as_ref().map(|model| Reference { model, policy });
            let kl_coef = self.learn(dev, trainer, &mut groups, reference, &mut metrics)?;
            metrics.rollouts(&groups, config.max_response_length);
            let rollouts = || groups.iter().flat_map(|group| &group.rollouts);
            let warning = self.shares(&groups, &mut metrics).filter(|_| !std::mem::replace(&mut warned, true));
            warning.iter().for_each(|line| observer.note(&format!("step {}: {line}", trainer.step + 1)));
            if let Some(name) = self.scorer.judge() {
                let mut judge = judge::Summary::new(name);
                rollouts().for_each(|rollout| judge.count(rollout.judge.as_ref()));
                metrics.judge(&judge);
            }
            let only = self.only.is_some_and(|(step, _)| step == trainer.step + 1);
            if only || trainer.leads() && config.rollout_freq.is_some_and(|n| (trainer.step + 1).is_multiple_of(n)) {
                rollout::file::write(dir, trainer.step + 1, &self.rollout_rows(&groups))?;
            }
            if only {
                return Err(Error::Stopped);
            }
            let update_start = Instant::now();
            self.update(dev, trainer, &groups, policy, &mut metrics, observer)?;
            trainer.step += 1;
            trainer.samples_consumed = batch.consumed;
            broken.keep(&mut trainer.extra)?;
            trainer.extra.extend(kl_coef.map(|kl_coef| (KL_COEF.to_owned(), kl_coef.into())));
            let response_tokens: usize = rollouts().map(|r| r.output.token_ids.len()).sum();
            metrics.set("training/num_response_tokens", response_tokens as f64);
            metrics.set("training/epoch", batch.consumed as f64 / self.common.index.len() as f64);
            metrics.set("train/num_gen_batches", batch.num_gen_batches as f64);
            metrics.set("timing_s/gen", gen_time);
            metrics.set("timing_s/update_actor", seconds(update_start.elapsed()));
            metrics.set("timing_s/step", seconds(start.elapsed()));
            metrics.set("perf/rollout_tokens_per_second", response_tokens as f64 / gen_time);
            metrics.set(metrics::MEMORY, metrics::memory(dev));
            metrics.sampler(&batch.stats);
            metrics.throughput(seconds(start.elapsed()));
            let figures = metrics.figures();
            self.common.end_step(dev, trainer, metrics.into_values(), &figures, observer)?;
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
        trainer_config!(&self.common, c, {
            warmup_steps: c.warmup_steps,
            save_steps: c.save_freq,
            reference: c.has_reference(),
        })
    }
}
