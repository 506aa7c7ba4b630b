//! The RL loop: ask, score, compare within groups, update; one checkpointed step after another.
//!
//! The policy that samples and the one that is trained are the same weights and the same arithmetic, so the
//! sampled log-probs are the old log-probs: no second forward pass, and on policy the ratio is exactly 1
//! (DESIGN section 8). Each step reports `training/rollout_probs_diff_max`, which is 0.

mod asking;
mod learning;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::json;

use crate::checkpoint::Keep;
use crate::config::{RlConfig, deciding};
use crate::data::encoder::Use;
use crate::data::indexing::Longest;
use crate::data::packing::PackPlan;
use crate::data::{Dataset, Index, Loader, Samples};
use crate::device::{Device, Plan, Region, Target};
use crate::engine::{allowed_ids, stop_token_ids};
use crate::error::{Error, Result};
use crate::model::{Grads, Levels, Model, ModelConfig, Policy};
use crate::observe::Observer;
use crate::ops::policy_loss::{self, PolicyLoss};
use crate::ranks::{self, Alone};
use crate::reward::Scorer;
use crate::reward::judge::{self, Ruling};
use crate::rl::curriculum;
use crate::rl::experience::Experience;
use crate::rl::metrics::StepMetrics;
use crate::rl::plan;
use crate::rl::update::{self, Dealt, Learner};
use crate::rollout::file::RolloutRow;
use crate::rollout::journal::{self, Journal};
use crate::rollout::{self, Question, Rollout, ask};
use crate::task::VerifiedRows;
use crate::tensor::{DType, Tensor};
use crate::text::Chat;
use crate::train::broken::Broken;
use crate::train::job::{self, Start};
use crate::train::lanes;
use crate::train::metrics::{self, Metrics, object};
use crate::train::plan::gib_to_bytes;
use crate::train::record;
use crate::train::trainer::{Trainer, TrainerConfig, seconds};
use crate::train::validation::Validation;

/// An RL job: config, questions and where results go.
pub struct Job {
    /// Run directory.
    pub dir: PathBuf,
    /// Model directory to start from.
    pub model: PathBuf,
    /// Settings.
    pub config: RlConfig,
    /// Scores responses.
    pub task: VerifiedRows,
    /// The data sets.
    pub data: Dataset,
    /// Sizes of the questions, for the plan.
    pub index: Arc<Index>,
    /// What is asked.
    pub questions: Arc<dyn Samples<Question>>,
    /// What is measured while it trains.
    pub validation: Option<Validation>,
    /// Of this step only the rollouts of this prompt, by its number, are made and written; then the run stops.
    pub only: Option<(u64, u64)>,
    /// The run in this folder is computed again: what it wrote of its rollouts is drafted.
    pub recorded: Option<PathBuf>,
    /// Which rank of how many this process is.
    pub ranks: Alone,
    scorer: Arc<Scorer>,
    chat: Chat,
    stop_token_ids: Arc<[u32]>,
    curriculum: Option<Arc<[usize]>>,
    model_config: ModelConfig,
    levels: Levels,
    num_kv_blocks: Option<usize>,
    total_steps: u64,
}

/// Generation batches whose questions are made ahead.
pub const AHEAD: usize = 1;

impl Job {
    /// [`Job::open`] of a run that goes on where there is something to go on from.
    pub fn new(dir: &Path, config: RlConfig, scorer: Arc<Scorer>) -> Result<Job> {
        Job::open(dir, config, scorer, false)
    }

