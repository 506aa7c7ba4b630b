//! Which samples make which update, and in which lane: pure host code over [`PackPlan`]'s order. The whole state is the
//! number of samples consumed.

use std::sync::Arc;

use crate::config::SftConfig;
use crate::data::Index;
use crate::data::packing::PackPlan;
use crate::error::Result;

/// The samples of one update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Indices into the data set, in order, by gradient lane: pack p of an update is in lane p mod their number, and row p
    /// where updates have a fixed number of rows.
    pub lanes: Vec<Vec<usize>>,
    /// Samples consumed since the start of the run, these included.
    pub consumed: u64,
}

impl Update {
    /// All its samples, lane after lane.
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
    /// The updates over the samples of `index` that `config` asks for, none of which is longer than a pack. Errors
    /// when there is none.
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
            lanes: config.lanes(),
            end,
        })
    }

    /// The update that follows after `consumed` samples; `None` when the epochs are over.
    pub fn next(&mut self, consumed: u64) -> Result<Option<Update>> {
        let mut update = Update { lanes: vec![Vec::new(); self.lanes], consumed };
        match self.train_batch_size {
            Some(rows) => {
                for row in 0..rows {
                    if update.consumed >= self.end {
                        break;
                    }
                    update.lanes[row % self.lanes].push(self.plan.sample_at(update.consumed));
                    update.consumed += 1;
                }
            }
            None => {
                for pack in 0..self.packs {
                    if update.consumed >= self.end {
                        break;
                    }
                    let index = &self.index;
                    let Some(next) = self.plan.next(update.consumed, |i| Ok(index.tokens(i)))? else { break };
                    update.lanes[pack % self.lanes].extend(next.samples);
                    update.consumed = next.consumed;
                }
            }
        }
        Ok((update.consumed > consumed).then_some(update))
    }

    /// Number of updates from the start to the end of the epochs; only for runs without `max_steps`.
    pub fn count(&mut self) -> Result<u64> {
        let (mut steps, mut consumed) = (0, 0);
        while let Some(update) = self.next(consumed)? {
            consumed = update.consumed;
            steps += 1;
        }
        Ok(steps)
    }

    /// Samples of an epoch.
    pub fn epoch_len(&self) -> usize {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Shape;

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
                gradient_lanes,
                packing_length: 8,
                train_batch_size,
                gradient_accumulation_steps: 2,
                max_steps: None,
                num_train_epochs: 1.0,
                ..SftConfig::default()
            };
            let mut updates = Updates::new(&config, &index).unwrap();
            let (mut seen, mut consumed, mut steps) = (Vec::new(), 0, 0);
            while let Some(update) = updates.next(consumed).unwrap() {
                assert_eq!(update.lanes.len(), config.lanes());
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
