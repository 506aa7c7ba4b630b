//! Samples and scores the rollouts of a step: distributes its questions over the ranks, gathers the scored rollouts, and
//! puts them into groups.

use std::collections::{BTreeMap, HashMap};

use super::job::{RlJob, Run};
use crate::rl::domains::domain;
use crate::rl::experience::Experience;
use crate::rl::group::Group;
use crate::rl::{filter, overlong, plan};
use crate::training::timeline::Activity;
use crate::training::trainer::Trainer;
use omr_base::config::FilterMetric;
use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_data::reward::judge;
use omr_model::engine::scheduler::SchedulerStats;
use omr_model::engine::{EngineConfig, FinishReason, draft};
use omr_model::llm;
use omr_model::rollout::file::{self, RolloutRow};
use omr_model::rollout::generate::{self, Numbers};
use omr_model::rollout::journal::{self, Journal};
use omr_model::rollout::{Question, Rollout, RolloutRequest, wire};
use omr_runtime::device::Device;
use omr_runtime::tensor::Tensor;

/// The groups of a step, from one generation batch or as many as dynamic sampling needs.
pub(super) struct Batch {
    /// Number of the step, counted from 1.
    pub step: u64,
    /// The groups to train on.
    pub groups: Vec<Group>,
    /// Number of questions that the run has consumed after this step.
    pub consumed: u64,
    /// Number of generation batches.
    pub num_gen_batches: usize,
    /// Number of tokens of all responses, also of groups that dynamic sampling leaves out.
    pub sampled_tokens: usize,
    /// Verdicts of the judge about all responses.
    pub judge: judge::Summary,
    /// Weight of the KL divergence in the rewards of the next step, if it is adaptive.
    pub kl_coef: Option<f64>,
    /// Number of prompts of each domain that were drawn, with `per_batch_domain_weights`.
    pub drawn: BTreeMap<String, usize>,
    /// Counts of this rank's engine.
    pub stats: SchedulerStats,
    /// Finished rollouts of the step.
    journal: Journal,
    /// Recorded rollouts of the step, if a recorded run is computed again.
    recorded: Option<HashMap<journal::Name, Vec<u32>>>,
    num_questions: usize,
}

