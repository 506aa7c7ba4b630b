//! Tests which rank owns which elements.

use omr_runtime::ranks::shards::{CHUNK, Shards};

#[test]
fn every_element_has_one_owner_and_no_chunk_two() {
    let params = [(0, 1), (0, CHUNK), (1, CHUNK + 1), (1, 40 * CHUNK - 7), (1, 5), (2, 3 * CHUNK)];
    for ranks in [1, 2, 3, 7, 8, 64] {
        let shards = Shards::new(&params, ranks);
        for (id, (_, len)) in params.iter().enumerate() {
            let mut end = 0;
            for (_, range) in shards.owners(id) {
                assert!(range.start == end && range.start.is_multiple_of(CHUNK), "{ranks} ranks: {range:?}");
                end = range.end;
            }
            assert_eq!(end, *len);
        }
        for bucket in [0..2, 2..5, 5..6] {
            let chunks: usize = params[bucket.clone()].iter().map(|(_, len)| len.div_ceil(CHUNK)).sum();
            let part = |rank: usize| shards.of(rank)[bucket.clone()].iter().map(|range| range.len().div_ceil(CHUNK));
            assert!((0..ranks).all(|rank| part(rank).sum::<usize>().abs_diff(chunks / ranks) <= 1), "{ranks} ranks");
        }
    }
}
