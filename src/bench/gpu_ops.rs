//! The GPU's ops at the shapes of the 7B (on a card) or at tiny ones (on the emulator), bf16, normal numbers.

use half::bf16;

use super::case::{Case, Make, op};
use super::inputs::{asked, bytes, normal, zeros};
use crate::device::{Device, Kind, Region};
use crate::error::Result;
use crate::ops::adamw::{self, AdamW, Coded, Moments, code8};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::attention::{self, Pack};
use crate::ops::embedding::{self, Segments};
use crate::ops::linear_logprob::{self, Outs};
use crate::ops::matmul::{Order, Weight};
use crate::ops::paged_attention::{self, Decode, DecodeStep, KvCache, Paged, Split};
use crate::ops::patch_embed::{self, Normalize, PatchImage};
use crate::ops::sample::{self, Draw, NoiseKey, SamplingParams};
use crate::ops::{gelu, grad_norm, lane_sum, linear, rms_norm, rope, rows, swiglu};
use crate::tensor::{DType, Tensor};

/// A model's widths, and how much of it is worked on at once.
#[derive(Clone, Copy)]
struct Widths {
    tokens: usize,
    hidden: usize,
    intermediate: usize,
    heads: Heads,
    vocabulary: usize,
    /// Tokens of the sequences that attention is measured on.
    lengths: [usize; 2],
    /// Patches of the vision tower in windows of 64, and its heads.
    patches: usize,
    vision: Heads,
    /// Targets of the log-probs.
    targets: usize,
    /// A decode step: sequences, and keys of each.
    sequences: usize,
    keys: usize,
    /// Parameters of the optimizer's ops.
    parameters: usize,
}

const B7: Widths = Widths {
    tokens: 8192,
    hidden: 3584,
    intermediate: 18_944,
    heads: Heads { q: 28, kv: 4, dim: 128 },
    vocabulary: 152_064,
    lengths: [4096, 16_384],
    patches: 16_384,
    vision: Heads { q: 16, kv: 16, dim: 80 },
    targets: 4096,
    sequences: 256,
    keys: 1536,
    parameters: 1 << 28,
};

const TINY: Widths = Widths {
    tokens: 48,
    hidden: 64,
    intermediate: 128,
    heads: Heads { q: 4, kv: 2, dim: 16 },
    vocabulary: 300,
    lengths: [24, 48],
    patches: 128,
    vision: Heads { q: 2, kv: 2, dim: 16 },
    targets: 20,
    sequences: 3,
    keys: 256,
    parameters: 3000,
};

