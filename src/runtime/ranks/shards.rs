//! Divides the elements of each parameter among the ranks. Only the owner of an element holds its master weight, its
//! moments and its summed gradient.

use std::ops::Range;

/// Number of elements in a chunk, which is never divided between ranks. It is a multiple of the block that shares a
/// scale of 8-bit Adam, and of the block over which the gradient norm forms a partial sum. Therefore neither the
/// moments nor the norm depend on the number of ranks.
pub const CHUNK: usize = 65_536;

/// The division of all parameters' elements among the ranks. Each bucket (the parameters of a layer, for example) is
/// divided by itself: its chunks are numbered through its parameters in order, and each rank owns a consecutive run of
/// them. Therefore a rank owns at most one range of each parameter, and no bucket belongs to one or two ranks alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shards {
    /// Owned ranges, by rank and then by parameter.
    ranges: Vec<Vec<Range<usize>>>,
}

impl Shards {
    /// Divides parameters among `ranks` ranks. `params` has the bucket and the number of elements of each parameter.
    /// The parameters of a bucket are consecutive.
    pub fn new(params: &[(usize, usize)], ranks: usize) -> Shards {
        let mut ranges = vec![Vec::with_capacity(params.len()); ranks];
        for bucket in params.chunk_by(|a, b| a.0 == b.0) {
            let chunks: usize = bucket.iter().map(|(_, len)| len.div_ceil(CHUNK)).sum();
            for (rank, ranges) in ranges.iter_mut().enumerate() {
                let (from, to) = (chunks * rank / ranks, chunks * (rank + 1) / ranks);
                let mut first = 0;
                ranges.extend(bucket.iter().map(|&(_, len)| {
                    let at = |chunk: usize| (chunk.saturating_sub(first) * CHUNK).min(len);
                    let range = at(from)..at(to);
                    first += len.div_ceil(CHUNK);
                    range
                }));
            }
        }
        Shards { ranges }
    }

    /// Returns the range of each parameter that `rank` owns. Most ranges are empty.
    pub fn of(&self, rank: usize) -> &[Range<usize>] {
        &self.ranges[rank]
    }

    /// Returns the ranks that own parts of parameter `id`, with their ranges, in order.
    pub fn owners(&self, id: usize) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        self.ranges.iter().map(move |of| of[id].clone()).enumerate().filter(|(_, range)| !range.is_empty())
    }
}