impl RlJob {
    /// Creates the batch of the next step, without groups.
    pub(super) fn batch(&self, dev: &Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<Batch> {
        let step = trainer.step + 1;
        Ok(Batch {
            step,
            groups: Vec::new(),
            consumed: trainer.samples_consumed,
            num_gen_batches: 0,
            sampled_tokens: 0,
            judge: judge::Summary::new(self.scorer.judge().unwrap_or_default()),
            kl_coef: None,
            drawn: BTreeMap::new(),
            stats: SchedulerStats::default(),
            journal: self.journal(dev, trainer, observer)?,
            recorded: self.recorded(step)?,
            num_questions: 0,
        })
    }

    /// Opens the journal of the next step, and removes the journals of steps that a checkpoint contains.
    fn journal(&self, dev: &Device, trainer: &mut Trainer<'_>, observer: &dyn Observer) -> Result<Journal> {
        if trainer.leads() {
            journal::forget(&self.common.dir, trainer.step_on_disk()?)?;
        }
        // The other ranks create their journals only after the folder is cleared.
        trainer.ranks.await_all("the journal of a step", &[])?;
        let (step, rank, run) = (trainer.step + 1, trainer.ranks.rank(), trainer.state(dev).without_arithmetic());
        let journal = Journal::open(&self.common.dir, step, rank, &run, dev.arithmetic(), self.scorer.files_hash())?;
        if journal.ended() > 0 {
            let ended = journal.ended();
            observer.note(&format!(
                "step {step}: {ended} finished rollouts are read from the journal and not generated again"
            ));
        }
        if journal.outdated > 0 {
            let outdated = journal.outdated;
            observer.note(&format!(
                "step {step}: {outdated} scores of the journal are computed again, because a file of the reward command has changed"
            ));
        }
        Ok(journal)
    }

    /// Returns the recorded rollouts of `step`, if a recorded run is computed again.
    fn recorded(&self, step: u64) -> Result<Option<HashMap<journal::Name, Vec<u32>>>> {
        let Some(dir) = &self.recorded else { return Ok(None) };
        let known = |token: &u32| (*token as usize) < self.common.model_config.text.vocab_size;
        let tokens = |row: RolloutRow| row.token_ids.into_iter().take_while(known).collect();
        let named = |row: RolloutRow| ((row.prompt, row.rollout as usize), tokens(row));
        Ok(file::read(dir, step)?.map(|rows| rows.into_iter().map(named).collect()))
    }

    /// Returns the number of the only prompt of `step` that is generated, if the job wants only one.
    pub(super) fn only_prompt(&self, step: u64) -> Option<u64> {
        self.only.filter(|(only, _)| *only == step).map(|(_, prompt)| prompt)
    }

    /// Returns true if `batch` needs no more groups. Errors if dynamic sampling has generated all its batches and groups
    /// are still missing.
    pub(super) fn is_complete(&self, batch: &Batch) -> Result<bool> {
        let Batch { step, groups, num_gen_batches, .. } = batch;
        match *num_gen_batches {
            0 => Ok(false),
            _ if !self.config.filter_groups.enable => Ok(true),
            _ if self.only_prompt(*step).is_some() && !groups.is_empty() => Ok(true),
            batches => {
                let missing = || self.domains.as_ref().map(|domains| domains.missing(groups)).unwrap_or_default();
                filter::is_complete(&self.config, *step, groups.len(), batches, missing)
            }
        }
    }

    /// Returns the questions of the next generation batch as groups without responses.
    pub(super) fn next_groups(&self, run: &mut Run<'_>, batch: &mut Batch) -> Result<Vec<Group>> {
        let mut questions = run.broken.sound(run.loader.take()?);
        if let Some(domains) = &self.domains {
            for question in &questions {
                *batch.drawn.entry(domain(&question.row).to_owned()).or_default() += 1;
            }
            // A group that dynamic sampling left out is replaced from its own domain.
            questions.retain(|question| domains.lacks(&batch.groups, &question.row));
        }
        let found = run.broken.found();
        run.broken.record(found)?;
        let group = |(i, question)| {
            let (index, number) = (batch.num_questions + i, batch.consumed + i as u64);
            Group { index, number, question, rollouts: Vec::new(), experience: Vec::new() }
        };
        let mut groups: Vec<Group> = questions.into_iter().enumerate().map(group).collect();
        if let Some(only) = self.only_prompt(batch.step) {
            groups.retain(|group| group.number == only);
        }
        Ok(groups)
    }

    /// Samples `rollout.n` responses to each question of `groups` and returns them in the order of the questions. The
    /// task scores each response as soon as it ends, while other responses are still being sampled.
    pub(super) fn sample(
        &self,
        run: &Run<'_>,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        groups: &[Group],
        batch: &mut Batch,
    ) -> Result<Vec<Rollout>> {
        // Any rank can process any question, because the noise depends on the question's number.
        let (rank, size) = (trainer.ranks.rank(), trainer.ranks.size());
        let questions: Vec<&Question> = groups.iter().skip(rank).step_by(size).map(|group| &*group.question).collect();
        let first = groups.first().map_or(0, |group| group.number);
        let numbers = Numbers { first: first + rank as u64, every: size as u64 };
        let params = plan::params(&self.config, trainer.step, self.chat.turn.stops.clone());
        let request = RolloutRequest {
            engine: self.engine_config(run.allowed),
            n: self.config.rollout.n,
            params: &params,
            chat: &self.chat,
            task: &self.task,
            recorded: batch.recorded.as_ref(),
        };
        let check_stop = |_| if run.observer.stop_requested() { Err(Error::Stopped) } else { Ok(()) };
        let journal = Some(&mut batch.journal);
        let generated = generate::generate(dev, &trainer.model, &questions, numbers, request, journal, check_stop);
        let rollouts = generated.map(|generated| {
            batch.stats += generated.stats;
            trainer.timeline.add(Activity::Sampling, [generated.sampling]);
            trainer.timeline.add(Activity::Scoring, generated.scoring);
            generated.rollouts
        });
        wire::gathered(trainer.ranks, rollouts, groups.len() * self.config.rollout.n)
    }

    fn engine_config(&self, allowed: Tensor) -> EngineConfig {
        let prompts = plan::share(&self.config, self.common.ranks);
        let vision_rows = llm::vision_rows(&self.common.model_config, &self.common.index, prompts);
        let mut engine = plan::engine_config(&self.config, vision_rows, self.num_kv_blocks, allowed);
        if self.recorded.is_some() {
            // Limit the rows to the number that was planned for.
            engine.draft_rows = draft::ROWS.min(prompts * self.config.rollout.n);
        }
        engine
    }

    /// Puts `rollouts` into their `groups`, gives each response its score with the penalty for long responses, and adds
    /// the groups to `batch`. Dynamic sampling leaves out groups without differences and surplus groups.
    pub(super) fn score(&self, mut groups: Vec<Group>, rollouts: Vec<Rollout>, batch: &mut Batch) {
        let (config, buffer) = (&self.config, &self.config.overlong_buffer);
        for (i, rollout) in rollouts.into_iter().enumerate() {
            batch.sampled_tokens += rollout.output.token_ids.len();
            batch.judge.count(rollout.judge.as_ref());
            let group = &mut groups[i / config.rollout.n];
            let penalty = match buffer.enable {
                true => overlong::penalty(buffer, config.max_response_length, rollout.output.token_ids.len()),
                false => 0.0,
            };
            let made = Experience::new(&group.question, &rollout, rollout.score.score.map(|score| score + penalty));
            let is_masked = config.mask_truncated_completions && rollout.output.finish_reason == FinishReason::Length;
            group.experience.push(Experience { is_masked, ..made });
            group.rollouts.push(rollout);
        }
        batch.consumed += config.gen_batch() as u64;
        batch.num_gen_batches += 1;
        batch.num_questions += groups.len();
        let keeps_all = !config.filter_groups.enable || self.only_prompt(batch.step).is_some();
        let kept = |group: &Group| keeps_all || filter::keeps(&self.filter_metric(group));
        for group in groups.into_iter().filter(kept) {
            let full = self.domains.as_ref().is_some_and(|all| !all.lacks(&batch.groups, &group.question.row));
            if !full && batch.groups.len() < config.train_batch_size {
                batch.groups.push(group);
            }
        }
    }

    fn filter_metric(&self, group: &Group) -> Vec<Option<f64>> {
        match self.config.filter_groups.metric {
            FilterMetric::Acc => group.rollouts.iter().map(|r| r.score.accuracy()).collect(),
            FilterMetric::Score => group.rollouts.iter().map(|r| r.score.score).collect(),
            FilterMetric::SeqReward | FilterMetric::SeqFinalReward => group.rewards(),
        }
    }
}