/// Every case with the first part of its name.
pub fn cases(kind: Kind) -> Vec<(&'static str, Make)> {
    let s = if kind == Kind::Cuda { B7 } else { TINY };
    let qkv = [s.heads.qkv_len(), s.hidden];
    let o = [s.hidden, s.heads.q * s.heads.dim];
    let gate_up = [2 * s.intermediate, s.hidden];
    let down = [s.hidden, s.intermediate];
    let mut out: Vec<(&'static str, Make)> = Vec::new();
    for [n, k] in [qkv, o, gate_up, down] {
        out.push(("linear", Box::new(move |dev| linear_fwd(dev, s.tokens, n, k))));
        out.push(("linear", Box::new(move |dev| linear_dgrad(dev, s.tokens, n, k))));
        out.push(("linear", Box::new(move |dev| linear_wgrad(dev, s.tokens, n, k))));
    }
    out.push(("linear", Box::new(move |dev| linear_fwd(dev, s.sequences, gate_up[0], gate_up[1]))));
    out.push(("swiglu", Box::new(move |dev| swiglu_fwd(dev, s))));
    out.push(("swiglu", Box::new(move |dev| swiglu_bwd(dev, s))));
    for length in s.lengths {
        let count = s.lengths[1] / length;
        out.push(("attention", Box::new(move |dev| attention_fwd(dev, s.heads, count, length, true))));
        out.push(("attention", Box::new(move |dev| attention_bwd(dev, s.heads, count, length, true))));
    }
    out.push(("attention", Box::new(move |dev| attention_fwd(dev, s.vision, s.patches / 64, 64, false))));
    out.push(("attention", Box::new(move |dev| attention_bwd(dev, s.vision, s.patches / 64, 64, false))));
    out.push(("rms_norm", Box::new(move |dev| rms_norm_fwd(dev, s))));
    out.push(("rms_norm", Box::new(move |dev| rms_norm_bwd(dev, s))));
    out.push(("rope", Box::new(move |dev| rope_fwd(dev, s))));
    out.push(("embedding", Box::new(move |dev| embedding_fwd(dev, s))));
    out.push(("embedding", Box::new(move |dev| embedding_bwd(dev, s))));
    out.push(("patch_embed", Box::new(move |dev| patch_embed_fwd(dev, s))));
    out.push(("gelu", Box::new(move |dev| gelu_bwd(dev, s))));
    for op in MOVES {
        out.push(("rows", Box::new(move |dev| rows_moved(dev, s, op))));
    }
    out.push(("linear_logprob", Box::new(move |dev| linear_logprob_fwd(dev, s))));
    out.push(("linear_logprob", Box::new(move |dev| linear_logprob_bwd(dev, s))));
    out.push(("adamw", Box::new(move |dev| adamw_step(dev, s, false))));
    out.push(("adamw", Box::new(move |dev| adamw_step(dev, s, true))));
    out.push(("grad_norm", Box::new(move |dev| grad_norm_fwd(dev, s))));
    out.push(("lane_sum", Box::new(move |dev| lane_sum_fwd(dev, s))));
    out.push(("paged_attention", Box::new(move |dev| paged_attention_fwd(dev, s))));
    out.push(("kv_cache", Box::new(move |dev| kv_cache_store(dev, s))));
    out.push(("sample", Box::new(move |dev| sample_fwd(dev, s))));
    out
}

fn random(dev: &mut Device, dims: &[usize], scale: f32) -> Result<Tensor> {
    normal::<bf16>(dev, dims, scale)
}

fn weight(dev: &mut Device, n: usize, k: usize) -> Result<Weight> {
    let order = Order::of(dev);
    Ok(Weight { data: random(dev, &[order.len(DType::Bf16, n, k)], 0.02)?, order, n, k })
}

fn gradient(dev: &mut Device, n: usize, k: usize) -> Result<Tensor> {
    let len = Order::of(dev).len(DType::Bf16, n, k);
    zeros(dev, DType::F32, &[len])
}

fn case(
    name: &'static str,
    shape: String,
    flops: f64,
    bytes: f64,
    mut run: impl FnMut(&mut Device) -> Result<()> + 'static,
) -> Result<Case> {
    // What it costs is noted behind it, as a model does: predictions go by that.
    let run = move |dev: &mut Device| -> Result<()> {
        run(dev)?;
        dev.note_work(name, flops, bytes);
        Ok(())
    };
    op(name, shape, DType::Bf16, flops, bytes, run)
}

/// A product of `[rows, columns]` with sums of `k` terms, and called by what it multiplies.
fn product(
    name: &'static str,
    shape: String,
    [rows, columns, k]: [usize; 3],
    bytes: f64,
    mut run: impl FnMut(&mut Device) -> Result<()> + 'static,
) -> Result<Case> {
    let run = move |dev: &mut Device| -> Result<()> {
        run(dev)?;
        dev.note_product(name, [rows, columns, k], bytes);
        Ok(())
    };
    let flops = 2.0 * rows as f64 * (columns * k) as f64;
    op(name, shape, DType::Bf16, flops, bytes, run)
}

fn linear_fwd(dev: &mut Device, t: usize, n: usize, k: usize) -> Result<Case> {
    let (x, w, y) = (random(dev, &[t, k], 1.0)?, weight(dev, n, k)?, zeros(dev, DType::Bf16, &[t, n])?);
    let moved = bytes(&[x, w.data, y]);
    product("linear fwd", format!("[{t}, {k}] x [{n}, {k}]"), [t, n, k], moved, move |dev| {
        linear::fwd(dev, x, &w, None, None, y)
    })
}

fn linear_dgrad(dev: &mut Device, t: usize, n: usize, k: usize) -> Result<Case> {
    let (dy, w, dx) = (random(dev, &[t, n], 1.0)?, weight(dev, n, k)?, zeros(dev, DType::Bf16, &[t, k])?);
    let moved = bytes(&[dy, w.data, dx]);
    product("linear dgrad", format!("[{t}, {n}] x [{n}, {k}]"), [t, k, n], moved, move |dev| {
        linear::dgrad(dev, dy, &w, dx, false)
    })
}

/// The gradient is read and written.
fn linear_wgrad(dev: &mut Device, t: usize, n: usize, k: usize) -> Result<Case> {
    let (x, dy, dw) = (random(dev, &[t, k], 1.0)?, random(dev, &[t, n], 1.0)?, gradient(dev, n, k)?);
    let moved = bytes(&[x, dy, dw, dw]);
    product("linear wgrad", format!("[{n}, {t}] x [{t}, {k}]"), [n, k, t], moved, move |dev| {
        linear::wgrad(dev, x, dy, dw, None)
    })
}

fn swiglu_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let (t, f, k) = (s.tokens, s.intermediate, s.hidden);
    let (x, w) = (random(dev, &[t, k], 1.0)?, weight(dev, 2 * f, k)?);
    let (gate_up, y) = (zeros(dev, DType::Bf16, &[t, 2 * f])?, zeros(dev, DType::Bf16, &[t, f])?);
    let moved = bytes(&[x, w.data, gate_up, y]);
    product("swiglu linear fwd", format!("[{t}, {k}] x [{}, {k}]", 2 * f), [t, 2 * f, k], moved, move |dev| {
        linear::fwd_swiglu(dev, x, &w, None, Some(gate_up), y)
    })
}

