//! The KV cache of one layer.

use crate::device::{Device, Region};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Cached keys and values of one layer, in blocks of [`BLOCK`] positions, both in the compute type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvCache {
    /// Keys. On the CPU `[blocks, kv heads, dim, BLOCK]`: transposed, so that vectors run over keys when scores are
    /// computed. On a GPU the layout is that of `v`.
    pub k: Tensor,
    /// Values `[blocks, kv heads, BLOCK, dim]`.
    pub v: Tensor,
}

impl KvCache {
    /// Allocates a cache of `blocks` blocks in `region`. Its content is undefined and need not be cleared, because
    /// positions that were never stored are never used.
    pub fn alloc(dev: &mut Device, region: Region, dtype: DType, blocks: usize, heads: Heads) -> Result<KvCache> {
        let k = dev.alloc(region, dtype, &key_dims(dev, blocks, heads))?;
        let v = dev.alloc(region, dtype, &value_dims(blocks, heads))?;
        Ok(KvCache { k, v })
    }

    /// Returns the number of blocks.
    pub fn blocks(&self) -> usize {
        self.k.rows()
    }

    /// Returns the heads of packed rows of `width` elements, given the key heads and head size of this cache.
    pub(super) fn heads(&self, width: usize) -> Heads {
        let (kv, dim) = (self.v.shape[1], self.v.shape[3]);
        Heads { q: (width / dim.max(1)).saturating_sub(2 * kv), kv, dim }
    }

    /// Returns an error unless both tensors have type `dtype` and the layout for `heads` on `dev`.
    pub(in crate::ops) fn check(&self, op: &'static str, dev: &Device, dtype: DType, heads: Heads) -> Result<()> {
        heads.check(op)?;
        check::tensor(op, "cache.k", self.k, dtype, &key_dims(dev, self.blocks(), heads))?;
        check::tensor(op, "cache.v", self.v, dtype, &value_dims(self.blocks(), heads))
    }
}

fn key_dims(dev: &Device, blocks: usize, heads: Heads) -> [usize; 4] {
    if dev.kind().is_gpu() { value_dims(blocks, heads) } else { [blocks, heads.kv, heads.dim, BLOCK] }
}

fn value_dims(blocks: usize, heads: Heads) -> [usize; 4] {
    [blocks, heads.kv, BLOCK, heads.dim]
}
