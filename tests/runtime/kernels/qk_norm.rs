//! Tests of kernels/qk_norm.cu: equal bits with the CPU op.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::paged_attention::KvCache;
use omr_runtime::ops::qk_norm::{self, Bwd, Fwd, SavedRows};
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (tokens, heads): heads with less than, exactly and more than one round of a warp, with halves in whole pieces of 16 bytes
/// and without; one head of k; no token; more tokens than one chunk of the weights' gradients.
const SHAPES: [(usize, (usize, usize, usize)); 7] = [
    (3, (4, 2, 128)),
    (5, (3, 1, 12)),
    (2, (2, 2, 136)),
    (2, (2, 1, 272)),
    (1, (2, 1, 64)),
    (0, (2, 1, 16)),
    (37, (4, 2, 32)),
];

/// Slots of the first tokens: one of them lies past the cache of two blocks.
const SLOTS: [u32; 5] = [130, 7, 256, 0, 255];

/// Returns the rows, what is kept for backward, the stored keys and values of the slots, and the gradients.
pub fn run(dev: &mut Device, t: usize, heads: Heads, cached: bool) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let (dim, half) = (heads.dim, heads.dim / 2);
    let dims = [t, heads.qkv_len()];
    let qkv = up(dev, &normals::<bf16>(1, t * heads.qkv_len()), &dims);
    let angles = normals::<f32>(2, t * half);
    let [cos, sin] = [f32::cos, f32::sin].map(|f| {
        let values: Vec<f32> = angles.iter().map(|a| f(*a)).collect();
        up(dev, &values, &[t, half])
    });
    let (q, k) = (up(dev, &normals::<bf16>(3, dim), &[dim]), up(dev, &normals::<bf16>(4, dim), &[dim]));
    let kept = SavedRows::alloc(dev, Region::Overlay, DType::Bf16, t, heads)?;
    let cache = KvCache::alloc(dev, Region::Overlay, DType::Bf16, 2, heads)?;
    dev.fill_zero(cache.k)?;
    dev.fill_zero(cache.v)?;
    // The CPU refuses a slot past the cache, which a GPU leaves out.
    let is_gpu = dev.kind().is_gpu();
    let slots: Vec<u32> = (0..t).map(|i| if is_gpu || i != 2 { SLOTS[i % 5] + (i / 5) as u32 } else { 64 }).collect();
    let slots = up(dev, &slots, &[t]);
    let stored = cached.then_some((&cache, slots));
    qk_norm::fwd(dev, Fwd { qkv, q, k, eps: 1e-6, cos, sin, heads, cache: stored, kept: Some(kept) })?;
    let mut halves: Vec<bf16> = [dev.read(qkv)?, dev.read::<bf16>(kept.x)?].concat();
    if cached {
        halves.extend(pages(dev, &cache, heads)?);
    }
    let dqkv = up(dev, &normals::<bf16>(5, t * heads.qkv_len()), &dims);
    let dweights = [up(dev, &normals::<f32>(6, dim), &[dim]), up(dev, &normals::<f32>(7, dim), &[dim])];
    qk_norm::bwd(dev, Bwd { dqkv, q, k, cos, sin, heads, kept, dweights: Some(dweights) })?;
    halves.extend(dev.read::<bf16>(dqkv)?);
    let mut floats: Vec<f32> = dev.read(kept.rstd)?;
    for dw in dweights {
        floats.extend(dev.read::<f32>(dw)?);
    }
    Ok((halves, floats))
}

/// Returns the keys and values of the cache in the order of a GPU, without position 64, where the CPU stores a token that
/// a GPU leaves out.
fn pages(dev: &mut Device, cache: &KvCache, heads: Heads) -> Outcome<Vec<bf16>> {
    let (k, v) = (dev.read::<bf16>(cache.k)?, dev.read::<bf16>(cache.v)?);
    let is_gpu = dev.kind().is_gpu();
    let mut out = Vec::new();
    for page in 0..2 * heads.kv {
        for at in (0..128).filter(|at| *at != 64) {
            for j in 0..heads.dim {
                let row = (page * 128 + at) * heads.dim + j;
                out.push(k[if is_gpu { row } else { (page * heads.dim + j) * 128 + at }]);
                out.push(v[row]);
            }
        }
    }
    Ok(out)
}

fn probe(dev: &mut Device) -> Outcome {
    for (t, (q, kv, dim)) in SHAPES {
        let (heads, cached) = (Heads { q, kv, dim }, t <= 5);
        let (got, want) = (run(dev, t, heads, cached)?, run(&mut cpu(), t, heads, cached)?);
        equal(&format!("{t} x {q}:{kv} x {dim}"), &got.0, &want.0)?;
        equal(&format!("{t} x {q}:{kv} x {dim}, f32"), &got.1, &want.1)?;
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu()).unwrap();
    same_bits(4, |dev| Ok(run(dev, 37, Heads { q: 4, kv: 2, dim: 32 }, false)?.0));
}

#[test]
fn heads_of_odd_halves_are_refused_by_name() {
    let error = run(&mut emu(), 2, Heads { q: 2, kv: 1, dim: 6 }, false).unwrap_err().to_string();
    assert!(error.contains("qk_norm::fwd") && error.contains("a multiple of 4"), "{error}");
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("const bf16* w = is_k ? args.k : args.q;", "const bf16* w = args.q;"),
        ("fmaf(p, c, -(q * s));\n            b[i]", "fmaf(p, c, q * s);\n            b[i]"),
        ("if (block >= args.blocks) return nullptr;", ""),
        ("row < args.rows;\n    bool is_normed", "true;\n    bool is_normed"),
        ("lanes > 0; lanes /= 2", "lanes > 1; lanes /= 2"),
        ("count > 0; count /= 2", "count > 1; count /= 2"),
        ("squares.sum() / (float)args.dim", "squares.v[0] / (float)args.dim"),
        ("float sum = products.sum();", "float sum = products.v[0];"),
        ("if (cell != nullptr) x.store(cell, j, half);", ""),
        ("v.b[i] * r * mean", "v.b[i] * mean"),
        ("s = -args.sin[(int64_t)row * half + j]", "s = args.sin[(int64_t)row * half + j]"),
        ("float sum = *dw;", "float sum = 0.0f;"),
        ("< CHUNK ? args.rows", "<= CHUNK ? args.rows - 1"),
    ] {
        mutate_source("qk_norm", from, to, 1, probe);
    }
}