fn swiglu_bwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let (t, f) = (s.tokens, s.intermediate);
    let (gate_up, dy) = (random(dev, &[t, 2 * f], 1.0)?, random(dev, &[t, f], 1.0)?);
    let dgate_up = zeros(dev, DType::Bf16, &[t, 2 * f])?;
    case("swiglu bwd", format!("[{t}, {f}]"), 0.0, bytes(&[gate_up, dy, dgate_up]), move |dev| {
        swiglu::bwd(dev, gate_up, dy, dgate_up)
    })
}

/// `count` sequences of `length`, how they are called, and the arithmetic of one product over them.
fn sequences(dev: &mut Device, h: Heads, count: usize, length: usize, causal: bool) -> Result<(Pack, String, f64)> {
    let ends: Vec<u32> = (0..=count).map(|i| (i * length) as u32).collect();
    let pairs = count * if causal { length * (length + 1) / 2 } else { length * length };
    let shape = format!("{count} x {length}, {}:{} x {}{}", h.q, h.kv, h.dim, if causal { ", causal" } else { "" });
    let cu_seqlens = dev.upload(Region::Overlay, &ends, &[ends.len()])?;
    let pack = Pack { cu_seqlens, max_seqlen: length, heads: h, causal, scale: 1.0 / (h.dim as f32).sqrt() };
    Ok((pack, shape, 2.0 * (pairs * h.q * h.dim) as f64))
}

fn attention_fwd(dev: &mut Device, h: Heads, count: usize, length: usize, causal: bool) -> Result<Case> {
    let (pack, shape, product) = sequences(dev, h, count, length, causal)?;
    let t = count * length;
    let (qkv, out) = (random(dev, &[t, h.qkv_len()], 1.0)?, zeros(dev, DType::Bf16, &[t, h.q * h.dim])?);
    let lse = zeros(dev, DType::F32, &[t, h.q])?;
    case("attention fwd", shape, 2.0 * product, bytes(&[qkv, out, lse]), move |dev| {
        attention::fwd(dev, &pack, qkv, out, lse)
    })
}

