//! Dynamic sampling (DAPO's `filter_groups`): groups whose responses all score the same teach nothing and are
//! replaced by generating more.

/// True when a group is kept: its metric varies, or it is alone.
pub fn keeps(metric: &[f64]) -> bool {
    metric.len() == 1 || metric.iter().any(|m| *m != metric[0])
}

/// What to do after a generation batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FilterStatus {
    /// Enough groups are kept.
    Ready,
    /// Generate another batch.
    NeedMore,
    /// `max_num_gen_batches` are used up and groups are still missing.
    Exhausted,
}

/// Gathers kept groups over generation batches. `G` is whatever stands for a group.
#[derive(Clone, Debug)]
pub struct FilterGroups<G> {
    train_batch_size: usize,
    max_num_gen_batches: usize,
    num_gen_batches: usize,
    kept: Vec<G>,
}

impl<G> FilterGroups<G> {
    /// Wants `train_batch_size` groups out of at most `max_num_gen_batches` batches (0: as many as it takes).
    pub fn new(train_batch_size: usize, max_num_gen_batches: usize) -> FilterGroups<G> {
        FilterGroups { train_batch_size, max_num_gen_batches, num_gen_batches: 0, kept: Vec::new() }
    }

    /// Adds a generation batch: each group with its responses' metric.
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

    /// Batches so far (`train/num_gen_batches`).
    pub fn num_gen_batches(&self) -> usize {
        self.num_gen_batches
    }

    /// Groups kept so far, in the order they came.
    pub fn kept(&self) -> &[G] {
        &self.kept
    }

    /// The training batch and how many kept groups were too many. Fewer than `train_batch_size` groups come
    /// back when it is called before [`FilterStatus::Ready`].
    pub fn finish(mut self) -> (Vec<G>, usize) {
        let surplus = self.kept.len().saturating_sub(self.train_batch_size);
        self.kept.truncate(self.train_batch_size);
        (self.kept, surplus)
    }
}