    /// Indexes the prompts of `config`, or takes the index of an earlier start of a run that is not to be `fresh`. Errors
    /// name file and row. `scorer` scores the responses.
    pub fn open(dir: &Path, config: RlConfig, scorer: Arc<Scorer>, fresh: bool) -> Result<Job> {
        let pixels = [config.image_min_pixels, config.image_max_pixels];
        lanes::check(config.lanes(), "ppo_mini_batch_size", config.ppo_mini_batch_size)?;
        let start = Start::open(config.model.as_deref(), Use::Ask, pixels)?;
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
        let index = data.index.clone();
        let longest = index.shapes().map(|shape| shape.tokens).max().unwrap_or(0) + config.max_response_length;
        if longest > config.micro_batch_tokens {
            let expected = format!("room for the longest prompt and response, {longest} tokens");
            return Err(Error::input("micro_batch_tokens", config.micro_batch_tokens.to_string(), expected));
        }
        data.remark_repeats("train_batch_size", config.train_batch_size, config.train_batch_size as u64);
        if config.rollout.n == 1 {
            // As in verl. TRL refuses it; here it stays REINFORCE without a baseline, and says so.
            let what = "rollout.n is 1: a group of one has no baseline, so each advantage is the reward itself";
            data.remarks.push(what.to_owned());
        }
        let questions = ask::streamed(&data, encoder, model_config.clone());
        // It scores the rows it is given, and has none of its own.
        let task = VerifiedRows::scored_by("rl", Vec::new(), scorer.clone())?;
        let total_steps = config.total_steps(index.len());
        let sorted = curriculum::order(config.curriculum, &data)?;
        Ok(Job {
            dir: dir.to_owned(),
            model,
            levels: Levels::default(),
            num_kv_blocks: config.rollout.num_kv_blocks,
            config,
            task,
            data,
            index,
            questions: Arc::new(questions),
            validation: None,
            only: None,
            recorded: None,
            ranks: Alone::ONE,
            scorer,
            chat,
            stop_token_ids,
            curriculum: sorted,
            model_config,
            total_steps,
        })
    }

