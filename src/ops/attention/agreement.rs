//! Whether attention by wgmma may be a run's: it has the bits of the first body, as windows have no other and a
//! picture's rows are the same alone and beside larger ones.

use half::bf16;

use super::backward::bwd;
use super::call::{Bwd, Pack};
use super::forward::fwd;
use crate::device::{Body, Device, Region};
use crate::error::Result;
use crate::ops::attend::Heads;
use crate::ops::start_check::{differing, values};
use crate::tensor::{DType, Tensor};

/// Heads and sequences that have tiles and blocks with rows left over, causal and not.
const CASES: [(Heads, usize, bool); 2] =
    [(Heads { q: 7, kv: 1, dim: 128 }, 131, true), (Heads { q: 2, kv: 2, dim: 80 }, 131, false)];

/// What is wrong with attention by wgmma on this device, whose products run by it: none where it has the bits of mma.sync.
pub fn wgmma_fault(dev: &mut Device) -> Result<Option<String>> {
    compare(dev, "outputs", forward)
}

/// The same of its backward, where forward agrees.
pub fn wgmma_bwd_fault(dev: &mut Device) -> Result<Option<String>> {
    compare(dev, "gradients", backward)
}

/// How the cases' bits by one body differ from those by the other.
fn compare(
    dev: &mut Device,
    what: &str,
    run: impl Fn(&mut Device, &Pack, Tensor) -> Result<Vec<u32>>,
) -> Result<Option<String>> {
    for (heads, tokens, causal) in CASES {
        let mut runs = Vec::new();
        for body in Body::ALL {
            dev.use_body(body)?;
            let mark = dev.mark(Region::Workspace);
            let qkv = numbers(dev, 1, [tokens, heads.qkv_len()])?;
            let cu_seqlens = dev.upload(Region::Workspace, &[0u32, tokens as u32], &[2])?;
            let scale = 1.0 / (heads.dim as f32).sqrt();
            let found = run(dev, &Pack { cu_seqlens, max_seqlen: tokens, heads, causal, scale }, qkv);
            dev.release(mark);
            runs.push(found?);
        }
        if let Some(fault) = differing(&runs[1], &runs[0], || format!("{what} of heads of {}", heads.dim)) {
            return Ok(Some(fault));
        }
    }
    Ok(None)
}

/// Numbers from -2 to 2.
fn numbers(dev: &mut Device, seed: u32, shape: [usize; 2]) -> Result<Tensor> {
    dev.upload(Region::Workspace, &values(shape[0] * shape[1], seed, 2.0), &shape)
}

/// Outputs and log-sum-exps.
fn attended(dev: &mut Device, pack: &Pack, qkv: Tensor) -> Result<[Tensor; 2]> {
    let (tokens, heads) = (qkv.rows(), pack.heads);
    let out = dev.alloc(Region::Workspace, DType::Bf16, &[tokens, heads.out_len()])?;
    let lse = dev.alloc(Region::Workspace, DType::F32, &[tokens, heads.q])?;
    fwd(dev, pack, qkv, out, lse)?;
    Ok([out, lse])
}

/// These, as bits.
fn forward(dev: &mut Device, pack: &Pack, qkv: Tensor) -> Result<Vec<u32>> {
    let [out, lse] = attended(dev, pack, qkv)?;
    let bits = dev.read::<bf16>(out)?.into_iter().map(|x| u32::from(x.to_bits()));
    Ok(bits.chain(dev.read::<f32>(lse)?.into_iter().map(f32::to_bits)).collect())
}

/// Gradients of qkv, as bits.
fn backward(dev: &mut Device, pack: &Pack, qkv: Tensor) -> Result<Vec<u32>> {
    let [out, lse] = attended(dev, pack, qkv)?;
    let dout = numbers(dev, 2, [qkv.rows(), pack.heads.out_len()])?;
    let dqkv = dev.alloc(Region::Workspace, DType::Bf16, &[qkv.rows(), pack.heads.qkv_len()])?;
    bwd(dev, pack, Bwd { qkv, out, dout, lse, dqkv })?;
    Ok(dev.read::<bf16>(dqkv)?.into_iter().map(|x| u32::from(x.to_bits())).collect())
}
