//! Tests how the attention of a decode step is split into work items.

use omr_base::philox::{Purpose, Random};
use omr_runtime::ops::attend::{BLOCK, CHUNK};
use omr_runtime::ops::paged_attention::split::{DecodeStep, Split, WORDS};

/// The items of a split, read from its lists as the kernels read them.
struct Items {
    own: Vec<[u32; WORDS]>,
    shared: Vec<[u32; WORDS]>,
    members: Vec<u32>,
}

impl Items {
    fn of(split: &Split) -> Items {
        let [own, shared, members] = split.lists();
        let items = |list: Vec<u32>| {
            let (head, items) = list.as_chunks::<WORDS>().0.split_first().unwrap();
            assert_eq!((head[0] as usize, list.len() % WORDS), (items.len(), 0));
            items.to_vec()
        };
        Items { own: items(own), shared: items(shared), members }
    }
}

/// Returns the number of keys of an item, which ends at the end of its chunk.
fn length(&[_, _, from, keys]: &[u32; WORDS]) -> u32 {
    keys.min((from / CHUNK as u32 + 1) * CHUNK as u32) - from
}

/// Returns the number of keys read per key head, by shared items and by own items.
fn keys(split: &Split) -> [usize; 2] {
    let items = Items::of(split);
    [items.shared, items.own].map(|items| items.iter().map(|item| length(item) as usize).sum())
}

/// Makes the sequences of a step. Each group is (number of sequences, keys that all of them begin with, further
/// keys of each).
fn step(groups: &[(usize, usize, usize)]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let columns = groups.iter().map(|(_, shared, own)| (shared + own).div_ceil(BLOCK)).max().unwrap_or(0);
    let (mut contexts, mut tables, mut page) = (Vec::new(), Vec::new(), 0..);
    for &(n, shared, own) in groups {
        let prefix: Vec<u32> = page.by_ref().take(shared / BLOCK).collect();
        for _ in 0..n {
            contexts.push((shared + own) as u32);
            tables.extend(&prefix);
            tables.extend(page.by_ref().take(columns - prefix.len()));
        }
    }
    ((0..=contexts.len() as u32).collect(), contexts, tables)
}

fn split((cu, contexts, tables): &(Vec<u32>, Vec<u32>, Vec<u32>), together: usize) -> Split {
    Split::new(DecodeStep { cu_seqlens_q: cu, context_lens: contexts, block_tables: tables }, together).unwrap()
}

/// Returns the key ranges of each sequence in the order in which they are folded, found in the lists as the kernels
/// find them.
fn seen(split: &Split, contexts: &[u32]) -> Vec<Vec<[u32; 2]>> {
    let mut seen = vec![Vec::new(); contexts.len()];
    let split = Items::of(split);
    for &[first, tokens, begin, keys] in split.shared.iter().chain(&split.own) {
        let end = keys.min(begin / CHUNK as u32 * CHUNK as u32 + CHUNK as u32);
        for member in first..first + (tokens & 0xffff) {
            seen[split.members[member as usize] as usize].push([begin, end]);
        }
    }
    seen.iter_mut().for_each(|parts| parts.sort());
    seen
}

#[test]
fn each_key_is_seen_once_in_its_chunk() {
    let mut random = Random::new(1, Purpose::Test, 6);
    for _ in 0..200 {
        let mut some = |most: u32| random.below(u64::from(most)) as usize;
        let groups: Vec<_> = (0..1 + some(5)).map(|_| (1 + some(20), some(40) * BLOCK, 1 + some(3000))).collect();
        let (step, together) = (step(&groups), 1 + some(16));
        let split = split(&step, together);
        let columns = step.2.len() / step.1.len();
        let room = Split::room(step.1.len(), columns);
        assert!(split.lists().iter().zip(room).all(|(list, room)| list.len() <= room));
        for (s, parts) in seen(&split, &step.1).into_iter().enumerate() {
            let mut at = 0;
            for [begin, end] in parts {
                assert_eq!(begin, at, "{groups:?}");
                assert!(end > begin && (end - 1) / CHUNK as u32 == begin / CHUNK as u32);
                at = end;
            }
            assert_eq!(at, step.1[s]);
        }
    }
}

