//! Generates the rollouts of a step: distributes its questions over the ranks, scores and gathers the rollouts, and
//! puts them into groups.

use std::collections::HashMap;
use std::sync::Arc;

use super::Job;
use crate::config::FilterMetric;
use crate::device::{Device, Kind};
use crate::engine::scheduler::SchedulerStats;
use crate::engine::{EngineConfig, draft};
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::rl::experience::Experience;
use crate::rl::filter::{FilterGroups, FilterStatus};
use crate::rl::group::Group;
use crate::rl::overlong::OverlongBuffer;
use crate::rl::plan;
use crate::rollout::file::{self, RolloutRow};
use crate::rollout::generate::Numbers;
use crate::rollout::journal::{self, Journal};
use crate::rollout::{Question, Rollout, RolloutRequest, generate, wire};
use crate::tensor::Tensor;
use crate::train::timeline::Activity;
use crate::train::trainer::Trainer;

type Recorded = HashMap<journal::Name, Vec<u32>>;

/// The result of generating the rollouts of a step.
pub(super) struct Batch {
    pub groups: Vec<Group>,
    pub consumed: u64,
    pub num_gen_batches: usize,
    /// Counts of this rank's engine.
    pub stats: SchedulerStats,
}

impl Job {
    /// Generates the next batch of groups: one generation batch, or as many as dynamic sampling needs. `next` returns
    /// the questions of a generation batch.
    pub(super) fn ask(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        allowed: Tensor,
        mut next: impl FnMut() -> Result<Vec<Arc<Question>>>,
        journal: &mut Journal,
        observer: &dyn Observer,
    ) -> Result<Batch> {
        let config = &self.config;
        let filter = &config.filter_groups;
        let mut wanted = FilterGroups::new(config.train_batch_size, filter.max_num_gen_batches);
        let (mut questions, mut consumed, mut stats) = (0, trainer.samples_consumed, SchedulerStats::default());
        let recorded = self.recorded(trainer.step + 1)?;
        loop {
            let (mut asked, mut first) = (next()?, consumed);
            let only = self.only.filter(|(step, _)| *step == trainer.step + 1);
            if let Some((_, prompt)) = only {
                let at = prompt.checked_sub(consumed).and_then(|at| asked.get(at as usize).cloned());
                (first, asked) = (prompt, at.into_iter().collect());
            }
            let asking = self.asking(dev.kind(), trainer.step, allowed, recorded.as_ref());
            // Any rank can process any question, because the noise depends on the question's number.
            let (rank, size) = (trainer.ranks.rank(), trainer.ranks.size());
            let prompts: Vec<&Question> = asked.iter().skip(rank).step_by(size).map(|question| &**question).collect();
            let noise = Numbers { first: first + rank as u64, every: size as u64 };
            let look = |_| if observer.stop_requested() { Err(Error::Stopped) } else { Ok(()) };
            let rollouts = generate::generate(dev, &trainer.model, &prompts, noise, asking, Some(&mut *journal), look);
            let rollouts = rollouts.map(|generated| {
                stats += generated.stats;
                trainer.timeline.add(Activity::Sampling, [generated.sampling]);
                trainer.timeline.add(Activity::Scoring, generated.scoring);
                generated.rollouts
            });
            let rollouts = wire::gathered(trainer.ranks, rollouts, asked.len() * config.rollout.n)?;
            consumed += config.gen_batch() as u64;
            let asked = asked.into_iter().enumerate().map(|(i, question)| Group {
                index: questions + i,
                number: first + i as u64,
                question,
                rollouts: Vec::new(),
                experience: Vec::new(),
            });
            let groups = self.groups(asked.collect(), rollouts)?;
            questions += groups.len();
            if !filter.enable || only.is_some() && !groups.is_empty() {
                return Ok(Batch { groups, consumed, num_gen_batches: 1, stats });
            }
            let status = wanted.push(groups.into_iter().map(|group| {
                let metric = self.filter_metric(&group);
                (group, metric)
            }));
            match status {
                FilterStatus::NeedMore => {}
                FilterStatus::Ready => {
                    let num_gen_batches = wanted.num_gen_batches();
                    let groups = wanted.finish().0;
                    return Ok(Batch { groups, consumed, num_gen_batches, stats });
                }
                FilterStatus::Exhausted => {
                    let found = format!("{} prompts with differing rewards", wanted.kept().len());
                    let place = format!("filter_groups, step {}", trainer.step + 1);
                    let expected =
                        format!("{} of them within {} batches", config.train_batch_size, wanted.num_gen_batches());
                    return Err(Error::input_hint(place, found, expected, "raise filter_groups.max_num_gen_batches"));
                }
            }
        }
    }