fn attention_bwd(dev: &mut Device, h: Heads, count: usize, length: usize, causal: bool) -> Result<Case> {
    let (pack, shape, product) = sequences(dev, h, count, length, causal)?;
    let t = count * length;
    let (qkv, dout) = (random(dev, &[t, h.qkv_len()], 1.0)?, random(dev, &[t, h.q * h.dim], 1.0)?);
    let (out, dqkv) = (zeros(dev, DType::Bf16, &[t, h.q * h.dim])?, zeros(dev, DType::Bf16, &[t, h.qkv_len()])?);
    let lse = zeros(dev, DType::F32, &[t, h.q])?;
    attention::fwd(dev, &pack, qkv, out, lse)?;
    case("attention bwd", shape, 5.0 * product, bytes(&[qkv, out, dout, lse, dqkv]), move |dev| {
        attention::bwd(dev, &pack, attention::Bwd { qkv, out, dout, lse, dqkv })
    })
}

fn rms_norm_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let dims = [s.tokens, s.hidden];
    let (x, gamma) = (random(dev, &dims, 1.0)?, random(dev, &dims[1..], 1.0)?);
    let (y, rstd) = (zeros(dev, DType::Bf16, &dims)?, zeros(dev, DType::F32, &dims[..1])?);
    case("rms_norm fwd", format!("{dims:?}"), 0.0, bytes(&[x, gamma, y, rstd]), move |dev| {
        rms_norm::fwd(dev, x, gamma, 1e-6, y, rstd)
    })
}

fn rms_norm_bwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let dims = [s.tokens, s.hidden];
    let (x, gamma, dy) = (random(dev, &dims, 1.0)?, random(dev, &dims[1..], 1.0)?, random(dev, &dims, 1.0)?);
    let (dx, rstd) = (zeros(dev, DType::Bf16, &dims)?, zeros(dev, DType::F32, &dims[..1])?);
    let dgamma = zeros(dev, DType::F32, &dims[1..])?;
    rms_norm::fwd(dev, x, gamma, 1e-6, dx, rstd)?;
    case("rms_norm bwd", format!("{dims:?}"), 0.0, bytes(&[x, gamma, rstd, dy, dx, dgamma]), move |dev| {
        rms_norm::bwd(dev, rms_norm::Bwd { x, gamma, rstd, dy, dx, accumulate: false, dgamma })
    })
}

fn rope_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let (t, h) = (s.tokens, s.heads);
    let qkv = random(dev, &[t, h.qkv_len()], 1.0)?;
    let [cos, sin] = [normal::<f32>(dev, &[t, h.dim / 2], 0.5)?; 2];
    let turned = ((h.q + h.kv) * h.dim * t * qkv.dtype.size()) as f64;
    case("rope fwd", format!("[{t}, {}]", h.qkv_len()), 0.0, 2.0 * turned + bytes(&[cos]), move |dev| {
        rope::fwd(dev, qkv, cos, sin, h)
    })
}

fn ids(s: Widths, count: usize) -> Vec<u32> {
    (0..count).map(|t| (t * 7919 % s.vocabulary) as u32).collect()
}

fn embedding_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let dims = [s.tokens, s.hidden];
    let (w, y) = (weight(dev, s.vocabulary, s.hidden)?, zeros(dev, DType::Bf16, &dims)?);
    let ids = dev.upload(Region::Overlay, &ids(s, s.tokens), &[s.tokens])?;
    case("embedding fwd", format!("{dims:?}"), 0.0, bytes(&[y, y, ids]), move |dev| embedding::fwd(dev, ids, &w, y))
}

fn embedding_bwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let dims = [s.tokens, s.hidden];
    let (dy, dw) = (random(dev, &dims, 1.0)?, gradient(dev, s.vocabulary, s.hidden)?);
    let segments = Segments::upload(dev, Region::Overlay, &ids(s, s.tokens))?;
    let ids = dev.upload(Region::Overlay, &ids(s, s.tokens), &[s.tokens])?;
    // Rows of the gradient, f32, are read and written.
    case("embedding bwd", format!("{dims:?}"), 0.0, 5.0 * bytes(&[dy]) + bytes(&[ids]), move |dev| {
        embedding::bwd(dev, ids, &segments, dy, dw)
    })
}