#[test]
fn arrivals_are_a_sequences_own_items() {
    let split = Items::of(&split(&step(&[(3, 4096 + 256, 2000), (1, 0, 1)]), 16));
    for member in 0..split.members.len() as u32 {
        let own: Vec<_> = split.own.iter().filter(|item| item[0] == member).collect();
        assert!(own.iter().all(|item| (item[1] >> 16) as usize == own.len() && item[1] & 0xffff == 1));
    }
    assert!(split.shared.iter().all(|item| item[1] == 3));
}

#[test]
fn groups_are_cut_where_most_is_saved() {
    // Every sequence begins with the same page (a common system prompt), followed by the pages of its group.
    let (cu, contexts, mut tables) = step(&[(4, 8 * BLOCK, 200), (5, 6 * BLOCK, 400), (1, 0, 700)]);
    let columns = tables.len() / contexts.len();
    tables.iter_mut().step_by(columns).for_each(|page| *page = 9999);
    let split = Items::of(&split(&(cu, contexts, tables), 16));
    let mut found: Vec<_> = split.shared.iter().map(|item| (item[1], item[3] as usize / BLOCK)).collect();
    found.sort();
    assert_eq!(found, [(4, 8), (5, 6)]);
    // The last key of a sequence is never shared.
    assert!(!self::split(&(vec![0, 1, 2], vec![128; 2], vec![3; 2]), 8).shares());
}

#[test]
fn a_step_that_is_none_is_refused() {
    let found = |cu_seqlens_q: &[u32], context_lens: &[u32]| {
        Split::new(DecodeStep { cu_seqlens_q, context_lens, block_tables: &[3; 4] }, 8).map_err(|e| e.to_string())
    };
    for (cu, contexts, message) in [
        ([0, 1, 2], [256, 257], "shape 1 with 257, expected at most one new token of sequence 1, with 1 to 256 keys"),
        ([0, 1, 2], [0, 1], "shape 1 with 0, expected at most one new token of sequence 0, with 1 to 256 keys"),
        ([0, 2, 3], [2, 1], "shape 2 with 2, expected at most one new token of sequence 0, with 1 to 256 keys"),
    ] {
        assert_eq!(found(&cu, &contexts).unwrap_err(), format!("paged_attention::Split: {message}"));
    }
    // The lengths of a sequence without a new token are not checked.
    assert_eq!(keys(&found(&[0, 0, 1], &[9999, 256]).unwrap()), [0, 256]);
}

/// 64 rollouts: 4 prompts of 2,000 tokens with 16 rollouts of 1,000 sampled tokens each, on the 7B model. The
/// weights are counted without the token embedding.
#[test]
fn a_step_reads_little_more_than_it_must() {
    let (weights, key) = (7.07e9 * 2.0, (28 * 2 * 4 * 128 * 2) as f64);
    let bytes = |keys: usize| weights + keys as f64 * key;
    let step = step(&[(16, 2000, 1000); 4]);
    let must = bytes(4 * 2000 + 64 * 1000);
    let [shared, own] = keys(&split(&step, 16));
    println!("{:.4} of what it must, {:.4} of that unshared", bytes(shared + own) / must, bytes(64 * 3000) / must);
    assert!(bytes(shared + own) < 1.05 * must);
    // With room for only two tokens in an item, the prefix is read eight times.
    assert_eq!(keys(&split(&step, 2)), [8 * shared, own]);
    // One long answer has one item per chunk, and one CTA per item and key head.
    assert_eq!(Items::of(&self::split(&self::step(&[(1, 0, 28_000)]), 16)).own.len(), 14);
}
