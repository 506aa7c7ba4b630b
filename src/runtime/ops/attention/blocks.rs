//! Numbering of the key blocks of all sequences in a pack.

use std::ops::Range;

use crate::ops::attend::BLOCK;
use crate::ops::check;
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Sequences of a pack and the numbers of their key blocks.
pub(super) struct Blocks<'a> {
    pub cu_seqlens: &'a [u32],
    /// Number of each sequence's first block.
    pub first: Vec<u32>,
    /// Sequence of each block.
    pub sequence: Vec<u32>,
    /// Index of each sequence's prompt (see [`super::Bwd`]).
    prompt_of: Option<&'a [u32]>,
}

impl<'a> Blocks<'a> {
    /// Returns an upper bound of the number of blocks of `t` rows in the sequences of `cu_seqlens`.
    pub fn most(t: usize, cu_seqlens: Tensor) -> usize {
        t.div_ceil(BLOCK) + cu_seqlens.rows()
    }

    /// Numbers the blocks of `t` rows. Returns an error if `cu_seqlens` does not ascend from 0 to `t`, or if a sequence
    /// is longer than `max_seqlen`.
    pub fn new(op: &'static str, cu_seqlens: &'a [u32], max_seqlen: usize, t: usize) -> Result<Blocks<'a>> {
        let ascending = cu_seqlens.windows(2).all(|w| w[0] <= w[1]);
        if !ascending || cu_seqlens.first() != Some(&0) || cu_seqlens.last().map(|&n| n as usize) != Some(t) {
            return check::fail(op, format!("cu_seqlens ascending from 0 to {t}"), format!("{cu_seqlens:?}"));
        }
        if let Some(w) = cu_seqlens.windows(2).find(|w| (w[1] - w[0]) as usize > max_seqlen) {
            return check::fail(op, format!("sequences of at most {max_seqlen} rows"), (w[1] - w[0]).to_string());
        }
        let (mut first, mut sequence) = (Vec::with_capacity(cu_seqlens.len()), Vec::new());
        for (s, w) in cu_seqlens.windows(2).enumerate() {
            first.push(sequence.len() as u32);
            let blocks = ((w[1] - w[0]) as usize).div_ceil(BLOCK);
            sequence.resize(sequence.len() + blocks, s as u32);
        }
        Ok(Blocks { cu_seqlens, first, sequence, prompt_of: None })
    }

    /// Sets the prompts that sequences share. Returns an error if a sequence does not directly follow its prompt or
    /// another sequence of it.
    pub fn sharing(self, op: &'static str, prompt_of: Option<&'a [u32]>) -> Result<Blocks<'a>> {
        let follows = |list: &[u32], s: usize| {
            let prompt = list[s] as usize;
            prompt == s || prompt < s && (list[s - 1] as usize == prompt) && list[prompt] as usize == prompt
        };
        if let Some((list, s)) =
            prompt_of.and_then(|list| (0..list.len()).find(|s| !follows(list, *s)).map(|s| (list, s)))
        {
            let want = format!("sequence {s} to be a prompt or to follow its own");
            return check::fail(op, want, format!("prompt {}", list[s]));
        }
        Ok(Blocks { prompt_of, ..self })
    }

    /// Returns the prompt of sequence `s`, if it is another sequence.
    pub fn prompt(&self, s: usize) -> Option<usize> {
        self.prompt_of.map(|list| list[s] as usize).filter(|prompt| *prompt != s)
    }

    /// Returns the sequences whose prompt is sequence `s`.
    pub fn responses(&self, s: usize) -> Range<usize> {
        let end = (s + 1..self.first.len()).find(|r| self.prompt(*r) != Some(s)).unwrap_or(self.first.len());
        s + 1..end
    }

    /// Returns the rows of sequence `s`.
    pub fn rows(&self, s: usize) -> Range<usize> {
        self.cu_seqlens[s] as usize..self.cu_seqlens[s + 1] as usize
    }

    /// Returns the rows of block `b`.
    pub fn keys(&self, b: usize) -> Range<usize> {
        let s = self.sequence[b] as usize;
        let rows = self.rows(s);
        let from = rows.start + (b - self.first[s] as usize) * BLOCK;
        from..rows.end.min(from + BLOCK)
    }

    /// Returns the non-empty sequences that overlap rows `from..to`, each with its rows in that range.
    pub fn meeting(&self, from: usize, to: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let start = self.cu_seqlens.partition_point(|&c| c as usize <= from).saturating_sub(1);
        (start..self.cu_seqlens.len() - 1)
            .map(move |s| (s, self.rows(s).start.max(from)..self.rows(s).end.min(to)))
            .take_while(move |(s, _)| self.rows(*s).start < to)
            .filter(|(_, rows)| !rows.is_empty())
    }
}
