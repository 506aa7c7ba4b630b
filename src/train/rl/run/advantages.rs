//! Computes the advantages of a step's groups from their rewards, after the KL divergence from the reference is
//! subtracted if the config requires it.

use super::job::{RlJob, Run};
use super::sample::Batch;
use crate::rl::advantage;
use crate::rl::experience::Experience;
use crate::rl::group::{Group, ResponseId, borders, responses};
use crate::rl::kl::{KL_COEF, kl_in_reward, next_kl_coef};
use crate::rl::metrics::StepMetrics;
use crate::rl::update::{self, Reference};
use crate::training::timeline::Activity;
use crate::training::trainer::Trainer;
use omr_base::config::{AdvEstimator, KlCtrlType};
use omr_base::error::{Error, Result};
use omr_runtime::device::Device;
use omr_runtime::ranks;

impl RlJob {
    /// Computes the advantage of each response (0 for one without a score), and the reference's log-probs if the loss needs them. If the config
    /// requires it, the divergence from the reference is first subtracted from the rewards.
    pub(super) fn compute_advantages(
        &self,
        run: &Run<'_>,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        batch: &mut Batch,
        metrics: &mut StepMetrics,
    ) -> Result<()> {
        let config = &self.config;
        if let Some(model) = &run.reference {
            let reference = Reference { model, policy: self.policy(run.allowed) };
            self.compute_log_prob(dev, trainer, &mut batch.groups, reference, |one| &mut one.ref_log_prob)?;
        }
        if let Some(teacher) = &run.teacher {
            let reference = teacher.reference();
            self.compute_log_prob(dev, trainer, &mut batch.groups, reference, |one| &mut one.teacher_log_prob)?;
            metrics.set("distillation/k1/mean", mean_k1(&batch.groups));
        }
        if config.use_kl_in_reward {
            batch.kl_coef = self.apply_kl_penalty(trainer, &mut batch.groups, metrics);
        }
        let factor = if config.uses_rewards() { 1.0 } else { 0.0 };
        // The responses with an advantage.
        let mut learned: Vec<&mut Experience> = Vec::new();
        for group in &mut batch.groups {
            let rewards = match config.adv_estimator {
                AdvEstimator::Raft => group.rollouts.iter().map(|r| r.score.accuracy()).collect(),
                _ => group.rewards(),
            };
            let advantages = advantage::of_scored(&rewards, |rewards| match config.adv_estimator {
                AdvEstimator::Grpo => advantage::grpo(rewards, config.norm_adv_by_std_in_grpo),
                AdvEstimator::Rloo => advantage::rloo(rewards),
                AdvEstimator::ReinforcePlusPlus => rewards.to_vec(),
                AdvEstimator::ReinforcePlusPlusBaseline => advantage::grpo(rewards, false),
                AdvEstimator::Raft => advantage::raft(rewards),
            });
            for (one, advantage) in group.experience.iter_mut().zip(advantages) {
                one.advantage = factor * advantage.unwrap_or(0.0);
                // If the loss does not use these log-probs, the plan has no memory for them.
                one.ref_log_prob.take_if(|_| !config.use_kl_loss);
                learned.extend(advantage.map(|_| one));
            }
        }
        if config.adv_estimator.whitens() {
            let tokens = |one: &Experience| if one.is_masked { 0 } else { one.old_log_prob.len() };
            let mut values: Vec<_> = learned.iter().map(|one| (one.advantage, tokens(one))).collect();
            advantage::whiten(&mut values);
            learned.into_iter().zip(values).for_each(|(one, (advantage, _))| one.advantage = advantage);
        }
        Ok(())
    }

