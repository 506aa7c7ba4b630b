//! Start check of attention by wgmma: compares its results bit for bit with those of the `mma.sync` variant.

use super::backward::bwd;
use super::call::{Bwd, Pack};
use super::forward::fwd;
use crate::device::{Device, KernelVariant, Region};
use crate::ops::attend::Heads;
use crate::ops::start_check::{bits, differing, sensitive_rows, sized, values, with_many_and_few_ctas};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Returns the pack of sequences for heads of `dim` elements: the heads, the lengths, and whether the mask is causal. The
/// longest sequence has more than two blocks of keys; together the sequences have more tiles than the CTAs of a limited
/// launch. They do not fill the last tile and the last block.
fn case(dev: &Device, dim: usize) -> (Heads, &'static [usize], bool) {
    let lens = sized(dev, &[2600, 1100, 131, 1, 0, 700][..], &[300, 131, 1, 0, 5]);
    let kv = sized(dev, 4, 1);
    match dim {
        80 => (Heads { q: 2 * kv, kv: 2 * kv, dim }, lens, false),
        _ => (Heads { q: 7 * kv, kv, dim }, lens, true),
    }
}

/// Compares the forward of attention with heads of `dim` elements by wgmma with that by `mma.sync`. The device must
/// already use wgmma for matrix products. Returns a description of the differences, or `None` if there are none.
pub fn wgmma_fault(dev: &mut Device, dim: usize) -> Result<Option<String>> {
    compare(dev, dim, "outputs", |dev, pack, tokens| {
        let rows = sensitive_rows(tokens, pack.heads, 1);
        let qkv = dev.upload(Region::Workspace, &rows, &[tokens, pack.heads.qkv_len()])?;
        let out = attended(dev, pack, qkv)?;
        bits(dev, &out)
    })
}

/// Compares the backward of attention with heads of `dim` elements by wgmma with that by `mma.sync`. Call it only if
/// [`wgmma_fault`] found no difference.
pub fn wgmma_bwd_fault(dev: &mut Device, dim: usize) -> Result<Option<String>> {
    compare(dev, dim, "gradients", |dev, pack, tokens| {
        let qkv = numbers(dev, 1, [tokens, pack.heads.qkv_len()])?;
        let [out, lse] = attended(dev, pack, qkv)?;
        let dout = numbers(dev, 2, [tokens, pack.heads.out_len()])?;
        let dqkv = dev.alloc(Region::Workspace, DType::Bf16, &[tokens, pack.heads.qkv_len()])?;
        // Under a causal mask, every third sequence is the prompt of the next two.
        let prompts: Vec<u32> = (0..pack.cu_seqlens.rows() as u32 - 1).map(|s| s / 3 * 3).collect();
        let prompt_of = dev.upload(Region::Workspace, &prompts, &[prompts.len()])?;
        bwd(dev, pack, Bwd { qkv, out, dout, lse, dqkv, prompt_of: pack.causal.then_some(prompt_of) })?;
        bits(dev, &[dqkv])
    })
}

/// Runs the test case with both kernel variants and describes how their bits differ, if they do.
fn compare(
    dev: &mut Device,
    dim: usize,
    what: &str,
    run: impl Fn(&mut Device, &Pack, usize) -> Result<Vec<u32>>,
) -> Result<Option<String>> {
    let (heads, lens, causal) = case(dev, dim);
    let ends = lens.iter().scan(0, |end, len| {
        *end += *len as u32;
        Some(*end)
    });
    let cu_seqlens: Vec<u32> = std::iter::once(0).chain(ends).collect();
    let (tokens, max_seqlen) = (lens.iter().sum(), lens.iter().copied().max().unwrap_or(0));
    let mut runs = Vec::new();
    for &(_, variant) in KernelVariant::ALL {
        dev.use_variant(variant)?;
        runs.extend(with_many_and_few_ctas(dev, |dev| {
            let cu_seqlens = dev.upload(Region::Workspace, &cu_seqlens, &[cu_seqlens.len()])?;
            run(
                dev,
                &Pack { cu_seqlens, max_seqlen, heads, causal, scale: 1.0 / (dim as f32).sqrt(), pairs: 0 },
                tokens,
            )
        })?);
    }
    let fault = |found: &Vec<u32>| differing(found, &runs[0], || format!("{what} of heads of size {dim}"));
    Ok(runs.iter().find_map(fault))
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
