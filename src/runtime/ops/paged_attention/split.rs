//! Splits the attention of a decode step into work items (kernels/common/attend_item.cuh). There are two kinds:
//!
//! - An own item computes the new token of one sequence with one chunk of its keys. A few long sequences therefore also
//!   occupy the whole GPU.
//! - A shared item computes the new tokens of several sequences that begin with the same pages (blocks of the cache),
//!   with one chunk of those pages. The pages are then read once for all of the sequences. Shared items run first.
//!
//! This is host code without tensors. The choice of items changes no bit of the result.

use std::ops::Range;

use crate::error::Result;
use crate::ops::attend::{BLOCK, CHUNK};
use crate::ops::check;

/// Number of u32 words of an item.
pub(super) const WORDS: usize = 4;

/// A decode step in the form in which the kernels read it.
#[derive(Clone, Copy, Debug)]
pub struct DecodeStep<'a> {
    /// Cumulative numbers of new tokens, `[S + 1]`. Each sequence has one new token, or none.
    pub cu_seqlens_q: &'a [u32],
    /// Number of keys of each sequence, `[S]`.
    pub context_lens: &'a [u32],
    /// Block ids of each sequence, `[S, columns]`.
    pub block_tables: &'a [u32],
}

impl DecodeStep<'_> {
    fn columns(&self) -> usize {
        self.block_tables.len() / self.context_lens.len().max(1)
    }

    fn tokens(&self, s: usize) -> usize {
        (self.cu_seqlens_q[s + 1] - self.cu_seqlens_q[s]) as usize
    }

    /// Returns an error unless each sequence has at most one new token, and each sequence with a new token has at least
    /// one key and at most as many keys as its block table holds.
    fn check(&self) -> Result<()> {
        let most = self.columns() * BLOCK;
        for (s, &keys) in self.context_lens.iter().enumerate() {
            let (tokens, keys) = (self.tokens(s), keys as usize);
            if tokens > 1 || tokens == 1 && !(1..=most).contains(&keys) {
                let want = format!("at most one new token of sequence {s}, with 1 to {most} keys");
                check::that("paged_attention::Split", false, want, format!("{tokens} with {keys}"))?;
            }
        }
        Ok(())
    }

    /// Returns the full pages before a sequence's last key. Only these can be shared.
    fn table(&self, s: usize) -> &[u32] {
        let keys = self.context_lens[s].saturating_sub(1) as usize;
        &self.block_tables[s * self.columns()..][..keys / BLOCK]
    }
}

/// Work items of a decode step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    /// Sequences in an order in which those that share pages are adjacent. Items refer to ranges of this list.
    members: Vec<u32>,
    /// Items of single sequences: `[index of the member, 1 | number of the sequence's own items << 16, first key,
    /// number of the sequence's keys]`.
    own: Vec<[u32; WORDS]>,
    /// Items of several sequences, which run before `own`: `[index of the first member, number of members, first key,
    /// number of shared keys]`.
    shared: Vec<[u32; WORDS]>,
    pub(super) sequences: usize,
    /// Columns of the block tables.
    pub(super) columns: usize,
    /// Maximum number of tokens of an item.
    pub(super) together: usize,
}

impl Split {
    /// Splits a step into items of at most `together` tokens. A sequence without a new token gets no items. Returns an
    /// error if a sequence has several new tokens, or if a sequence with a new token has no keys or more keys than its
    /// block table holds.
    pub fn new(step: DecodeStep<'_>, together: usize) -> Result<Split> {
        step.check()?;
        let (sequences, columns) = (step.context_lens.len(), step.columns());
        let mut order: Vec<usize> = (0..sequences).filter(|&s| step.tokens(s) == 1).collect();
        let mut prefix = vec![0; order.len()];
        let mut shared = Vec::new();
        if together > 1 {
            order.sort_by_key(|&s| step.table(s));
            let common: Vec<usize> = order.windows(2).map(|w| common(step.table(w[0]), step.table(w[1]))).collect();
            for (range, pages) in groups(&common, 0..order.len(), together).1 {
                for part in parts(range, together) {
                    prefix[part.clone()].fill(pages * BLOCK);
                    let tokens = part.len() as u32;
                    shared.extend(
                        chunks(0, pages * BLOCK).map(|at| [part.start as u32, tokens, at, (pages * BLOCK) as u32]),
                    );
                }
            }
        }
        let mut own = Vec::new();
        for (member, (&s, &from)) in order.iter().zip(&prefix).enumerate() {
            let keys = step.context_lens[s] as usize;
            let arrivals = chunks(from, keys).count() as u32;
            own.extend(chunks(from, keys).map(|at| [member as u32, 1 | arrivals << 16, at, keys as u32]));
        }
        // The longest items come first, so that little work remains when the first CTAs run out of items.
        own.sort_by_key(|item| std::cmp::Reverse(length(item)));
        shared.sort_by_key(|item| std::cmp::Reverse(length(item)));
        let members = order.into_iter().map(|s| s as u32).collect();
        Ok(Split { members, own, shared, sequences, columns, together })
    }