    /// Computes the log-probs of the responses under another model and stores them in `place`. The responses are divided
    /// among the ranks by question, and the log-probs are then sent to all ranks.
    fn compute_log_prob(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        groups: &mut [Group],
        reference: Reference<'_>,
        place: fn(&mut Experience) -> &mut Option<Vec<f32>>,
    ) -> Result<()> {
        const WHAT: &str = "the log-probs of the reference or the teacher";
        let (all, size) = (responses(groups), trainer.ranks.size());
        let of_rank = |rank: usize, groups: &[Group]| -> Vec<ResponseId> {
            all.iter().copied().filter(|id| groups[id.group].index % size == rank).collect()
        };
        let (mine, tokens) = (of_rank(trainer.ranks.rank(), groups), self.config.micro_batch_tokens);
        let work = || update::ref_log_prob(dev, reference, groups, &mine, tokens);
        let own = trainer.timeline.host(Activity::Reference, work);
        let own = ranks::agreed(trainer.ranks, WHAT, own)?.concat();
        for (rank, bytes) in trainer.ranks.gather(WHAT, bytemuck::cast_slice(&own))?.iter().enumerate() {
            let mut found = bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter();
            for id in of_rank(rank, groups) {
                let one = &mut groups[id.group].experience[id.rollout];
                let log_prob: Vec<f32> = found.by_ref().take(one.old_log_prob.len()).collect();
                if log_prob.len() != one.old_log_prob.len() {
                    return Err(Error::Failed(format!("{WHAT}: rank {rank} sent too few")));
                }
                *place(one) = Some(log_prob);
            }
        }
        Ok(())
    }

    /// Subtracts the divergence from the reference from the rewards. Returns the next weight of the divergence if it is
    /// adaptive.
    fn apply_kl_penalty(&self, trainer: &Trainer<'_>, groups: &mut [Group], metrics: &mut StepMetrics) -> Option<f64> {
        let mut experience: Vec<&mut Experience> = groups.iter_mut().flat_map(|group| &mut group.experience).collect();
        let borders = borders(experience.iter().map(|one| &**one));
        let old_log_prob: Vec<f32> = experience.iter().flat_map(|one| one.old_log_prob.iter().copied()).collect();
        let ref_log_prob: Vec<f32> =
            experience.iter().flat_map(|one| one.ref_log_prob.iter().flatten().copied()).collect();
        // The divergence of a response without a score counts, too; its reward is not used.
        let rewards: Vec<f64> = experience.iter().map(|one| one.reward.unwrap_or(0.0)).collect();
        let mut kl_ctrl = self.config.kl_ctrl.clone();
        let kept = trainer.extra.get(KL_COEF).filter(|_| kl_ctrl.r#type == KlCtrlType::Adaptive);
        kl_ctrl.kl_coef = kept.and_then(|kl_coef| kl_coef.as_f64()).unwrap_or(kl_ctrl.kl_coef);
        let (coef, mask) = (kl_ctrl.kl_coef, vec![1; old_log_prob.len()]);
        let penalty = self.config.kl_penalty;
        let less = kl_in_reward(penalty, coef, &borders, &mask, &old_log_prob, &ref_log_prob, &rewards);
        experience.iter_mut().zip(&less.scores).for_each(|(one, score)| one.reward = one.reward.and(Some(*score)));
        metrics.set("actor/reward_kl_penalty", less.reward_kl_penalty);
        metrics.set("actor/reward_kl_penalty_coeff", coef);
        let next = next_kl_coef(&kl_ctrl, less.reward_kl_penalty, rewards.len());
        (kl_ctrl.r#type == KlCtrlType::Adaptive).then_some(next)
    }
}

/// Returns the mean over all response tokens of the log-prob under the policy that sampled them minus the teacher's.
fn mean_k1(groups: &[Group]) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for one in groups.iter().flat_map(|group| &group.experience) {
        let pairs = one.old_log_prob.iter().zip(one.teacher_log_prob.iter().flatten());
        sum += pairs.map(|(own, teacher)| f64::from(*own) - f64::from(*teacher)).sum::<f64>();
        count += one.old_log_prob.len();
    }
    sum / count.max(1) as f64
}
