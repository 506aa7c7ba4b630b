//! What forward and backward are asked, and the checks they share.

use crate::error::{Error, Result};
use crate::ops::check;
use crate::ops::matmul::{Weight, panel_count};
use crate::tensor::{DType, Tensor};

/// Rows of one job of the passes over rows.
pub(super) const ROWS: usize = 64;

/// The tokens asked about and the policy they are asked of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `[T, D]`.
    pub hidden: Tensor,
    /// `[V, D]`.
    pub w: &'a Weight,
    /// A bitmap of u32 `[ceil(V/32)]` (bit v % 32 of word v / 32); all ids without it.
    pub allowed: Option<Tensor>,
    /// Divides the logits; 0 (greedy) counts as 1.
    pub temperature: f32,
    /// u32 `[T]`.
    pub targets: Tensor,
}

/// What [`super::fwd`] leaves, f32 `[T]` each.
#[derive(Clone, Copy, Debug)]
pub struct Outs {
    /// `z[target]` - lse.
    pub logprob: Tensor,
    /// ln of the sum of e^z.
    pub lse: Tensor,
    /// In nats.
    pub entropy: Option<Tensor>,
}

/// Errors on other shapes than those of [`Asked`], and where a tensor of `per_token` is no f32 `[T]`; gives the compute type.
pub(super) fn checked(
    op: &'static str,
    Asked { hidden, w, allowed, targets, .. }: Asked<'_>,
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

/// Errors on a target that is no id below `vocab`.
pub(super) fn check_targets(op: &'static str, targets: &[u32], vocab: usize) -> Result<()> {
    match targets.iter().position(|&id| id as usize >= vocab) {
        None => Ok(()),
        Some(i) => Err(Error::Shape {
            op,
            want: format!("target ids below {vocab}"),
            got: format!("{} at token {i}", targets[i]),
        }),
    }
}
