//! Decides which samples belong to which update and to which gradient lane. The order of the samples comes from
//! [`PackPlan`]. An update depends only on the config, the row index and the number of samples consumed before the
//! update.

use std::sync::Arc;

use omr_base::config::SftConfig;
use omr_base::error::Result;
use omr_data::rows::Index;
use omr_data::rows::samples::packing::PackPlan;

/// The samples of one update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Indices into the data set, in order, by gradient lane. With L lanes, pack p of an update belongs to lane p mod
    /// L. If updates have a fixed number of rows, row p belongs to lane p mod L instead.
    pub lanes: Vec<Vec<usize>>,
    /// Number of samples consumed since the start of the run, including this update.
    pub consumed: u64,
}

impl Update {
    /// Returns all samples of the update, lane after lane.
    pub fn samples(&self) -> impl Iterator<Item = usize> + '_ {
        self.lanes.iter().flatten().copied()
    }
}

/// The updates of an SFT run, in order.
pub struct Updates {
    plan: PackPlan,
    index: Arc<Index>,
    train_batch_size: Option<usize>,
    packs: usize,
    lanes: usize,
    end: u64,
}

impl Updates {
    /// Plans the updates that `config` requests over the samples of `index`. No sample may be longer than a pack.
    /// Errors if there are no samples.
    pub fn new(config: &SftConfig, index: &Arc<Index>) -> Result<Updates> {
        let end = match config.max_steps {
            Some(_) => u64::MAX,
            None => (config.num_train_epochs * index.len() as f64).ceil() as u64,
        };
        Ok(Updates {
            plan: PackPlan::new(index.len(), config.packing_length, config.seed, config.shuffle)?.until(end),
            index: index.clone(),
            train_batch_size: config.train_batch_size,
            packs: config.gradient_accumulation_steps,
            lanes: config.training.lanes(),
            end,
        })
    }

    /// Returns the update that follows after `consumed` samples, or `None` at the end of the last epoch.
    pub fn next(&mut self, consumed: u64) -> Result<Option<Update>> {
        let mut update = Update { lanes: vec![Vec::new(); self.lanes], consumed };
        for part in 0..self.train_batch_size.unwrap_or(self.packs) {
            if update.consumed >= self.end {
                break;
            }
            let (lane, index) = (&mut update.lanes[part % self.lanes], &self.index);
            if self.train_batch_size.is_some() {
                lane.push(self.plan.sample_at(update.consumed));
                update.consumed += 1;
            } else {
                let Some(next) = self.plan.next(update.consumed, |i| Ok(index.tokens(i)))? else { break };
                lane.extend(next.samples);
                update.consumed = next.consumed;
            }
        }
        Ok((update.consumed > consumed).then_some(update))
    }

    /// Returns the number of updates from the start to the end of the last epoch. Call it only for runs without
    /// `max_steps`, because runs with `max_steps` have no last epoch.
    pub fn count(&mut self) -> Result<u64> {
        let (mut steps, mut consumed) = (0, 0);
        while let Some(update) = self.next(consumed)? {
            consumed = update.consumed;
            steps += 1;
        }
        Ok(steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_base::config::TrainingConfig;
    use omr_data::rows::Shape;

    fn index(lengths: &[usize]) -> Arc<Index> {
        let mut index = Index::default();
        lengths.iter().for_each(|&n| index.push(Shape { tokens: n, targets: n - 1, grids: &[] }));
        Arc::new(index)
    }

    #[test]
    fn fixed_rows_and_epochs_cover_every_sample_once() {
        let index = index(&[3, 4, 5, 2, 7, 1]);
        for (train_batch_size, gradient_lanes) in [(None, None), (Some(2), None), (None, Some(2)), (Some(2), Some(3))] {
            let config = SftConfig {
                packing_length: 8,
                train_batch_size,
                gradient_accumulation_steps: 2,
                max_steps: None,
                num_train_epochs: 1.0,
                training: TrainingConfig { gradient_lanes, ..TrainingConfig::default() },
                ..SftConfig::default()
            };
            let mut updates = Updates::new(&config, &index).unwrap();
            let (mut seen, mut consumed, mut steps) = (Vec::new(), 0, 0);
            while let Some(update) = updates.next(consumed).unwrap() {
                assert_eq!(update.lanes.len(), config.training.lanes());
                seen.extend(update.samples());
                consumed = update.consumed;
                steps += 1;
            }
            seen.sort_unstable();
            assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
            assert_eq!(updates.count().unwrap(), steps);
        }
    }
}