    /// Generation batches in all.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// The questions of all generation batches behind `consumed` questions, made ahead.
    fn loader(&self, consumed: u64) -> Result<Loader<Question>> {
        let (config, size) = (&self.config, self.config.gen_batch() as u64);
        let mut order = PackPlan::new(self.index.len(), 1, config.seed, config.shuffle)?;
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

    /// All updates of a batch: `ppo_epochs` passes over its mini-batches of whole groups.
    fn update(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        (experience, questions): (&[Experience], &[&Question]),
        policy: Policy,
        metrics: &mut StepMetrics,
        observer: &dyn Observer,
    ) -> Result<()> {
        let config = &self.config;
        let mark = dev.mark(Region::Overlay);
        let mut grads = Grads::new(dev, &trainer.model.layout)?;
        let lanes = trainer.lanes.count();
        let figures = update::figures(dev, lanes)?;
        for _ in 0..config.ppo_epochs {
            for batch in experience.chunks(config.ppo_mini_batch_size * config.rollout.n) {
                policy_loss::reset(dev, figures.stats)?;
                let dealt = Dealt::new((config, trainer.step), batch, questions, lanes);
                let mut done = update::Done::default();
                for round in 0..trainer.lanes.rounds() {
                    grads.zero(dev)?;
                    let mut own = Ok(update::Done::default());
                    if let Some(lane) = trainer.lanes.of_round(round) {
                        let (model, levels, step) = (&trainer.model, self.levels, trainer.step);
                        let learner = Learner { model, policy, config, levels, step };
                        own = dealt.accumulate(dev, learner, &mut grads, lane, figures.of_lane(lane));
                    }
                    let own = trainer.add_lanes(dev, &mut grads, round, own)?;
                    trainer.share("what lanes have done", &own)?.into_iter().for_each(|lane| done += lane);
                }
                trainer.share_figures(dev, figures.stats)?;
                let losses = figures.losses(dev)?;
                let lr = trainer.update(dev, &grads, losses)?;
                // Here, where the update is logged, and nowhere before it, the host waits for the device.
                let seen = dealt.queued(done, figures.stats).read(dev)?;
                let stats = trainer.stats(dev, "the policy loss", seen.stats.loss, observer)?;
                metrics.update(&seen, stats, lr, &PolicyLoss::from(config));
            }
        }
        dev.release(mark);
        Ok(())
    }

    /// The journal of the step that comes next, those of steps that a checkpoint has removed.
    fn journal(&self, dev: &Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<Journal> {
        if trainer.leads() {
            journal::forget(&self.dir, trainer.step_on_disk()?)?;
        }
        // The others begin theirs in a folder that is not being cleared.
        trainer.ranks.await_all("the journal of a step", &[])?;
        let journal = Journal::open(&self.dir, trainer.step + 1, trainer.ranks.rank(), &trainer.state(dev))?;
        if journal.ended() > 0 {
            let (step, ended) = (trainer.step + 1, journal.ended());
            observer.note(&format!("step {step}: {ended} rollouts are in the journal and not asked for again"));
        }
        Ok(journal)
    }

    fn rollout_rows(
        &self,
        rollouts: &[&Rollout],
        (questions, numbers): (&[&Question], &[u64]),
        rewards: &[f64],
        advantages: &[f64],
    ) -> Vec<RolloutRow> {
        let row = |(i, r): (usize, &&Rollout)| RolloutRow {
            prompt: numbers[r.question],
            rollout: r.output.rollout as u32,
            id: questions[r.question].row.id.clone(),
            input: ask::prompt_text(&self.chat, &questions[r.question].prompt),
            output: r.response.clone(),
            gts: questions[r.question].row.ground_truth.clone().unwrap_or_default(),
            score: rewards[i],
            acc_score: r.score.acc_score,
            format_reward_score: r.score.format_reward_score,
            predict_str: r.score.predict_str.clone(),
            advantage: advantages[i],
            response_length: r.output.token_ids.len() as u32,
            token_ids: r.output.token_ids.clone(),
            log_probs: r.output.logprobs.clone(),
            finish_reason: r.output.finish_reason.as_str().to_owned(),
            judge: match &r.judge {
                None => String::new(),
                Some(Ruling::Said(number)) => number.to_string(),
                Some(Ruling::Unjudged(_)) => "unjudged".to_owned(),
            },
        };
        rollouts.iter().enumerate().map(row).collect()
    }

    fn policy(&self, allowed: Tensor) -> Policy {
        Policy { allowed: Some(allowed), temperature: self.config.rollout.temperature as f32 }
    }
}

impl job::Job for Job {
    fn data(&self) -> &Dataset {
        &self.data
    }

    /// The larger of a rollout's and an update's; see [`plan::rl`]. The cache of keys then has its size.
    fn plan(&mut self, target: Target) -> Result<Plan> {
        let target = target.within(gib_to_bytes(self.config.max_memory_gib));
        let bitmap = allowed_ids(&self.model_config, &self.chat);
        let (config, place) = (&self.config, (target, self.ranks));
        let (planned, num_kv_blocks) = plan::rl(self.model_config.clone(), config, place, &bitmap, &self.index)?;
        (self.levels, self.num_kv_blocks) = (planned.levels, num_kv_blocks);
        let dtype = DType::of(self.config.dtype, target.kind);
        match &mut self.validation {
            Some(validation) => validation.plan(planned.memory, (&self.model_config, dtype), None, target, plan::LOWER),
            None => Ok(planned.memory),
        }
    }

    fn levels(&self) -> Levels {
        self.levels
    }

    fn steps(&self, dev: &mut Device, trainer: &mut Trainer, observer: &dyn Observer) -> Result<()> {
        let config = &self.config;
        let reference = match config.has_reference() {
            true => Some(Model::load(dev, &self.model, DType::of(config.dtype, dev.kind()))?),
            false => None,
        };
        let bitmap = allowed_ids(&self.model_config, &self.chat);
        let allowed = dev.upload(Region::State, &bitmap, &[bitmap.len()])?;
        let leads = trainer.leads();
        ranks::by_first(trainer.ranks, "the rows' index", || self.data.keep(observer))?;
        self.data.record_pictures()?;
        let mut broken = Broken::new(&self.dir, &self.data, config.max_bad_rows, &trainer.extra, leads, observer)?;
        let mut loader = self.loader(trainer.samples_consumed)?;
        if let Some(validation) = &self.validation {
            validation.before(dev, trainer, observer)?;
        }
        observer.begin("rl", "steps", self.total_steps, trainer.step);
        while trainer.step < self.total_steps {
            let start = Instant::now();
            let mut journal = self.journal(dev, trainer, observer)?;
            let batch = dev.range(format_args!("rollout"), |dev| {
                let next = || {
                    let sound = broken.sound(loader.take()?);
                    let found = broken.found();
                    broken.record(found).map(|()| sound)
                };
                self.ask(dev, trainer, allowed, next, (&mut journal, observer))
            })?;
            let gen_time = seconds(start.elapsed());
            let mut metrics = StepMetrics::new(trainer.step + 1);
            let questions: Vec<&Question> = batch.questions.iter().map(|question| &**question).collect();
            let rollouts: Vec<&Rollout> = batch.groups.iter().flat_map(|g| &g.rollouts).collect();
            let mut rewards: Vec<f64> = batch.groups.iter().flat_map(|g| g.rewards.iter().copied()).collect();
            let policy = self.policy(allowed);
            let asked = (&rollouts[..], &questions[..]);
            let by = reference.as_ref().map(|reference| (reference, policy));
            let learned = self.learned_from(dev, trainer, asked, by, (&mut rewards[..], &mut metrics))?;
            metrics.rollouts(&rollouts, &questions, &rewards, &learned.advantages, config.max_response_length);
            if let Some(name) = self.scorer.judge() {
                let mut judge = judge::Summary::new(name);
                rollouts.iter().for_each(|rollout| judge.count(rollout.judge.as_ref()));
                metrics.judge(&judge);
            }
            let only = self.only.is_some_and(|(step, _)| step == trainer.step + 1);
            if only || leads && config.rollout_freq.is_some_and(|n| (trainer.step + 1).is_multiple_of(n)) {
                let rows = self.rollout_rows(&rollouts, (&questions, &batch.numbers), &rewards, &learned.advantages);
                rollout::file::write(&self.dir, trainer.step + 1, &rows)?;
            }
            if only {
                return Err(Error::Stopped);
            }
            let update_start = Instant::now();
            let learned_from = (&learned.experience[..], &questions[..]);
            self.update(dev, trainer, learned_from, policy, &mut metrics, observer)?;
            trainer.step += 1;
            trainer.samples_consumed = batch.consumed;
            broken.keep(&mut trainer.extra)?;
            learned.keep(&mut trainer.extra);
            let response_tokens: usize = rollouts.iter().map(|r| r.output.token_ids.len()).sum();
            metrics.set("training/num_response_tokens", response_tokens as f64);
            metrics.set("training/epoch", batch.consumed as f64 / self.index.len() as f64);
            metrics.set("train/num_gen_batches", batch.num_gen_batches as f64);
            metrics.set("timing_s/gen", gen_time);
            metrics.set("timing_s/update_actor", seconds(update_start.elapsed()));
            metrics.set("timing_s/step", seconds(start.elapsed()));
            metrics.set("perf/rollout_tokens_per_second", response_tokens as f64 / gen_time);
            metrics.set(metrics::MEMORY, metrics::memory(dev));
            metrics.sampler(&batch.stats);
            metrics.throughput(seconds(start.elapsed()));
            if let Some(validation) = &self.validation {
                validation.after(dev, trainer, self.total_steps, observer, metrics.values_mut())?;
            }
            trainer.log.append(metrics.values())?;
            observer.step(trainer.step, &metrics.figures());
            trainer.save_if_due(dev, observer)?;
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
            "prompts_left_out": self.data.rejected.rejected.len(),
            "seconds": metrics::sum(log, "timing_s/step"),
            "rollout_tokens_per_sec": metrics::sum(log, "training/num_response_tokens") / f64::max(sampling, 1e-9),
        }))
    }

    fn settled(&self, step: u64) -> Result<()> {
        journal::forget(&self.dir, step)
    }

    fn trainer_config(&self) -> TrainerConfig {
        let c = &self.config;
        TrainerConfig {
            dir: self.dir.clone(),
            model: self.model.clone(),
            dtype: c.dtype,
            optimizer: c.optimizer,
            warmup_steps: c.warmup_steps,
            total_steps: self.total_steps,
            lanes: c.lanes(),
            seed: c.seed,
            config_text: deciding(c),
            save_steps: c.save_freq,
            save_seconds: c.save_seconds,
            keep: Keep { newest: c.save_total_limit, every: c.keep_every },
            save_on_stop: c.save_on_stop,
            resume: c.resume.clone(),
            reference: c.has_reference(),
            val_files: c.validation.val_files.clone(),
            val_task_files: self.validation.as_ref().map(Validation::task_files).unwrap_or_default(),
            accept_changed: c.accept_changed.clone(),
        }
    }
}
