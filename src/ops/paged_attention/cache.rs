//! A layer's cached keys and values.

use crate::device::{Device, Region};
use crate::error::Result;
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check;
use crate::tensor::{DType, Tensor};

/// One layer's cached keys and values, in blocks of [`BLOCK`] positions, both in the compute type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvCache {
    /// On the CPU `[blocks, kv heads, dim, BLOCK]`: transposed, so that scores run over keys in vectors. On a GPU as `v`.
    pub k: Tensor,
    /// `[blocks, kv heads, BLOCK, dim]`.
    pub v: Tensor,
}

impl KvCache {
    /// Takes a cache of `blocks` blocks from `region`. Its content is undefined, and need not be cleared: positions
    /// that were never stored are never used.
    pub fn alloc(dev: &mut Device, region: Region, dtype: DType, blocks: usize, heads: Heads) -> Result<KvCache> {
        let k = dev.alloc(region, dtype, &key_dims(dev, blocks, heads))?;
        let v = dev.alloc(region, dtype, &value_dims(blocks, heads))?;
        Ok(KvCache { k, v })
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.k.rows()
    }

    /// The heads of packed rows `width` long that this cache stores.
    pub(super) fn heads(&self, width: usize) -> Heads {
        let (kv, dim) = (self.v.shape[1], self.v.shape[3]);
        Heads { q: (width / dim.max(1)).saturating_sub(2 * kv), kv, dim }
    }

    /// Errors unless both parts are of `dtype` and laid out for `heads` on `dev`.
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
