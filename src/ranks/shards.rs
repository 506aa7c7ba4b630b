//! Who owns which elements of each parameter: the master, the moments and the summed gradient of an element lie with its
//! owner alone.

use std::ops::Range;

/// Elements that are never divided: a multiple of what an 8-bit moment shares a scale over, and what the gradient norm
/// adds up before it adds sums, so that neither depends on the number of ranks.
pub const CHUNK: usize = 65_536;

/// The parameters' elements, divided. A rank's part is one run of chunks over all parameters, one after another: at most
/// one range of each parameter, and no parameter but those at its two ends is shared with others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shards {
    /// By rank, by parameter.
    ranges: Vec<Vec<Range<usize>>>,
}

impl Shards {
    /// Parameters of `lens` elements over `ranks`.
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

    /// The range of each parameter that `rank` owns, empty of most.
    pub fn of(&self, rank: usize) -> &[Range<usize>] {
        &self.ranges[rank]
    }

    /// Ranks.
    pub fn ranks(&self) -> usize {
        self.ranges.len()
    }

    /// Who owns parts of parameter `id`, and which, in order.
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
