//! Whether attention by wgmma may be a run's: it has the bits of the first body, as windows have no other and a
//! picture's rows are the same alone and beside larger ones.

use half::bf16;

use super::{Pack, fwd};
use crate::device::{Body, Device, Region};
use crate::error::Result;
use crate::ops::attend::Heads;
use crate::tensor::DType;

/// Heads and sequences that have tiles and blocks with rows left over, causal and not.
const CASES: [(Heads, usize, bool); 2] =
    [(Heads { q: 7, kv: 1, dim: 128 }, 131, true), (Heads { q: 2, kv: 2, dim: 80 }, 131, false)];

/// What is wrong with attention by wgmma on this device, whose products run by it: none where it has the bits of mma.sync.
pub fn wgmma_fault(dev: &mut Device) -> Result<Option<String>> {
    for (heads, tokens, causal) in CASES {
        let mut runs = Vec::new();
        for body in Body::ALL {
            dev.use_body(body)?;
            let mark = dev.mark(Region::Workspace);
            let found = run(dev, heads, tokens, causal);
            dev.release(mark);
            runs.push(found?);
        }
        let other = runs[0].iter().zip(&runs[1]).filter(|(a, b)| a != b).count();
        if other > 0 {
            let (all, dim) = (runs[0].len(), heads.dim);
            return Ok(Some(format!("{other} of {all} outputs of heads of {dim} have other bits")));
        }
    }
    Ok(None)
}

/// Outputs and log-sum-exps, as bits.
fn run(dev: &mut Device, heads: Heads, tokens: usize, causal: bool) -> Result<Vec<u32>> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32((state >> 8) as f32 / (1 << 22) as f32 - 2.0)
    };
    let qkv: Vec<bf16> = (0..tokens * heads.qkv_len()).map(|_| next()).collect();
    let qkv = dev.upload(Region::Workspace, &qkv, &[tokens, heads.qkv_len()])?;
    let cu_seqlens = dev.upload(Region::Workspace, &[0u32, tokens as u32], &[2])?;
    let out = dev.alloc(Region::Workspace, DType::Bf16, &[tokens, heads.out_len()])?;
    let lse = dev.alloc(Region::Workspace, DType::F32, &[tokens, heads.q])?;
    let scale = 1.0 / (heads.dim as f32).sqrt();
    fwd(dev, &Pack { cu_seqlens, max_seqlen: tokens, heads, causal, scale }, qkv, out, lse)?;
    let bits = dev.read::<bf16>(out)?.into_iter().map(|x| u32::from(x.to_bits()));
    Ok(bits.chain(dev.read::<f32>(lse)?.into_iter().map(f32::to_bits)).collect())
}
