//! Start check of prefill and decode by wgmma: compares their results bit for bit with those of decode by `mma.sync`.
//! The two test sequences begin with the same page, so that one shared item reads this page for both sequences.

use half::bf16;

use super::cache::KvCache;
use super::call::Paged;
use super::decode::{Decode, together};
use super::forward::fwd;
use super::split::{DecodeStep, Split};
use crate::device::{Device, KernelVariant, Region};
use crate::error::Result;
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::start_check::{differing, values};
use crate::tensor::{DType, Tensor};

/// Heads for each of the two wgmma kernels of decode.
const HEADS: [Heads; 2] = [Heads { q: 7, kv: 1, dim: 128 }, Heads { q: 4, kv: 2, dim: 80 }];

/// Keys of the two sequences: the first has two chunks, whose states are folded, and the second has one.
const CONTEXTS: [u32; 2] = [2177, 300];

/// Columns of the block tables, which is also the number of pages of the longer sequence.
const COLUMNS: u32 = 18;
/// Number of pages. The last two belong only to the shorter sequence.
const PAGES: usize = 20;

/// A cache on the device, and the queries of one decode step.
struct Step {
    cache: KvCache,
    qkv: Tensor,
    heads: Heads,
}

/// Compares prefill and decode by wgmma with decode by `mma.sync`. The device must already use wgmma for matrix
/// products. Returns a description of the differences, or `None` if there are none.
pub fn wgmma_fault(dev: &mut Device) -> Result<Option<String>> {
    for heads in HEADS {
        let mark = dev.mark(Region::Workspace);
        let found = fault(dev, heads);
        dev.release(mark);
        if let Some(fault) = found? {
            return Ok(Some(fault));
        }
    }
    Ok(None)
}

/// Runs [`wgmma_fault`] for one choice of heads.
fn fault(dev: &mut Device, heads: Heads) -> Result<Option<String>> {
    let dims = [PAGES, heads.kv, BLOCK, heads.dim];
    let mut put = |seed, dims: &[usize]| dev.upload(Region::Workspace, &values(dims.iter().product(), seed, 2.0), dims);
    let cache = KvCache { k: put(1, &dims)?, v: put(2, &dims)? };
    let step = Step { cache, qkv: put(3, &[CONTEXTS.len(), heads.qkv_len()])?, heads };
    let mut first = None;
    for (variant, decode) in [(KernelVariant::Mma, true), (KernelVariant::Wgmma, true), (KernelVariant::Wgmma, false)] {
        dev.use_variant(variant)?;
        let mark = dev.mark(Region::Workspace);
        let found = outputs(dev, &step, decode);
        dev.release(mark);
        let found = found?;
        let what =
            || format!("{} outputs of heads with dim {}", if decode { "decoded" } else { "prefilled" }, heads.dim);
        if let Some(fault) = differing(&found, first.get_or_insert_with(|| found.clone()), what) {
            return Ok(Some(fault));
        }
    }
    Ok(None)
}

/// Returns the bits of both sequences' outputs, computed by decode's work items or by prefill.
fn outputs(dev: &mut Device, step: &Step, decode: bool) -> Result<Vec<u32>> {
    let &Step { ref cache, qkv, heads } = step;
    // Both sequences begin with page 0.
    let tables: Vec<u32> = (0..COLUMNS).chain([0, COLUMNS, COLUMNS + 1]).chain([0; COLUMNS as usize - 3]).collect();
    let at = Region::Workspace;
    let decode = match decode {
        true => {
            let items = DecodeStep { cu_seqlens_q: &[0, 1, 2], context_lens: &CONTEXTS, block_tables: &tables };
            let split = Split::new(items, together(dev, heads))?;
            let tickets = Decode::tickets(dev, at, CONTEXTS.len(), heads)?;
            Some(Decode::upload(dev, at, &split, tickets)?)
        }
        false => None,
    };
    let paged = Paged {
        cache,
        block_tables: dev.upload(at, &tables, &[CONTEXTS.len(), COLUMNS as usize])?,
        cu_seqlens_q: dev.upload(at, &[0u32, 1, 2], &[CONTEXTS.len() + 1])?,
        context_lens: dev.upload(at, &CONTEXTS, &[CONTEXTS.len()])?,
        heads,
        scale: 1.0 / (heads.dim as f32).sqrt(),
        decode,
    };
    let out = dev.alloc(at, DType::Bf16, &[CONTEXTS.len(), heads.out_len()])?;
    fwd(dev, paged, qkv, out)?;
    Ok(dev.read::<bf16>(out)?.into_iter().map(|x| u32::from(x.to_bits())).collect())
}