    /// Puts rollouts, which are in the order of `groups`, into their groups, and adds their rewards.
    fn groups(&self, mut groups: Vec<Group>, rollouts: Vec<Rollout>) -> Result<Vec<Group>> {
        let config = &self.config;
        let buffer = &config.overlong_buffer;
        let overlong = match buffer.enable {
            true => Some(OverlongBuffer::new(config.max_response_length, buffer.len, buffer.penalty_factor)?),
            false => None,
        };
        for (i, rollout) in rollouts.into_iter().enumerate() {
            let group = &mut groups[i / config.rollout.n];
            let penalty = overlong.as_ref().map_or(0.0, |o| o.penalty(rollout.output.token_ids.len()));
            group.experience.push(Experience::new(&group.question, &rollout, rollout.score.score + penalty));
            group.rollouts.push(rollout);
        }
        Ok(groups)
    }

    fn filter_metric(&self, group: &Group) -> Vec<f64> {
        match self.config.filter_groups.metric {
            FilterMetric::Acc => group.rollouts.iter().map(|r| r.score.acc_score).collect(),
            FilterMetric::Score => group.rollouts.iter().map(|r| r.score.score).collect(),
            FilterMetric::SeqReward | FilterMetric::SeqFinalReward => group.rewards(),
        }
    }

    /// Returns the recorded rollouts of `step`, if a recorded run is computed again.
    fn recorded(&self, step: u64) -> Result<Option<Recorded>> {
        let Some(dir) = &self.recorded else { return Ok(None) };
        let known = |token: &u32| (*token as usize) < self.common.model_config.text.vocab_size;
        let tokens = |row: RolloutRow| row.token_ids.into_iter().take_while(known).collect();
        let named = |row: RolloutRow| ((row.prompt, row.rollout as usize), tokens(row));
        Ok(file::read(dir, step)?.map(|rows| rows.into_iter().map(named).collect()))
    }

    fn asking<'a>(
        &'a self,
        kind: Kind,
        step: u64,
        allowed: Tensor,
        recorded: Option<&'a Recorded>,
    ) -> RolloutRequest<'a> {
        let r = &self.config.rollout;
        RolloutRequest {
            engine: self.engine_config(kind, step, allowed),
            sampling: plan::sampling(&self.config),
            n: r.n,
            max_tokens: self.config.max_response_length,
            stop_token_ids: &self.stop_token_ids,
            chat: &self.chat,
            task: &self.task,
            recorded,
        }
    }

    fn engine_config(&self, kind: Kind, step: u64, allowed: Tensor) -> EngineConfig {
        let prompts = plan::share(&self.config, self.common.ranks);
        let vision_rows = generate::vision_rows(&self.common.model_config, &self.common.index, prompts);
        let mut engine = plan::engine_config(&self.config, kind, vision_rows, self.num_kv_blocks, allowed, step);
        if self.recorded.is_some() {
            // Limit the rows to the number that was planned for.
            engine.draft_rows = draft::rows_to_verify(engine.draft_rows).min(prompts * self.config.rollout.n);
        }
        engine
    }
}
