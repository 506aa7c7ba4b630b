//! Online packing as a pure plan: sequential next-fit into packs of at most `packing_length` tokens, over one global
//! order of samples. The order is a Philox shuffle that depends only on (seed, epoch). Workers, ranks and the point of
//! interruption cannot change it. The entire state is the number of samples consumed.

use omr_base::error::{Error, Result};
use omr_base::philox::{self, Purpose};

/// Samples of one pack, as indices into the data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// Samples in their order within the pack; never empty.
    pub samples: Vec<usize>,
    /// Samples that are longer than a pack and were dropped while this pack was filled. Callers count them.
    pub dropped: Vec<usize>,
    /// Number of tokens in the pack.
    pub tokens: usize,
    /// Number of samples consumed since the start, including this pack. It is the state to store and the argument for
    /// the next pack.
    pub consumed: u64,
}

/// Plan that assigns samples to packs.
#[derive(Clone, Debug)]
pub struct PackPlan {
    len: usize,
    packing_length: usize,
    end: u64,
    seed: u64,
    shuffle: bool,
    order: (u64, Vec<u32>),
}

impl PackPlan {
    /// Creates a plan over `len` samples with packs of at most `packing_length` tokens.
    ///
    /// Returns an error if the data set is empty or too large to index, or if the length is zero.
    pub fn new(len: usize, packing_length: usize, seed: u64, shuffle: bool) -> Result<PackPlan> {
        if len == 0 || len > u32::MAX as usize {
            return Err(Error::input("datasets", format!("{len} samples"), "between 1 and 2^32 - 1 samples"));
        }
        if packing_length == 0 {
            return Err(Error::input("packing_length", "0", "at least 1"));
        }
        let order = (0, order(seed, 0, len, shuffle));
        Ok(PackPlan { len, packing_length, end: u64::MAX, seed, shuffle, order })
    }

    /// Limits the plan to `samples` samples. Without a limit it never ends.
    pub fn until(mut self, samples: u64) -> PackPlan {
        self.end = samples;
        self
    }

    /// Returns the index of the sample at global position `position`. Epochs follow one another without a gap.
    pub fn sample_at(&mut self, position: u64) -> usize {
        let (epoch, at) = (position / self.len as u64, (position % self.len as u64) as usize);
        if self.order.0 != epoch {
            self.order = (epoch, order(self.seed, epoch, self.len, self.shuffle));
        }
        self.order.1[at] as usize
    }

    /// Returns the pack that follows after `consumed` samples, or `None` if the plan has ended. `length(i)` returns the
    /// number of tokens of sample i. A pack may extend into the next epoch.
    ///
    /// Returns an error if an entire epoch has no sample that fits, and any error of `length`.
    pub fn next(&mut self, consumed: u64, mut length: impl FnMut(usize) -> Result<usize>) -> Result<Option<Pack>> {
        let mut pack = Pack { samples: Vec::new(), dropped: Vec::new(), tokens: 0, consumed };
        while pack.consumed < self.end {
            let sample = self.sample_at(pack.consumed);
            let tokens = length(sample)?;
            if tokens > self.packing_length {
                pack.dropped.push(sample);
                if pack.samples.is_empty() && pack.dropped.len() >= self.len {
                    let found = format!("{}, but every sample is longer", self.packing_length);
                    return Err(Error::input("packing_length", found, "a length that fits at least one sample"));
                }
            } else if pack.tokens + tokens > self.packing_length {
                break;
            } else {
                pack.samples.push(sample);
                pack.tokens += tokens;
            }
            pack.consumed += 1;
        }
        Ok((!pack.samples.is_empty()).then_some(pack))
    }
}

/// Returns the order of `len` samples in an epoch: a permutation, or the identity if `shuffle` is false.
pub fn order(seed: u64, epoch: u64, len: usize, shuffle: bool) -> Vec<u32> {
    let mut order: Vec<u32> = (0..len as u32).collect();
    if shuffle {
        philox::shuffle(seed, Purpose::Shuffle, epoch, &mut order);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packs(plan: &mut PackPlan, lengths: &[usize], mut consumed: u64, n: usize) -> Vec<Pack> {
        let mut out = Vec::new();
        while out.len() < n {
            let Some(pack) = plan.next(consumed, |i| Ok(lengths[i])).unwrap() else { break };
            consumed = pack.consumed;
            out.push(pack);
        }
        out
    }

    #[test]
    fn next_fit_drops_and_counts_the_overlong() {
        let lengths = [3, 3, 9, 5, 1, 4];
        let mut plan = PackPlan::new(6, 8, 0, false).unwrap().until(6);
        let got = packs(&mut plan, &lengths, 0, 10);
        let want: [(&[usize], &[usize], u64); 3] = [(&[0, 1], &[2], 3), (&[3, 4], &[], 5), (&[5], &[], 6)];
        assert_eq!(got.len(), want.len());
        for (g, w) in got.iter().zip(want) {
            assert_eq!((&g.samples[..], &g.dropped[..], g.consumed), w);
        }
    }

    #[test]
    fn nothing_fits_is_an_error() {
        let mut plan = PackPlan::new(3, 4, 1, true).unwrap();
        assert!(plan.next(0, |_| Ok(5)).is_err());
    }

    #[test]
    fn epochs_differ_and_each_is_a_permutation() {
        let (a, b) = (order(7, 0, 100, true), order(7, 1, 100, true));
        assert_ne!(a, b);
        assert_ne!(a, order(8, 0, 100, true));
        for mut o in [a, b] {
            o.sort_unstable();
            assert_eq!(o, (0..100).collect::<Vec<u32>>());
        }
    }
}
