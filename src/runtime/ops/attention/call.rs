//! Arguments of the attention ops.

use crate::device::{Device, Sequences};
use crate::ops::attend::Heads;
use crate::ops::check::{self, moved};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Sequences of a pack and the settings of their attention. A pack is a list of sequences that are stored one after the
/// other. Each row attends only to rows of its own sequence.
#[derive(Clone, Copy, Debug)]
pub struct Pack {
    /// Cumulative sequence lengths, u32 `[S + 1]` from 0 to T. Empty sequences are allowed.
    pub cu_seqlens: Tensor,
    /// Upper bound of the sequence lengths. The CPU returns an error for a longer one.
    pub max_seqlen: usize,
    /// Heads of a row.
    pub heads: Heads,
    /// True if a row does not attend to keys after its own position.
    pub causal: bool,
    /// Positive factor of the scores.
    pub scale: f32,
    /// Number of pairs of a row and a key that it attends to. Only the recorded work depends on it.
    pub pairs: usize,
}

impl Pack {
    /// Records the work of `products` products over the pairs and of `moves` transfers of `qkv` and `out`.
    pub(in crate::ops) fn note(
        &self,
        dev: &mut Device,
        op: &'static str,
        products: f64,
        moves: f64,
        rows: [Tensor; 2],
    ) {
        let &Pack { heads, causal, pairs, .. } = self;
        let flops = products * 2.0 * pairs as f64 * heads.out_len() as f64;
        let sequences = Sequences { tokens: rows[0].rows(), pairs, causal, heads: [heads.kv, heads.group()] };
        dev.note_attention(op, flops, moves * moved(&rows), sequences);
    }
}

/// Tensors of a forward call, except those of its pack.
#[derive(Clone, Copy)]
pub(super) struct Fwd {
    /// Input rows `[T, (q + 2 kv) * dim]`.
    pub qkv: Tensor,
    /// Output rows `[T, q * dim]`, written.
    pub out: Tensor,
    /// Log-sum-exps of the rows, f32 `[T, q]`, written.
    pub lse: Tensor,
}

/// Tensors of a [`super::bwd`] call, except those of its pack.
///
/// If `prompt_of` is given, sequences can share a prompt. The first keys of a sequence s with `prompt_of[s]` != s are
/// then the rows of sequence `prompt_of[s]`, its prompt, all of which it sees, followed by its own rows. A prompt has
/// `prompt_of[s]` == s, and its sequences follow it directly. The gradient of a key of a prompt is the sum of one f32
/// chain per sequence, added in their order, and of the chain of the prompt's own rows, and is rounded once.
#[derive(Clone, Copy, Debug)]
pub struct Bwd {
    /// Input of the forward.
    pub qkv: Tensor,
    /// Output of the forward.
    pub out: Tensor,
    /// Gradient of `out`, same shape as `out`.
    pub dout: Tensor,
    /// Log-sum-exps that the forward computed.
    pub lse: Tensor,
    /// Gradient of `qkv`, same shape as `qkv`, written.
    pub dqkv: Tensor,
    /// Index of each sequence's prompt, u32 `[S]`. `None` if no sequences share a prompt.
    pub prompt_of: Option<Tensor>,
}

/// Returns an error unless `qkv` has packed rows of `heads` and `cu_seqlens` is a non-empty list of u32.
pub(super) fn check_rows(op: &'static str, qkv: Tensor, cu_seqlens: Tensor, heads: Heads) -> Result<()> {
    check::compute(op, "qkv", qkv)?;
    heads.check(op)?;
    check::tensor(op, "qkv", qkv, qkv.dtype, &[qkv.rows(), heads.qkv_len()])?;
    check::that(op, !cu_seqlens.is_empty(), "cu_seqlens of one element or more", "none")?;
    check::tensor(op, "cu_seqlens", cu_seqlens, DType::U32, &[cu_seqlens.rows()])
}
