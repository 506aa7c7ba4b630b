//! Computes the advantages of a step's groups from their rewards, after the KL divergence from the reference is
//! subtracted if the config requires it.

use super::Job;
use crate::config::AdvEstimator;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::rl::advantage;
use crate::rl::experience::Experience;
use crate::rl::group::{Group, ResponseId, borders, responses};
use crate::rl::kl::{KL_COEF, KlCtrl, kl_in_reward};
use crate::rl::metrics::StepMetrics;
use crate::rl::update::{self, Dealt, Reference};
use crate::train::timeline::Activity;
use crate::train::trainer::Trainer;

impl Job {
    /// Computes the advantage of each response, and the reference's log-probs if the loss needs them. If the config
    /// requires it, the divergence from the reference is first subtracted from the rewards. Returns the next weight of
    /// the divergence if it is adaptive.
    pub(super) fn learn(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        groups: &mut [Group],
        reference: Option<Reference<'_>>,
        metrics: &mut StepMetrics,
    ) -> Result<Option<f64>> {
        let config = &self.config;
        let kl_coef = match reference.filter(|_| config.use_kl_in_reward) {
            Some(reference) => self.take_kl_off(dev, trainer, groups, reference, metrics)?,
            None => None,
        };
        for group in &mut *groups {
            let advantages = match config.adv_estimator {
                AdvEstimator::Grpo => advantage::grpo(&group.rewards(), config.norm_adv_by_std_in_grpo),
                AdvEstimator::Raft => {
                    advantage::raft(&group.rollouts.iter().map(|r| r.score.acc_score).collect::<Vec<_>>())
                }
            };
            group.experience.iter_mut().zip(advantages).for_each(|(one, advantage)| one.advantage = advantage);
        }
        match reference {
            Some(reference) if !config.use_kl_in_reward => self.reference(dev, trainer, groups, reference)?,
            // The loss does not use these log-probs, and the plan has no memory for them.
            _ if !config.use_kl_loss => {
                groups.iter_mut().flat_map(|group| &mut group.experience).for_each(|one| one.ref_log_prob = None);
            }
            _ => {}
        }
        Ok(kl_coef)
    }

    /// Subtracts the divergence from the reference from the rewards. Returns the next weight of the divergence if it is
    /// adaptive. The responses are divided among the ranks by question, and the log-probs are then sent to all ranks.
    fn take_kl_off(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        groups: &mut [Group],
        reference: Reference<'_>,
        metrics: &mut StepMetrics,
    ) -> Result<Option<f64>> {
        const WHAT: &str = "the reference's log-probs";
        let (config, size) = (&self.config, trainer.ranks.size());
        let all = responses(groups);
        let of_rank = |rank: usize, groups: &[Group]| -> Vec<ResponseId> {
            all.iter().copied().filter(|id| groups[id.group].index % size == rank).collect()
        };
        let mine = of_rank(trainer.ranks.rank(), groups);
        let work = || update::reference(dev, reference, groups, mine.clone(), config.micro_batch_tokens);
        let done = trainer.timeline.host(Activity::Reference, work);
        trainer.agreed(WHAT, done)?;
        let found = |id: &ResponseId| id.of(groups).ref_log_prob.iter().flatten().copied();
        let own: Vec<f32> = mine.iter().flat_map(found).collect();
        for (rank, bytes) in trainer.ranks.gather(WHAT, bytemuck::cast_slice(&own))?.iter().enumerate() {
            let mut words = bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            for id in of_rank(rank, groups) {
                let one = &mut groups[id.group].experience[id.rollout];
                let log_probs: Vec<f32> = words.by_ref().take(one.old_log_prob.len()).collect();
                if log_probs.len() != one.old_log_prob.len() {
                    return Err(Error::Failed(format!("{WHAT}: rank {rank} sent too few")));
                }
                one.ref_log_prob = Some(log_probs);
            }
        }

        let mut experience: Vec<&mut Experience> = groups.iter_mut().flat_map(|group| &mut group.experience).collect();
        let borders = borders(experience.iter().map(|one| &**one));
        let old: Vec<f32> = experience.iter().flat_map(|one| one.old_log_prob.iter().copied()).collect();
        let by_reference: Vec<f32> =
            experience.iter().flat_map(|one| one.ref_log_prob.iter().flatten().copied()).collect();
        let rewards: Vec<f64> = experience.iter().map(|one| one.reward).collect();
        let mut weight = KlCtrl::from(&config.kl_ctrl);
        if let (KlCtrl::Adaptive { kl_coef, .. }, Some(kept)) = (&mut weight, trainer.extra.get(KL_COEF)) {
            *kl_coef = kept.as_f64().unwrap_or(*kl_coef);
        }
        let (coef, mask) = (weight.kl_coef(), vec![1; old.len()]);
        let less = kl_in_reward(config.kl_penalty, coef, &borders, &mask, &old, &by_reference, &rewards);
        experience.iter_mut().zip(&less.scores).for_each(|(one, score)| one.reward = *score);
        metrics.set("actor/reward_kl_penalty", less.reward_kl_penalty);
        metrics.set("actor/reward_kl_penalty_coeff", coef);
        weight.update(less.reward_kl_penalty, rewards.len());
        Ok(match weight {
            KlCtrl::Adaptive { kl_coef, .. } => Some(kl_coef),
            KlCtrl::Fixed { .. } => None,
        })
    }

    /// Computes the reference's log-probs of the responses that this rank trains on.
    fn reference(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        groups: &mut [Group],
        reference: Reference<'_>,
    ) -> Result<()> {
        let (config, size) = (&self.config, self.config.ppo_mini_batch_size);
        let (rank, ranks) = (trainer.ranks.rank(), trainer.ranks.size());
        let mut mine = Vec::new();
        for (at, batch) in groups.chunks(size).enumerate() {
            let dealt = Dealt::new(config, trainer.step, batch, config.lanes());
            let own = dealt.micro_batches(config.micro_batch_tokens)?.into_iter().skip(rank).step_by(ranks);
            mine.extend(own.flat_map(|part| part.responses).map(|id| ResponseId { group: at * size + id.group, ..id }));
        }
        let work = || update::reference(dev, reference, groups, mine, self.config.micro_batch_tokens);
        let done = trainer.timeline.host(Activity::Reference, work);
        trainer.agreed("the reference's log-probs", done)
    }
}
