//! Records the metrics and the rollouts of a step, and ends it with a checkpoint if one is due.

use std::sync::Arc;
use std::time::Instant;

use super::job::{RlJob, Run};
use super::sample::Batch;
use crate::rl::experience::Experience;
use crate::rl::group::Group;
use crate::rl::kl::KL_COEF;
use crate::rl::metrics::StepMetrics;
use crate::training::metrics;
use crate::training::trainer::Trainer;
use omr_base::config::AdvEstimator;
use omr_base::error::{Error, Result};
use omr_data::image::{ImageInput, thumbnail};
use omr_data::reward::judge::Ruling;
use omr_data::reward::shares::{Shares, all_zero};
use omr_model::rollout::file::RolloutRow;
use omr_model::rollout::{self, Rollout};
use omr_runtime::device::Device;

/// Times of a step.
pub(super) struct Times {
    /// Start of the step.
    pub start: Instant,
    /// Number of seconds for sampling and scoring.
    pub generation: f64,
    /// Number of seconds for the updates.
    pub update: f64,
}

/// True if the rollouts of `step` of `last` are recorded: of the first, the last and each `every`-th step.
fn is_due(step: u64, every: Option<u64>, last: u64) -> bool {
    every.is_some_and(|n| step == 1 || step == last || step.is_multiple_of(n))
}

impl RlJob {
    /// Records the metrics of the step's rollouts, and writes the rollouts if they are due. Ends the run with
    /// [`Error::Stopped`] if only the rollouts of a prompt of this step are wanted.
    pub(super) fn record_rollouts(
        &self,
        run: &mut Run<'_>,
        trainer: &Trainer<'_>,
        Batch { step, groups, judge, .. }: &Batch,
        metrics: &mut StepMetrics,
    ) -> Result<()> {
        metrics.rollouts(groups, self.config.max_response_length);
        let rollouts = || groups.iter().flat_map(|group| &group.rollouts);
        let zero = all_zero(rollouts().map(|rollout| (rollout.response.as_str(), &rollout.score)));
        let mut warnings: Vec<String> = zero.filter(|_| self.config.uses_rewards()).into_iter().collect();
        if self.scorer.is_strict() {
            let mut shares = Shares::default();
            rollouts().for_each(|rollout| shares.count(&rollout.response, &rollout.score.why));
            shares.named().iter().for_each(|(name, share)| metrics.set(&format!("critic/score/{name}"), *share));
            warnings.extend(shares.warning());
        }
        let is_any = |of: fn(f64) -> bool| rollouts().any(|rollout| of(rollout.score.acc_score));
        if self.config.adv_estimator == AdvEstimator::Raft && !is_any(|acc| acc == 1.0) && is_any(|acc| acc > 0.0) {
            warnings.push("raft trains on answers with acc_score 1, and no answer has it".to_owned());
        }
        if !warnings.is_empty() && !std::mem::replace(&mut run.warned, true) {
            warnings.iter().for_each(|line| run.observer.note(&format!("step {step}: {line}")));
        }
        if self.scorer.judge().is_some() {
            metrics.judge(judge);
        }
        let only = self.only_prompt(*step).is_some();
        let is_due = is_due(*step, self.config.rollout_freq, self.common.total_steps);
        if only || trainer.leads() && is_due {
            rollout::file::write(&self.common.dir, *step, &self.rollout_rows(groups))?;
        }
        if only { Err(Error::Stopped) } else { Ok(()) }
    }

