//! Arguments of forward and backward, and the checks that they share.

use crate::device::Device;
use crate::ops::check;
use crate::ops::matmul::{PANEL, Weight, panel_count};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Rows of one job in passes over rows.
pub(super) const ROWS: usize = 64;

/// Tokens whose log-probs are requested, and the policy that defines them.
#[derive(Clone, Copy, Debug)]
pub struct LogProbCall<'a> {
    /// Hidden states `[T, D]`.
    pub hidden: Tensor,
    /// Output weight `[V, D]`.
    pub w: &'a Weight,
    /// Bitmap of allowed ids, u32 `[ceil(V/32)]` (bit v % 32 of word v / 32). `None` allows every id.
    pub allowed: Option<Tensor>,
    /// Divisor of the logits; 0 (greedy) is treated as 1.
    pub temperature: f32,
    /// Target ids, u32 `[T]`.
    pub targets: Tensor,
}

/// Outputs of [`super::fwd`], each f32 `[T]` except the logits.
#[derive(Clone, Copy, Debug)]
pub struct Outs {
    /// Log-probs of the targets, `z[target]` - lse.
    pub log_prob: Tensor,
    /// Logsumexp of the logits: ln of the sum of e^z.
    pub lse: Tensor,
    /// Entropies in nats. With `None`, they are not computed.
    pub entropy: Option<Tensor>,
    /// On the CPU, the logits for [`super::bwd`], f32 `[T, 32 ceil(V/32)]`. With `None`, backward computes them again.
    pub logits: Option<Tensor>,
}

/// Checks the shapes of [`LogProbCall`], and that each tensor of `per_token` is f32 `[T]`. Returns the compute type.
pub(super) fn checked(
    op: &'static str,
    LogProbCall { hidden, w, allowed, targets, .. }: LogProbCall<'_>,
    per_token: &[(&str, Option<Tensor>)],
) -> Result<DType> {
    let t = hidden.rows();
    let dtype = check::weight(op, w, w.n, hidden.cols())?;
    check::tensor(op, "hidden", hidden, dtype, &[t, w.k])?;
    check::optional(op, "allowed", allowed, DType::U32, &[panel_count(w.n)])?;
    check::tensor(op, "targets", targets, DType::U32, &[t])?;
    for (name, tensor) in per_token {
        check::optional(op, name, *tensor, DType::F32, &[t])?;
    }
    Ok(dtype)
}

/// Checks the memory for the logits of `rows` tokens and `vocab` ids, which only the CPU keeps.
pub(super) fn check_logits(
    op: &'static str,
    dev: &Device,
    logits: Option<Tensor>,
    rows: usize,
    vocab: usize,
) -> Result<()> {
    check::that(op, logits.is_none() || !dev.kind().is_gpu(), "no memory for logits on a GPU", "some")?;
    check::optional(op, "logits", logits, DType::F32, &[rows, panel_count(vocab) * PANEL])
}

/// Returns an error if a target is not below `vocab`.
pub(super) fn check_targets(op: &'static str, targets: &[u32], vocab: usize) -> Result<()> {
    match targets.iter().position(|&id| id as usize >= vocab) {
        None => Ok(()),
        Some(i) => check::fail(op, format!("target ids below {vocab}"), format!("{} at token {i}", targets[i])),
    }
}
