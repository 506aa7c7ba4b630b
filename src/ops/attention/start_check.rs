//! Start check of attention by wgmma: compares its results bit for bit with those of the `mma.sync` variant. The
//! results must be identical for the following reason. The kernels for windows exist only with `mma.sync`. Whether they
//! run for an image depends on the sizes of the other images in the pack, but the results of an image must not depend
//! on the other images.

use half::bf16;

use super::backward::bwd;
use super::call::{Bwd, Pack};
use super::forward::fwd;
use crate::device::{Device, KernelVariant, Region};
use crate::error::Result;
use crate::ops::attend::Heads;
use crate::ops::start_check::{differing, values};
use crate::tensor::{DType, Tensor};

/// Heads, tokens and causal flag of the test cases. Their sequences do not fill the last tile and the last block.
const CASES: [(Heads, usize, bool); 2] =
    [(Heads { q: 7, kv: 1, dim: 128 }, 131, true), (Heads { q: 2, kv: 2, dim: 80 }, 131, false)];

/// Compares the forward of attention by wgmma with that by `mma.sync`. The device must already use wgmma for matrix
/// products. Returns a description of the differences, or `None` if there are none.
pub fn wgmma_fault(dev: &mut Device) -> Result<Option<String>> {
    compare(dev, "outputs", forward)
}

/// Compares the backward of attention by wgmma with that by `mma.sync`. Call it only if [`wgmma_fault`] found no
/// difference.
pub fn wgmma_bwd_fault(dev: &mut Device) -> Result<Option<String>> {
    compare(dev, "gradients", backward)
}

/// Runs the test cases with both kernel variants and describes how their bits differ, if they do.
fn compare(
    dev: &mut Device,
    what: &str,
    run: impl Fn(&mut Device, &Pack, Tensor) -> Result<Vec<u32>>,
) -> Result<Option<String>> {
    for (heads, tokens, causal) in CASES {
        let mut runs = Vec::new();
        for variant in KernelVariant::ALL {
            dev.use_variant(variant)?;
            let mark = dev.mark(Region::Workspace);
            let qkv = numbers(dev, 1, [tokens, heads.qkv_len()])?;
            let cu_seqlens = dev.upload(Region::Workspace, &[0u32, tokens as u32], &[2])?;
            let scale = 1.0 / (heads.dim as f32).sqrt();
            let found = run(dev, &Pack { cu_seqlens, max_seqlen: tokens, heads, causal, scale }, qkv);
            dev.release(mark);
            runs.push(found?);
        }
        if let Some(fault) = differing(&runs[1], &runs[0], || format!("{what} of heads with dim {}", heads.dim)) {
            return Ok(Some(fault));
        }
    }
    Ok(None)
}

/// Uploads pseudorandom numbers from -2 to 2.
fn numbers(dev: &mut Device, seed: u32, shape: [usize; 2]) -> Result<Tensor> {
    dev.upload(Region::Workspace, &values(shape[0] * shape[1], seed, 2.0), &shape)
}

/// Computes the outputs and log-sum-exps.
fn attended(dev: &mut Device, pack: &Pack, qkv: Tensor) -> Result<[Tensor; 2]> {
    let (tokens, heads) = (qkv.rows(), pack.heads);
    let out = dev.alloc(Region::Workspace, DType::Bf16, &[tokens, heads.out_len()])?;
    let lse = dev.alloc(Region::Workspace, DType::F32, &[tokens, heads.q])?;
    fwd(dev, pack, qkv, out, lse)?;
    Ok([out, lse])
}

/// Returns the outputs and log-sum-exps as bits.
fn forward(dev: &mut Device, pack: &Pack, qkv: Tensor) -> Result<Vec<u32>> {
    let [out, lse] = attended(dev, pack, qkv)?;
    let bits = dev.read::<bf16>(out)?.into_iter().map(|x| u32::from(x.to_bits()));
    Ok(bits.chain(dev.read::<f32>(lse)?.into_iter().map(f32::to_bits)).collect())
}

/// Returns the gradients of qkv as bits.
fn backward(dev: &mut Device, pack: &Pack, qkv: Tensor) -> Result<Vec<u32>> {
    let [out, lse] = attended(dev, pack, qkv)?;
    let dout = numbers(dev, 2, [qkv.rows(), pack.heads.out_len()])?;
    let dqkv = dev.alloc(Region::Workspace, DType::Bf16, &[qkv.rows(), pack.heads.qkv_len()])?;
    bwd(dev, pack, Bwd { qkv, out, dout, lse, dqkv })?;
    Ok(dev.read::<bf16>(dqkv)?.into_iter().map(|x| u32::from(x.to_bits())).collect())
}
