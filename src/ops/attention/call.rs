//! What attention reads and writes.

use crate::error::Result;
use crate::ops::attend::Heads;
use crate::ops::check;
use crate::tensor::{DType, Tensor};

/// How the rows of a pack attend to one another: each to those of its own sequence.
#[derive(Clone, Copy, Debug)]
pub struct Pack {
    /// Borders of the sequences, u32 `[S + 1]` from 0 to T; empty ones are allowed.
    pub cu_seqlens: Tensor,
    /// No sequence is longer; may choose a kernel but changes no bit.
    pub max_seqlen: usize,
    /// Heads of a row.
    pub heads: Heads,
    /// Hides the keys after a row's own.
    pub causal: bool,
    /// Multiplies the scores; positive.
    pub scale: f32,
}

/// What forward reads and writes beside its pack.
#[derive(Clone, Copy)]
pub(super) struct Fwd {
    /// `[T, (q + 2 kv) * dim]`.
    pub qkv: Tensor,
    /// `[T, q * dim]`, written.
    pub out: Tensor,
    /// Log-sum-exps of the rows, f32 `[T, q]`, written.
    pub lse: Tensor,
}

/// What [`super::bwd`] reads and writes beside its pack.
#[derive(Clone, Copy, Debug)]
pub struct Bwd {
    /// As forward had it.
    pub qkv: Tensor,
    /// As forward left it.
    pub out: Tensor,
    /// Shaped as `out`.
    pub dout: Tensor,
    /// As forward left it.
    pub lse: Tensor,
    /// Shaped as `qkv`, written.
    pub dqkv: Tensor,
}

/// Errors unless `qkv` has packed rows of `heads` and `cu_seqlens` is a list of borders.
pub(super) fn check_rows(op: &'static str, qkv: Tensor, cu_seqlens: Tensor, heads: Heads) -> Result<()> {
    check::compute(op, "qkv", qkv)?;
    heads.check(op)?;
    check::tensor(op, "qkv", qkv, qkv.dtype, &[qkv.rows(), heads.qkv_len()])?;
    check::that(op, !cu_seqlens.is_empty(), "cu_seqlens of one element or more", "none")?;
    check::tensor(op, "cu_seqlens", cu_seqlens, DType::U32, &[cu_seqlens.rows()])
}
