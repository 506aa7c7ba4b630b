//! Dynamic sampling (DAPO's `filter_groups`): a group whose responses all have the same score gives no gradient. Such
//! groups are replaced by generating more.

/// Returns true if a group is kept: its metric varies, or it has only one response.
pub fn keeps(metric: &[f64]) -> bool {
    metric.len() == 1 || metric.iter().any(|m| *m != metric[0])
}

/// State of the collection after a generation batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilterStatus {
    /// Enough groups are kept.
    Ready,
    /// Another batch must be generated.
    NeedMore,
    /// `max_num_gen_batches` batches were generated, and groups are still missing.
    Exhausted,
}

/// Collects the kept groups of several generation batches. `G` is the type that represents a group.
#[derive(Clone, Debug)]
pub struct FilterGroups<G> {
    train_batch_size: usize,
    max_num_gen_batches: usize,
    num_gen_batches: usize,
    kept: Vec<G>,
}

impl<G> FilterGroups<G> {
    /// Creates a filter that collects `train_batch_size` groups from at most `max_num_gen_batches` batches (0 means no
    /// limit).
    pub fn new(train_batch_size: usize, max_num_gen_batches: usize) -> FilterGroups<G> {
        FilterGroups { train_batch_size, max_num_gen_batches, num_gen_batches: 0, kept: Vec::new() }
    }

    /// Adds a generation batch: each group with the metric of its responses.
    pub fn push<M: AsRef<[f64]>>(&mut self, groups: impl IntoIterator<Item = (G, M)>) -> FilterStatus {
        self.num_gen_batches += 1;
        self.kept.extend(groups.into_iter().filter(|(_, m)| keeps(m.as_ref())).map(|(g, _)| g));
        if self.kept.len() >= self.train_batch_size {
            FilterStatus::Ready
        } else if self.max_num_gen_batches > 0 && self.num_gen_batches >= self.max_num_gen_batches {
            FilterStatus::Exhausted
        } else {
            FilterStatus::NeedMore
        }
    }

    /// Returns the number of batches so far (`train/num_gen_batches`).
    pub fn num_gen_batches(&self) -> usize {
        self.num_gen_batches
    }

    /// Returns the groups kept so far, in the order in which they were added.
    pub fn kept(&self) -> &[G] {
        &self.kept
    }

    /// Returns the training batch and the number of surplus groups. Before [`FilterStatus::Ready`], the batch has fewer
    /// than `train_batch_size` groups.
    pub fn finish(mut self) -> (Vec<G>, usize) {
        let surplus = self.kept.len().saturating_sub(self.train_batch_size);
        self.kept.truncate(self.train_batch_size);
        (self.kept, surplus)
    }
}
