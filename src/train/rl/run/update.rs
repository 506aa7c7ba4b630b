//! Updates the policy with the groups of a step.

use super::job::{RlJob, Run};
use crate::rl::group::Group;
use crate::rl::metrics::StepMetrics;
use crate::rl::parity::FirstUpdate;
use crate::rl::update::{self, Learner, MicroBatchStats, MiniBatch};
use crate::training::step::Computed;
use crate::training::timeline::Activity;
use crate::training::trainer::Trainer;
use omr_base::error::Result;
use omr_model::nn::{GradientSink, Model};
use omr_runtime::device::{Device, Region};
use omr_runtime::ranks;

impl RlJob {
    /// Makes the updates of a step: `ppo_epochs` passes over its mini-batches, which consist of complete groups.
    pub(super) fn update(
        &self,
        run: &Run<'_>,
        dev: &mut Device,
        trainer: &mut Trainer<'_>,
        groups: &[Group],
        metrics: &mut StepMetrics,
    ) -> Result<()> {
        let (config, policy) = (&self.config, self.policy(run.allowed));
        let mark = dev.mark(Region::Overlay);
        let mut grads = trainer.new_grads(dev)?;
        let figures = MicroBatchStats::new(dev, config)?;
        let (rank, size) = (trainer.ranks.rank(), trainer.ranks.size());
        for _ in 0..config.ppo_epochs {
            for groups in groups.chunks(config.ppo_mini_batch_size) {
                let mini_batch = MiniBatch::new(config, trainer.step, groups, config.training.lanes());
                let micro_batches = mini_batch.micro_batches(config.micro_batch_tokens);
                let figures = figures.of_update(dev, micro_batches.len())?;
                let (ladder, step, timeline) = (&self.common.ladder, trainer.step, trainer.timeline.clone());
                let mut done = Computed::default();
                let mut compute = |dev: &mut Device, model: &Model, grads: &mut dyn GradientSink, number: usize| {
                    let part = &micro_batches[number];
                    let levels = ladder.levels(mini_batch.tokens(part));
                    let learner = Learner { model, policy, config, levels, step };
                    done += timeline.queued(dev, Activity::Passes, |dev| {
                        mini_batch.compute(dev, learner, grads, part, figures.of(number))
                    })?;
                    Ok(())
                };
                let moving: Vec<_> =
                    micro_batches.iter().filter(|part| part.moves).map(|part| mini_batch.reach(part)).collect();
                trainer.gradients(dev, &mut grads, &moving, &mut compute)?;
                // Micro-batches without backward need no order: each rank computes its part of them.
                let mut mine = (moving.len()..micro_batches.len()).filter(|number| number % size == rank);
                let idle = mine.try_for_each(|i| compute(dev, &trainer.model, &mut grads, i));
                ranks::agreed(trainer.ranks, "the end of an update's passes", idle)?;
                let parts = trainer.share("work of the micro-batches", &done)?;
                let mut done = Computed::default();
                parts.into_iter().for_each(|part| done += part);
                trainer.share_figures(dev, figures.stats, micro_batches.len())?;
                let losses = figures.losses(dev)?;
                let lr = trainer.update(dev, &grads, losses)?;
                // The host waits for the device here, where the update is logged, and nowhere earlier in the update.
                let results = mini_batch.results(dev, done, figures.stats)?;
                let stats = trainer.stats(dev, "the policy loss", results.stats.loss, run.observer)?;
                if metrics.updates.is_empty() {
                    let (step, device) = (trainer.step + 1, dev.kind());
                    let update = FirstUpdate { step, groups, micro_batches: &micro_batches, results: &results, device };
                    update.check(config.parity, run.observer)?;
                }
                metrics.update(&results, stats, lr, &update::loss_of(config));
            }
        }
        dev.release(mark);
        Ok(())
    }
}