/// Pictures of 32 x 32 patches, as many as there are patches for.
fn patch_embed_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let (side, width) = (if s.patches < 1024 { 8 } else { 32 }, s.vision.q * s.vision.dim);
    let norm = Normalize {
        mean: [0.5; 3],
        std: [0.25; 3],
        rescale: 1.0 / 255.0,
        patch_size: 14,
        merge_size: 2,
        temporal_patch_size: 2,
    };
    let picture = side * side * norm.patch_size * norm.patch_size * 3;
    let images: Vec<_> = (0..s.patches / (side * side))
        .map(|i| PatchImage { offset: i * picture, frames: 1, grid_thw: [1, side as u32, side as u32] })
        .collect();
    let bytes_of: Vec<u8> = (0..images.len() * picture).map(|i| (i * 37 % 251) as u8).collect();
    let pixels = dev.upload(Region::Overlay, &bytes_of, &[bytes_of.len()])?;
    let (w, y) = (weight(dev, width, norm.row_len())?, zeros(dev, DType::Bf16, &[s.patches, width])?);
    let flops = 2.0 * (s.patches * width * norm.row_len()) as f64;
    let shape = format!("{} x [1, {side}, {side}] x [{width}, {}]", images.len(), norm.row_len());
    case("patch_embed fwd", shape, flops, bytes(&[pixels, w.data, y]), move |dev| {
        patch_embed::fwd(dev, pixels, &images, &norm, &w, y)
    })
}

/// Of the merger, between its two products.
fn gelu_bwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let dims = [s.patches / 4, 4 * s.vision.q * s.vision.dim];
    let (pre, dy, dpre) = (random(dev, &dims, 1.0)?, random(dev, &dims, 1.0)?, zeros(dev, DType::Bf16, &dims)?);
    case("gelu bwd", format!("{dims:?}"), 0.0, bytes(&[pre, dy, dpre]), move |dev| gelu::bwd(dev, pre, dy, dpre))
}

/// An op that moves rows by index.
#[derive(Clone, Copy)]
struct Move {
    name: &'static str,
    run: fn(&mut Device, Tensor, Tensor, Tensor) -> Result<()>,
    /// Rows that are read for each row that is written.
    each: usize,
    /// Rows that are read and written for each such row.
    moved: usize,
    /// Whether some of all rows are written, rather than all of some read.
    into: bool,
}

const MOVES: [Move; 4] = [
    Move { name: "rows gather", run: rows::gather, each: 1, moved: 2, into: false },
    Move { name: "rows scatter", run: rows::scatter, each: 1, moved: 2, into: true },
    Move { name: "rows scatter_add", run: rows::scatter_add, each: 1, moved: 3, into: true },
    Move {
        name: "rows sum",
        run: |dev, src, idx, dst| rows::sum(dev, src, idx, None, dst),
        each: 2,
        moved: 3,
        into: false,
    },
];

/// Half of the hidden rows, or sums of every two.
fn rows_moved(dev: &mut Device, s: Widths, of: Move) -> Result<Case> {
    let Move { name, run, each, moved, into } = of;
    let half = s.tokens / 2;
    let (all, some) = (random(dev, &[s.tokens, s.hidden], 1.0)?, random(dev, &[half, s.hidden], 1.0)?);
    let index: Vec<u32> = (0..each * half).map(|i| (i % half * 2 + i / half) as u32).collect();
    let index = dev.upload(Region::Overlay, &index, &[index.len()])?;
    let (src, dst) = if into { (some, all) } else { (all, some) };
    let (shape, moved) = (format!("{} of [{}, {}]", index.len(), s.tokens, s.hidden), moved as f64 * bytes(&[some]));
    case(name, shape, 0.0, moved + bytes(&[index]), move |dev| run(dev, src, index, dst))
}

/// Hidden rows, the output matrix, targets, log-probs and log-sum-exps.
fn head(dev: &mut Device, s: Widths) -> Result<(Tensor, Weight, Tensor, Tensor, Tensor)> {
    let (hidden, w) = (random(dev, &[s.targets, s.hidden], 1.0)?, weight(dev, s.vocabulary, s.hidden)?);
    let targets = dev.upload(Region::Overlay, &ids(s, s.targets), &[s.targets])?;
    let [logprob, lse] = [zeros(dev, DType::F32, &[s.targets])?, zeros(dev, DType::F32, &[s.targets])?];
    Ok((hidden, w, targets, logprob, lse))
}

