//! Divides the elements of each parameter among the ranks. Only the owner of an element holds its master weight, its
//! moments and its summed gradient.

use std::ops::Range;

/// Number of elements in a chunk, which is never divided between ranks. It is a multiple of the block that shares a
/// scale in 8-bit moments, and of the block over which the gradient norm forms a partial sum. Therefore neither the
/// moments nor the norm depend on the number of ranks.
pub const CHUNK: usize = 65_536;

/// The division of all parameters' elements among the ranks. Chunks are numbered through all parameters in order, and
/// each rank owns a consecutive run of chunks. Therefore a rank owns at most one range of each parameter, and only the
/// first and last parameter of its run can be shared with other ranks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shards {
    /// Owned ranges, by rank and then by parameter.
    ranges: Vec<Vec<Range<usize>>>,
}

impl Shards {
    /// Divides parameters with `lens` elements among `ranks` ranks.
    pub fn new(lens: &[usize], ranks: usize) -> Shards {
        let chunks: usize = lens.iter().map(|len| len.div_ceil(CHUNK)).sum();
        let of = |rank: usize| {
            let (from, to) = (chunks * rank / ranks, chunks * (rank + 1) / ranks);
            let mut first = 0;
            let range = |&len: &usize| {
                let at = |chunk: usize| (chunk.saturating_sub(first) * CHUNK).min(len);
                let range = at(from)..at(to);
                first += len.div_ceil(CHUNK);
                range
            };
            lens.iter().map(range).collect()
        };
        Shards { ranges: (0..ranks).map(of).collect() }
    }

    /// Returns the range of each parameter that `rank` owns. Most ranges are empty.
    pub fn of(&self, rank: usize) -> &[Range<usize>] {
        &self.ranges[rank]
    }

    /// Returns the number of ranks.
    pub fn ranks(&self) -> usize {
        self.ranges.len()
    }

    /// Returns the ranks that own parts of parameter `id`, with their ranges, in order.
    pub fn owners(&self, id: usize) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        self.ranges.iter().map(move |of| of[id].clone()).enumerate().filter(|(_, range)| !range.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_has_one_owner_and_no_chunk_two() {
        let lens = [1, CHUNK, CHUNK + 1, 40 * CHUNK - 7, 5, 3 * CHUNK];
        let chunks: usize = lens.iter().map(|len| len.div_ceil(CHUNK)).sum();
        for ranks in [1, 2, 3, 7, 8, 64] {
            let shards = Shards::new(&lens, ranks);
            for (id, len) in lens.iter().enumerate() {
                let mut end = 0;
                for (_, range) in shards.owners(id) {
                    assert!(range.start == end && range.start.is_multiple_of(CHUNK), "{ranks} ranks: {range:?}");
                    end = range.end;
                }
                assert_eq!(end, *len);
            }
            let owned = |rank| shards.of(rank).iter().map(|range| range.len().div_ceil(CHUNK)).sum::<usize>();
            assert!((0..ranks).all(|rank| owned(rank).abs_diff(chunks / ranks) <= 1), "{ranks} ranks");
        }
    }
}
