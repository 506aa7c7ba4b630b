//! The q, k and v rows of attention: their projection, the norms of the heads of q and k, the rotation and the cache,
//! forward and backward.

use super::layers::{Attend, Attention, Rope};
use super::{Recompute, Tape, Var};
use crate::nn::adapter::linear::linear_bwd;
use crate::nn::weights::params::{Linear, Vector};
use omr_base::error::Result;
use omr_runtime::device::Device;
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::linear::{self, Qkv};
use omr_runtime::ops::qk_norm::{self, SavedRows};
use omr_runtime::ops::rope;
use omr_runtime::tensor::DType;

/// The norms of the heads of q and k.
#[derive(Clone, Copy)]
pub struct HeadNorms {
    /// Weight `[dim]` of the heads of q.
    pub q: Vector,
    /// Weight `[dim]` of the heads of k.
    pub k: Vector,
    /// Epsilon.
    pub eps: f32,
}

/// The projection of a layer to its qkv rows, with the norms that follow it.
#[derive(Clone, Copy)]
pub struct QkvProj {
    /// The projection.
    pub linear: Linear,
    /// The norms of the heads of q and k, if the model has them.
    pub norms: Option<HeadNorms>,
}

/// Memory for the rows of q, k and v.
#[derive(Clone, Copy)]
pub struct QkvRows {
    /// The rows that attention reads, `[T, (q + 2 kv) dim]`.
    pub rows: Var,
    /// What the backward of the norms reads, if there are norms and backward may follow.
    kept: Option<SavedRows>,
}

impl Tape {
    /// Allocates memory for `t` rows.
    pub fn qkv_rows(
        &mut self,
        dev: &mut Device,
        dtype: DType,
        t: usize,
        heads: Heads,
        norms: Option<HeadNorms>,
    ) -> Result<QkvRows> {
        let rows = self.alloc(dev, dtype, &[t, heads.qkv_len()])?;
        let keeps = norms.is_some() && self.recording;
        let kept = keeps.then(|| SavedRows::alloc(dev, self.region(), dtype, t, heads)).transpose()?;
        Ok(QkvRows { rows, kept })
    }

    /// Computes the qkv rows = x W^T + bias with the heads of q and k normalised, if there are `norms`, and rotated, and
    /// writes them to `into`. If `again` is true, `into` already holds the result. With a paged cache, k and v are also
    /// stored in the layer's cache.
    pub fn linear_qkv_into(
        &mut self,
        dev: &mut Device,
        x: Var,
        proj: QkvProj,
        attention: &Attention,
        into: QkvRows,
        again: Recompute,
    ) -> Result<()> {
        let &Attention { rope: Rope { cos, sin }, heads, ref attend, cache } = attention;
        let QkvProj { linear: qkv_proj, norms } = proj;
        let Linear { weight, bias, .. } = qkv_proj;
        let (mark, QkvRows { rows, kept: raw }) = (dev.mark(self.region()), into);
        let cache = match attend {
            Attend::Packed { .. } => None,
            Attend::Paged { caches, paging } => Some((&caches[cache], paging.slot_mapping)),
        };
        let mut kept = None;
        if !again.0 {
            let (w, bias, qkv) = (&weight.weight, bias.map(|b| b.tensor), rows.tensor);
            kept = self.with_input(dev, x.tensor, qkv_proj, |dev, x| match norms {
                None => linear::fwd_qkv(dev, Qkv { x, w, bias, cos, sin, heads, cache, qkv }),
                Some(HeadNorms { q, k, eps }) => {
                    linear::fwd(dev, x, w, bias, None, qkv)?;
                    let (q, k) = (q.tensor, k.tensor);
                    qk_norm::fwd(dev, qk_norm::Fwd { qkv, q, k, eps, cos, sin, heads, cache, kept: raw })
                }
            })?;
        }
        self.record_of(mark, rows, self.is_trained(x) || self.trains(&qkv_proj), move |b, dqkv| {
            match norms.zip(raw) {
                None => rope::bwd(b.dev, dqkv, cos, sin, heads)?,
                Some((HeadNorms { q, k, .. }, kept)) => {
                    let dweights = b.param(q.id)?.zip(b.param(k.id)?).map(|(q, k)| [q, k]);
                    let (q, k) = (q.tensor, k.tensor);
                    qk_norm::bwd(b.dev, qk_norm::Bwd { dqkv, q, k, cos, sin, heads, kept, dweights })?;
                }
            }
            let dx = b.of_trained(x)?;
            linear_bwd(b, x, dqkv, qkv_proj, kept, dx)
        });
        Ok(())
    }
}