/// What rows of hidden states are multiplied by for logits, in words and numbers.
fn logits(rows: usize, s: Widths) -> (String, [usize; 3]) {
    let (n, k) = (s.vocabulary, s.hidden);
    (format!("[{rows}, {k}] x [{n}, {k}]"), [rows, n, k])
}

fn linear_logprob_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let (hidden, w, targets, logprob, lse) = head(dev, s)?;
    let (shape, of) = logits(s.targets, s);
    product("linear_logprob fwd", shape, of, bytes(&[hidden, w.data, targets, logprob, lse]), move |dev| {
        linear_logprob::fwd(dev, asked(hidden, &w, targets), Outs { logprob, lse, entropy: None })
    })
}

/// The logits again, then both gradients.
fn linear_logprob_bwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let (hidden, w, targets, logprob, lse) = head(dev, s)?;
    let dlogprob = normal::<f32>(dev, &[s.targets], 1e-3)?;
    let dhidden = zeros(dev, DType::Bf16, &[s.targets, s.hidden])?;
    let dw = gradient(dev, s.vocabulary, s.hidden)?;
    linear_logprob::fwd(dev, asked(hidden, &w, targets), Outs { logprob, lse, entropy: None })?;
    let ((shape, of), moved) =
        (logits(s.targets, s), bytes(&[hidden, w.data, targets, lse, dlogprob, dhidden, dw, dw]));
    let flops = 6.0 * of.iter().map(|&n| n as f64).product::<f64>();
    case("linear_logprob bwd", shape, flops, moved, move |dev| {
        let call = linear_logprob::Bwd { lse, entropy: None, dlogprob, dentropy: None, dhidden, dw };
        linear_logprob::bwd(dev, asked(hidden, &w, targets), call)
    })
}

fn adamw_step(dev: &mut Device, s: Widths, eight_bit: bool) -> Result<Case> {
    let n = s.parameters;
    let (w, lo) = (random(dev, &[n], 0.02)?, dev.zeros(Region::State, DType::I16, &[n])?);
    let grad = normal::<f32>(dev, &[n], 1e-3)?;
    let moments = if eight_bit {
        let scales = n.div_ceil(code8::BLOCK);
        let [m, v] = [(); 2].map(|()| -> Result<Coded> {
            Ok(Coded { codes: zeros(dev, DType::U8, &[n])?, scales: zeros(dev, DType::F32, &[scales])? })
        });
        Moments::Code8 { m: m?, v: v? }
    } else {
        Moments::F32 { m: zeros(dev, DType::F32, &[n])?, v: zeros(dev, DType::F32, &[n])? }
    };
    let clip = dev.upload(Region::Overlay, &[1.0_f32, 1.0], &[2])?;
    let hp = AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01, step: 1, seed: 1, param: 0 };
    let states: Vec<Tensor> = moments.tensors().into_iter().flatten().collect();
    let moved = 2.0 * (bytes(&[w, lo]) + bytes(&states)) + bytes(&[grad]);
    let name = if eight_bit { "adamw step, 8 bits" } else { "adamw step" };
    case(name, format!("{n} parameters"), 0.0, moved, move |dev| {
        adamw::step(dev, adamw::Parameter { first: 0, w, lo: Some(lo), grad, moments }, &hp, clip)
    })
}

fn grad_norm_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let grad = normal::<f32>(dev, &[s.parameters], 1e-3)?;
    let partials = zeros(dev, DType::F64, &[s.parameters.div_ceil(grad_norm::CHUNK)])?;
    let out = zeros(dev, DType::F32, &[3])?;
    case("grad_norm fwd", format!("{} parameters", s.parameters), 0.0, bytes(&[grad]), move |dev| {
        grad_norm::partials(dev, &[grad], partials)?;
        grad_norm::finish(dev, partials, 1.0, None, out)
    })
}

