//! What a step learns from: rewards, less a divergence where one is taken off, to advantages and experience.

use serde_json::{Map, Value};

use super::Job;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::{Model, Policy};
use crate::rl::advantage;
use crate::rl::experience::Experience;
use crate::rl::kl::{KlCtrl, kl_in_reward};
use crate::rl::metrics::StepMetrics;
use crate::rl::update::{self, Dealt};
use crate::rollout::{Question, Rollout};
use crate::train::trainer::Trainer;

/// The adaptive weight of the divergence, in a checkpoint.
const KL_COEF: &str = "kl_coef";

/// What a step learns from.
pub(super) struct Learned {
    pub experience: Vec<Experience>,
    /// Of each.
    pub advantages: Vec<f64>,
    /// The weight of the divergence after the step, where it moves.
    kl_coef: Option<f64>,
}

impl Learned {
    /// Keeps in `extra`, which a checkpoint holds, what the next step goes on from; called once the step is done.
    pub(super) fn keep(&self, extra: &mut Map<String, Value>) {
        extra.extend(self.kl_coef.map(|kl_coef| (KL_COEF.to_owned(), kl_coef.into())));
    }
}

impl Job {
    /// Rollouts with their advantages, and with the reference's log-probs where the loss wants them. `by` is the reference
    /// and how it picks; what it takes off the rewards is taken off `rewards`.
    pub(super) fn learned_from(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        (rollouts, questions): (&[&Rollout], &[&Question]),
        by: Option<(&Model, Policy)>,
        (rewards, metrics): (&mut [f64], &mut StepMetrics),
    ) -> Result<Learned> {
        let config = &self.config;
        let made = rollouts.iter().map(|rollout| Experience::new(questions[rollout.question], rollout, 0.0));
        let mut experience: Vec<Experience> = made.collect();
        let mut kl_coef = None;
        if let Some(by) = by.filter(|_| config.use_kl_in_reward) {
            kl_coef = self.take_kl_off(dev, trainer, by, (&mut experience[..], questions), (&mut *rewards, metrics))?;
        }
        let ids: Vec<usize> = rollouts.iter().map(|rollout| rollout.question).collect();
        let (advantages, _) = advantage::grpo(&ids, rewards, config.norm_adv_by_std_in_grpo);
        experience.iter_mut().zip(&advantages).for_each(|(one, &advantage)| one.advantage = advantage);
        match by {
            Some((model, policy)) if !config.use_kl_in_reward => {
                self.reference(dev, trainer, model, &mut experience, questions, policy)?;
            }
            // The loss has no use for them, and the plan no memory.
            _ if !config.use_kl_loss => experience.iter_mut().for_each(|one| one.ref_log_prob = None),
            _ => {}
        }
        Ok(Learned { experience, advantages, kl_coef })
    }

    /// Takes the divergence from the reference off the rewards; its next weight, where that moves. Each rank computes some
    /// questions' responses, all have all of them then.
    fn take_kl_off(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        (model, policy): (&Model, Policy),
        (experience, questions): (&mut [Experience], &[&Question]),
        (rewards, metrics): (&mut [f64], &mut StepMetrics),
    ) -> Result<Option<f64>> {
        const WHAT: &str = "the reference's log-probs";
        let (config, size) = (&self.config, trainer.ranks.size());
        let of_rank = |rank: usize, experience: &[Experience]| -> Vec<usize> {
            (0..experience.len()).filter(|&i| experience[i].question % size == rank).collect()
        };
        let mine = of_rank(trainer.ranks.rank(), experience);
        let budget = config.micro_batch_tokens;
        let done = update::reference(dev, model, (&mut *experience, mine.clone()), questions, policy, budget);
        trainer.agreed(WHAT, done)?;
        let found = |i: &usize| experience[*i].ref_log_prob.iter().flatten().copied();
        let own: Vec<f32> = mine.iter().flat_map(found).collect();
        for (rank, bytes) in trainer.ranks.gather(WHAT, bytemuck::cast_slice(&own))?.iter().enumerate() {
            let mut words = bytes.chunks_exact(4).map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            for i in of_rank(rank, experience) {
                let n = experience[i].old_log_prob.len();
                let log_probs: Vec<f32> = words.by_ref().take(n).collect();
                if log_probs.len() != n {
                    return Err(Error::Failed(format!("{WHAT}: rank {rank} has too few")));
                }
                experience[i].ref_log_prob = Some(log_probs);
            }
        }

        let mut borders = vec![0u32];
        borders.extend(experience.iter().scan(0, |end, one| {
            *end += one.old_log_prob.len() as u32;
            Some(*end)
        }));
        let old: Vec<f32> = experience.iter().flat_map(|one| one.old_log_prob.iter().copied()).collect();
        let by_reference: Vec<f32> =
            experience.iter().flat_map(|one| one.ref_log_prob.iter().flatten().copied()).collect();
        let mut weight = KlCtrl::from(&config.kl_ctrl);
        if let (KlCtrl::Adaptive { kl_coef, .. }, Some(kept)) = (&mut weight, trainer.extra.get(KL_COEF)) {
            *kl_coef = kept.as_f64().unwrap_or(*kl_coef);
        }
        let (coef, mask) = (weight.kl_coef(), vec![1; old.len()]);
        let less = kl_in_reward(config.kl_penalty, coef, &borders, &mask, &old, &by_reference, rewards);
        rewards.copy_from_slice(&less.scores);
        metrics.set("actor/reward_kl_penalty", less.reward_kl_penalty);
        metrics.set("actor/reward_kl_penalty_coeff", coef);
        weight.update(less.reward_kl_penalty, rewards.len());
        Ok(match weight {
            KlCtrl::Adaptive { kl_coef, .. } => Some(kl_coef),
            KlCtrl::Fixed { .. } => None,
        })
    }

    /// Log-probs under `model` of the responses that this rank learns from.
    fn reference(
        &self,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        model: &Model,
        experience: &mut [Experience],
        questions: &[&Question],
        policy: Policy,
    ) -> Result<()> {
        let size = self.config.ppo_mini_batch_size * self.config.rollout.n;
        let of = |(at, batch): (usize, &[Experience])| {
            let dealt = Dealt::new((&self.config, trainer.step), batch, questions, trainer.lanes.count());
            let lanes = trainer.lanes.mine().flat_map(|lane| dealt.of_lane(lane)).collect::<Vec<usize>>();
            lanes.into_iter().map(move |i| at * size + i)
        };
        let mine = experience.chunks(size).enumerate().flat_map(of).collect();
        let budget = self.config.micro_batch_tokens;
        let done = update::reference(dev, model, (experience, mine), questions, policy, budget);
        trainer.agreed("the reference's log-probs", done)
    }
}