    /// Returns the number of chunks of the longest sequence that fits in a table of `columns` columns.
    pub(super) fn chunks(columns: usize) -> usize {
        (columns * BLOCK).div_ceil(CHUNK)
    }

    /// Returns true if an item has several sequences.
    pub fn shares(&self) -> bool {
        !self.shared.is_empty()
    }

    /// Returns the maximum numbers of items of a step with `sequences` sequences: single sequences' own items, and
    /// shared items.
    pub(super) fn most(sequences: usize, columns: usize) -> [usize; 2] {
        [sequences * Split::chunks(columns), sequences / 2 * Split::chunks(columns)]
    }

    /// Returns the lists for the device: own items, shared items (each list starts with its length), and members.
    pub(super) fn lists(&self) -> [Vec<u32>; 3] {
        let list = |items: &[[u32; WORDS]]| {
            let head = [items.len() as u32, 0, 0, 0];
            head.into_iter().chain(items.iter().flatten().copied()).collect()
        };
        [list(&self.own), list(&self.shared), self.members.clone()]
    }

    /// Returns the maximum numbers of words of [`Split::lists`] for a step of this size.
    pub(super) fn room(sequences: usize, columns: usize) -> [usize; 3] {
        let [own, shared] = Split::most(sequences, columns).map(|items| (1 + items) * WORDS);
        [own, shared, sequences]
    }
}

/// Returns the first keys of the items that cover the keys `from .. keys`, one item per chunk.
fn chunks(from: usize, keys: usize) -> impl Iterator<Item = u32> {
    (from / CHUNK..keys.div_ceil(CHUNK)).map(move |chunk| (chunk * CHUNK).max(from) as u32)
}

/// Returns the number of keys of an item. The item ends at the end of its chunk or at the last of its `keys` keys,
/// whichever comes first.
fn length(&[_, _, from, keys]: &[u32; WORDS]) -> u32 {
    keys.min((from / CHUNK as u32 + 1) * CHUNK as u32) - from
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Divides the members in `range` into groups of adjacent members such that the most page reads are saved. `common[i]`
/// is the number of leading pages that members i and i + 1 share. Returns the number of reads saved, and each group
/// with the number of pages that all of its members share.
fn groups(common: &[usize], range: Range<usize>, together: usize) -> (usize, Vec<(Range<usize>, usize)>) {
    let Some(&pages) = common[range.start..range.end.max(range.start + 1) - 1].iter().min() else {
        return (0, Vec::new());
    };
    let (mut saved, mut found, mut start) = (0, Vec::new(), range.start);
    for end in range.start + 1..=range.end {
        if end == range.end || common[end - 1] == pages {
            let (more, inner) = groups(common, start..end, together);
            saved += more;
            found.extend(inner);
            start = end;
        }
    }
    let whole = (range.len() - range.len().div_ceil(together)) * pages;
    if whole > saved { (whole, vec![(range, pages)]) } else { (saved, found) }
}

/// Divides a group into parts of nearly equal size. Parts of a single member are left out.
fn parts(range: Range<usize>, together: usize) -> impl Iterator<Item = Range<usize>> {
    let count = range.len().div_ceil(together);
    let cut = move |i: usize| range.start + range.len() * i / count;
    (0..count).map(move |i| cut(i)..cut(i + 1)).filter(|part| part.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::philox::{Purpose, Random};

    /// Returns the number of keys read per key head, by shared items and by own items.
    fn keys(split: &Split) -> [usize; 2] {
        [&split.shared, &split.own].map(|items| items.iter().map(|item| length(item) as usize).sum())
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
        let split = split(&step(&[(3, 4096 + 256, 2000), (1, 0, 1)]), 16);
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
        let split = split(&(cu, contexts, tables), 16);
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
            (
                [0, 1, 2],
                [256, 257],
                "shape 1 with 257, expected at most one new token of sequence 1, with 1 to 256 keys",
            ),
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
        assert_eq!(self::split(&self::step(&[(1, 0, 28_000)]), 16).own.len(), 14);
    }
}