fn lane_sum_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    const LANES: usize = 8;
    let len = s.parameters / LANES;
    let lanes = normal::<f32>(dev, &[LANES, len], 1e-3)?;
    let out = zeros(dev, DType::F32, &[len])?;
    case("lane_sum fwd", format!("{LANES} lanes of {len} elements"), 0.0, bytes(&[lanes, out]), move |dev| {
        lane_sum::fwd(dev, lanes, out)
    })
}

fn paged_attention_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let (h, n, blocks) = (s.heads, s.sequences, s.keys / BLOCK);
    let cache = KvCache {
        k: random(dev, &[n * blocks, h.kv, BLOCK, h.dim], 1.0)?,
        v: random(dev, &[n * blocks, h.kv, BLOCK, h.dim], 1.0)?,
    };
    let (qkv, out) = (random(dev, &[n, h.qkv_len()], 1.0)?, zeros(dev, DType::Bf16, &[n, h.q * h.dim])?);
    // Blocks lie as they were given out, not one after another.
    let tables: Vec<u32> = (0..n * blocks).map(|i| (i % blocks * n + i / blocks) as u32).collect();
    let rows: Vec<u32> = (0..=n as u32).collect();
    let lengths = vec![s.keys as u32; n];
    let step = DecodeStep { cu_seqlens_q: &rows, context_lens: &lengths, block_tables: &tables };
    let split = Split::new(step, paged_attention::together(dev, h))?;
    let tickets = Decode::tickets(dev, Region::Overlay, n, h)?;
    let decode = Some(Decode::upload(dev, Region::Overlay, &split, tickets)?);
    let tables = dev.upload(Region::Overlay, &tables, &[n, blocks])?;
    let rows = dev.upload(Region::Overlay, &rows, &[n + 1])?;
    let lengths = dev.upload(Region::Overlay, &lengths, &[n])?;
    let flops = 4.0 * (n * s.keys * h.q * h.dim) as f64;
    let (shape, scale) = (format!("{n} x 1 of {} keys", s.keys), 1.0 / (h.dim as f32).sqrt());
    case("paged_attention fwd", shape, flops, bytes(&[cache.k, cache.v, qkv, out]), move |dev| {
        let (block_tables, cu_seqlens_q, context_lens) = (tables, rows, lengths);
        let paged = Paged { cache: &cache, block_tables, cu_seqlens_q, context_lens, heads: h, scale, decode };
        paged_attention::fwd(dev, paged, qkv, out)
    })
}

/// Of new tokens, block by block.
fn kv_cache_store(dev: &mut Device, s: Widths) -> Result<Case> {
    let (t, h) = (s.tokens, s.heads);
    let cache = KvCache::alloc(dev, Region::Overlay, DType::Bf16, t.div_ceil(BLOCK), h)?;
    let qkv = random(dev, &[t, h.qkv_len()], 1.0)?;
    let slots = dev.upload(Region::Overlay, &(0..t as u32).collect::<Vec<_>>(), &[t])?;
    let moved = (2 * 2 * t * h.kv * h.dim * qkv.dtype.size()) as f64 + bytes(&[slots]);
    case("kv_cache store", format!("[{t}, {}]", h.qkv_len()), 0.0, moved, move |dev| {
        paged_attention::store(dev, qkv, slots, &cache)
    })
}

fn sample_fwd(dev: &mut Device, s: Widths) -> Result<Case> {
    let n = s.sequences;
    let (hidden, w) = (random(dev, &[n, s.hidden], 1.0)?, weight(dev, s.vocabulary, s.hidden)?);
    let (ids, logprobs) = (zeros(dev, DType::U32, &[n])?, zeros(dev, DType::F32, &[n])?);
    let noise = |i: u32| NoiseKey { prompt: i / 8, rollout: i % 8, position: 0 };
    let draws: Vec<_> = (0..n as u32).map(|i| Draw::new(SamplingParams::default(), noise(i), 1, 1)).collect();
    let table = Draw::upload(dev, Region::Overlay, &draws)?;
    let (shape, of) = logits(n, s);
    product("sample fwd", shape, of, bytes(&[hidden, w.data, ids, logprobs]), move |dev| {
        sample::fwd(dev, hidden, &w, None, &draws, table, sample::Outs { ids, logprobs })
    })
}
