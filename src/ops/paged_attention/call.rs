//! What attention over a cache reads beside its rows.

use super::cache::KvCache;
use super::decode::Decode;
use crate::ops::attend::Heads;
use crate::tensor::Tensor;

/// Where the keys of new tokens lie.
#[derive(Clone, Copy, Debug)]
pub struct Paged<'a> {
    /// The layer's keys and values.
    pub cache: &'a KvCache,
    /// u32 `[S, max blocks]`.
    pub block_tables: Tensor,
    /// u32 `[S + 1]`: the new tokens of sequence s are rows `cu_seqlens_q[s]` .. `cu_seqlens_q[s + 1]` and its last
    /// positions.
    pub cu_seqlens_q: Tensor,
    /// u32 `[S]`: a sequence's keys with the new ones, which [`super::store()`] must have put into the cache before.
    pub context_lens: Tensor,
    /// Heads of a row.
    pub heads: Heads,
    /// Multiplies the scores; positive.
    pub scale: f32,
    /// The work items of a step in which no sequence has more than one new token: a GPU then fills the card by chunks of
    /// keys. Without, rows are cut alone; the CPU cuts them as ever. No bit depends on it.
    pub decode: Option<Decode>,
}