    /// Ends the step: logs its metrics, validates, and saves a checkpoint. Validation and checkpoint happen only if they
    /// are due.
    pub(super) fn save(
        &self,
        run: &Run<'_>,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        batch: Batch,
        mut metrics: StepMetrics,
        times: Times,
    ) -> Result<()> {
        trainer.step = batch.step;
        trainer.samples_consumed = batch.consumed;
        run.broken.keep(&mut trainer.extra)?;
        trainer.extra.extend(batch.kl_coef.map(|kl_coef| (KL_COEF.to_owned(), kl_coef.into())));
        let response_tokens = batch.sampled_tokens as f64;
        metrics.set("training/num_response_tokens", response_tokens);
        metrics.set("training/epoch", batch.consumed as f64 / self.common.index.len() as f64);
        metrics.set("train/num_gen_batches", batch.num_gen_batches as f64);
        metrics.set("timing_s/gen", times.generation);
        metrics.set("timing_s/update_actor", times.update);
        metrics.set("timing_s/step", times.start.elapsed().as_secs_f64());
        metrics.set("perf/rollout_tokens_per_second", response_tokens / times.generation);
        metrics.set(metrics::MEMORY, metrics::memory(dev));
        metrics.domains(&batch.drawn, &batch.groups);
        metrics.sampler(&batch.stats);
        metrics.throughput(times.start.elapsed().as_secs_f64());
        let figures = metrics.figures();
        self.common.end_step(dev, trainer, metrics.values, &figures, run.observer)
    }

    /// Returns the rollouts of a step as rows of its file.
    fn rollout_rows(&self, groups: &[Group]) -> Vec<RolloutRow> {
        let rewards: Vec<Vec<f64>> =
            groups.iter().map(|group| group.rewards().into_iter().flatten().collect()).collect();
        let mut rows: Vec<Vec<RolloutRow>> = groups.iter().map(|group| self.group_rows(group)).collect();
        for i in rollout::file::shown_groups(&rewards) {
            let small = |image: &Arc<ImageInput>| thumbnail(image.first_frame(), rollout::file::PICTURE_SIDE);
            if let Some(first) = rows[i].first_mut() {
                first.images = groups[i].question.prompt.pixels.iter().filter_map(small).collect();
            }
        }
        rows.concat()
    }

    fn group_rows(&self, group: &Group) -> Vec<RolloutRow> {
        let question = group.question.row.messages.iter().rfind(|message| message.role == "user");
        let question: String =
            question.iter().flat_map(|message| &message.content).filter_map(|part| part.text()).collect();
        let opened = self.chat.opened(group.question.row.prompt()).unwrap_or_default();
        let row = |(rollout, learned): (&Rollout, &Experience)| RolloutRow {
            prompt: group.number,
            rollout: rollout.output.index as u32,
            id: group.question.row.id.clone(),
            input: self.chat.tokenizer.decode(&group.question.prompt.token_ids, false),
            output: rollout.response.clone(),
            opened: opened.clone(),
            gts: group.question.row.ground_truth.clone().unwrap_or_default(),
            score: learned.score,
            reward: learned.reward,
            acc_score: rollout.score.accuracy(),
            format_reward_score: rollout.score.format_reward_score,
            predict_str: rollout.score.predict_str.clone(),
            advantage: learned.advantage,
            response_length: rollout.output.token_ids.len() as u32,
            token_ids: rollout.output.token_ids.clone(),
            log_probs: rollout.output.logprobs.clone(),
            finish_reason: rollout.output.finish_reason.name().to_owned(),
            judge: match &rollout.judge {
                None => String::new(),
                Some(Ruling::Said(number)) => number.to_string(),
                Some(Ruling::Unjudged(_)) => "unjudged".to_owned(),
            },
            question: question.clone(),
            images: Vec::new(),
        };
        group.rollouts.iter().zip(&group.experience).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::is_due;

    #[test]
    fn a_run_of_few_steps_has_the_rollouts_of_its_first_and_last_step() {
        let recorded = |every, last| (1..=last).filter(|&step| is_due(step, every, last)).collect::<Vec<u64>>();
        assert_eq!(recorded(Some(10), 5), [1, 5]);
        assert_eq!(recorded(Some(10), 1), [1]);
        assert_eq!(recorded(Some(10), 25), [1, 10, 20, 25]);
        assert_eq!(recorded(Some(1), 3), [1, 2, 3]);
        assert!(recorded(None, 5).is_empty());
    }
}
