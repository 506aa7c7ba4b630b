//! Blocks of keys of the sequences of a pack.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::ops::attend::BLOCK;
use crate::tensor::Tensor;

/// A pack's sequences and how their blocks of keys are numbered.
pub(super) struct Blocks<'a> {
    pub cu_seqlens: &'a [u32],
    /// The number of each sequence's first block.
    pub first: Vec<u32>,
    /// The sequence of each block.
    pub sequence: Vec<u32>,
}

impl<'a> Blocks<'a> {
    /// An upper bound on the blocks of `t` rows in the sequences of `cu_seqlens`.
    pub fn most(t: usize, cu_seqlens: Tensor) -> usize {
        t.div_ceil(BLOCK) + cu_seqlens.rows()
    }

    /// The blocks of `t` rows. Errors on borders that do not ascend from 0 to `t`, and on a longer sequence.
    pub fn new(op: &'static str, cu_seqlens: &'a [u32], max_seqlen: usize, t: usize) -> Result<Blocks<'a>> {
        let ascending = cu_seqlens.windows(2).all(|w| w[0] <= w[1]);
        if !ascending || cu_seqlens.first() != Some(&0) || cu_seqlens.last().map(|&n| n as usize) != Some(t) {
            let (want, got) = (format!("cu_seqlens ascending from 0 to {t}"), format!("{cu_seqlens:?}"));
            return Err(Error::Shape { op, want, got });
        }
        if let Some(w) = cu_seqlens.windows(2).find(|w| (w[1] - w[0]) as usize > max_seqlen) {
            let (want, got) = (format!("sequences of at most {max_seqlen} rows"), (w[1] - w[0]).to_string());
            return Err(Error::Shape { op, want, got });
        }
        let (mut first, mut sequence) = (Vec::with_capacity(cu_seqlens.len()), Vec::new());
        for (s, w) in cu_seqlens.windows(2).enumerate() {
            first.push(sequence.len() as u32);
            let blocks = ((w[1] - w[0]) as usize).div_ceil(BLOCK);
            sequence.resize(sequence.len() + blocks, s as u32);
        }
        Ok(Blocks { cu_seqlens, first, sequence })
    }

    /// Rows of sequence `s`.
    pub fn rows(&self, s: usize) -> Range<usize> {
        self.cu_seqlens[s] as usize..self.cu_seqlens[s + 1] as usize
    }

    /// Rows of block `b`.
    pub fn keys(&self, b: usize) -> Range<usize> {
        let s = self.sequence[b] as usize;
        let rows = self.rows(s);
        let from = rows.start + (b - self.first[s] as usize) * BLOCK;
        from..rows.end.min(from + BLOCK)
    }

    /// The non-empty sequences that meet rows `from..to`, with the rows they have in it.
    pub fn meeting(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let start = self.cu_seqlens.partition_point(|&c| c as usize <= from).saturating_sub(1);
        (start..self.cu_seqlens.len() - 1)
            .map(move |s| (s, self.rows(s).start.max(from)..self.rows(s).end.min(to)))
            .take_while(move |(s, _)| self.rows(*s).start < to)
            .filter(|(_, rows)| !rows.is_empty())
    }
}
