//! Arguments of attention over a paged cache.

use super::cache::KvCache;
use super::decode::Decode;
use crate::ops::attend::Heads;
use crate::tensor::Tensor;

/// Cache, block tables and lengths of the sequences of a call, with the settings of their attention.
#[derive(Clone, Copy, Debug)]
pub struct Paged<'a> {
    /// Keys and values of the layer.
    pub cache: &'a KvCache,
    /// Block ids of each sequence, u32 `[S, max blocks]`.
    pub block_tables: Tensor,
    /// Cumulative numbers of new tokens, u32 `[S + 1]`. The new tokens of sequence s are the rows `cu_seqlens_q[s]` ..
    /// `cu_seqlens_q[s + 1]`, and they are the last positions of the sequence.
    pub cu_seqlens_q: Tensor,
    /// Number of keys of each sequence including the new ones, u32 `[S]`. [`super::store()`] must have stored the new
    /// keys before.
    pub context_lens: Tensor,
    /// Heads of a row.
    pub heads: Heads,
    /// Positive factor of the scores.
    pub scale: f32,
    /// Work items of a step in which every sequence has at most one new token. With these items, a GPU also splits the
    /// work by chunks of keys, which keeps all multiprocessors busy. Without them it splits the work only by rows. The
    /// CPU ignores the items. The items change no bit of the result.
    pub decode: Option<Decode>,
}
