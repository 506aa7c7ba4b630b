//! Splits the attention of a decode step into work items (kernels/common/attend_item.cuh). There are two kinds:
//!
//! - An own item computes the new token of one sequence with one chunk of its keys. A few long sequences therefore also
//!   occupy the whole GPU.
//! - A shared item computes the new tokens of several sequences that begin with the same pages (blocks of the cache),
//!   with one chunk of those pages. The pages are then read once for all of the sequences. Shared items run first.
//!
//! This is host code without tensors. The choice of items changes no bit of the result.

use std::ops::Range;

use crate::ops::attend::{BLOCK, CHUNK};
use crate::ops::check;
use omr_base::error::Result;

/// Number of u32 words of an item.
pub const WORDS: usize = 4;

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
    pub fn lists(&self) -> [Vec<u32>; 3] {
        let list = |items: &[[u32; WORDS]]| {
            let head = [items.len() as u32, 0, 0, 0];
            head.into_iter().chain(items.iter().flatten().copied()).collect()
        };
        [list(&self.own), list(&self.shared), self.members.clone()]
    }

    /// Returns the maximum numbers of words of [`Split::lists`] for a step of this size.
    pub fn room(sequences: usize, columns: usize) -> [usize; 3] {
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
