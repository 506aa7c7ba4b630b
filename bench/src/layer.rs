//! Benchmarks of the ops of a layer, and of those that make its input rows.

use super::case::{Case, op, product};
use super::inputs::{Sizes, bytes, fill, gradient, ids, normal, random, weight, zeros};
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::attention::{self, Pack};
use omr_runtime::ops::gelu::{self, GeluKind};
use omr_runtime::ops::patch_embed::{self, Normalize, PatchImage};
use omr_runtime::ops::qk_norm::{self, Bwd, Fwd, SavedRows};
use omr_runtime::ops::rows::Segments;
use omr_runtime::ops::{embedding, linear, lora, rms_norm, rope, swiglu};
use omr_runtime::tensor::{DType, Tensor};

pub fn linear_fwd(dev: &mut Device, s: Sizes, [t, n, k]: [usize; 3]) -> Result<Case> {
    let (x, w, y) = (normal(dev, s, &[t, k])?, weight(dev, s, n, k)?, zeros(dev, s.dtype, &[t, n])?);
    let moved = bytes(&[x, w.data, y]);
    product("linear fwd", s.dtype, [t, n, k], moved, move |dev| linear::fwd(dev, x, &w, None, None, y))
}

pub fn linear_dgrad(dev: &mut Device, s: Sizes, [t, n, k]: [usize; 3]) -> Result<Case> {
    let (dy, w, dx) = (normal(dev, s, &[t, n])?, weight(dev, s, n, k)?, zeros(dev, s.dtype, &[t, k])?);
    let (shape, moved) = (format!("[{t}, {n}] x [{n}, {k}]"), bytes(&[dy, w.data, dx]));
    let flops = 2.0 * (t * n * k) as f64;
    op("linear dgrad", s.dtype, shape, flops, moved, move |dev| linear::dgrad(dev, dy, &w, dx, false))
}

pub fn linear_wgrad(dev: &mut Device, s: Sizes, [t, n, k]: [usize; 3]) -> Result<Case> {
    let (x, dy) = (normal(dev, s, &[t, k])?, normal(dev, s, &[t, n])?);
    let (dw, written) = gradient(dev, s.dtype, n, k)?;
    let (shape, moved) = (format!("[{n}, {t}] x [{t}, {k}]"), bytes(&[x, dy]) + written);
    let flops = 2.0 * (t * n * k) as f64;
    op("linear wgrad", s.dtype, shape, flops, moved, move |dev| linear::wgrad(dev, x, dy, dw, None))
}

/// Makes the case of t = x A^T of an adapter.
pub fn lora_t(dev: &mut Device, s: Sizes, [t, r, k]: [usize; 3]) -> Result<Case> {
    let (x, a, y) = (normal(dev, s, &[t, k])?, weight(dev, s, r, k)?, zeros(dev, s.dtype, &[t, r])?);
    let moved = bytes(&[x, a.data, y]);
    let tickets = lora::tickets(dev, Region::Overlay)?;
    product("lora t", s.dtype, [t, r, k], moved, move |dev| lora::fwd(dev, x, &a, tickets, y))
}

pub fn swiglu_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (t, f, k) = (s.tokens, s.intermediate, s.hidden);
    let (x, w) = (normal(dev, s, &[t, k])?, weight(dev, s, 2 * f, k)?);
    let (gate_up, y) = (zeros(dev, s.dtype, &[t, 2 * f])?, zeros(dev, s.dtype, &[t, f])?);
    let moved = bytes(&[x, w.data, gate_up, y]);
    // For historical reasons the case has different names on a GPU and on the CPU. Results are compared by name, so the
    // names stay.
    let name = if dev.kind().is_gpu() { "swiglu linear fwd" } else { "linear fwd_swiglu" };
    product(name, s.dtype, [t, 2 * f, k], moved, move |dev| linear::fwd_swiglu(dev, x, &w, None, Some(gate_up), y))
}

pub fn swiglu_bwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (t, f) = (s.tokens, s.intermediate);
    let (gate_up, dy) = (normal(dev, s, &[t, 2 * f])?, normal(dev, s, &[t, f])?);
    let dgate_up = zeros(dev, s.dtype, &[t, 2 * f])?;
    let (shape, moved) = (format!("[{t}, {f}]"), bytes(&[gate_up, dy, dgate_up]));
    op("swiglu bwd", s.dtype, shape, 0.0, moved, move |dev| swiglu::bwd(dev, gate_up, dy, dgate_up))
}

/// Packed sequences of equal length.
#[derive(Clone, Copy)]
pub struct Sequences {
    pub heads: Heads,
    pub count: usize,
    pub length: usize,
    pub causal: bool,
}

impl Sequences {
    /// Makes the pack. Also returns its description and the arithmetic of one product over it.
    fn pack(self, dev: &mut Device) -> Result<(Pack, String, f64)> {
        let Sequences { heads, count, length, causal } = self;
        let ends: Vec<u32> = (0..=count).map(|i| (i * length) as u32).collect();
        let pairs = count * if causal { length * (length + 1) / 2 } else { length * length };
        let of = match dev.kind().is_gpu() {
            true => format!(", {}:{} x {}", heads.q, heads.kv, heads.dim),
            false => String::new(),
        };
        let shape = format!("{count} x {length}{of}{}", if causal { ", causal" } else { "" });
        let cu_seqlens = dev.upload(Region::Overlay, &ends, &[ends.len()])?;
        let scale = 1.0 / (heads.dim as f32).sqrt();
        let pack = Pack { cu_seqlens, max_seqlen: length, heads, causal, scale, pairs };
        Ok((pack, shape, 2.0 * (pairs * heads.out_len()) as f64))
    }
}

pub fn attention_fwd(dev: &mut Device, s: Sizes, sequences: Sequences) -> Result<Case> {
    let (pack, shape, product) = sequences.pack(dev)?;
    let (t, h) = (sequences.count * sequences.length, sequences.heads);
    let (qkv, out) = (normal(dev, s, &[t, h.qkv_len()])?, zeros(dev, s.dtype, &[t, h.out_len()])?);
    let lse = zeros(dev, DType::F32, &[t, h.q])?;
    let moved = bytes(&[qkv, out, lse]);
    op("attention fwd", s.dtype, shape, 2.0 * product, moved, move |dev| attention::fwd(dev, &pack, qkv, out, lse))
}

pub fn attention_bwd(dev: &mut Device, s: Sizes, sequences: Sequences) -> Result<Case> {
    let (pack, shape, product) = sequences.pack(dev)?;
    let (t, h) = (sequences.count * sequences.length, sequences.heads);
    let (qkv, dout) = (normal(dev, s, &[t, h.qkv_len()])?, normal(dev, s, &[t, h.out_len()])?);
    let (out, dqkv) = (zeros(dev, s.dtype, &[t, h.out_len()])?, zeros(dev, s.dtype, &[t, h.qkv_len()])?);
    let lse = zeros(dev, DType::F32, &[t, h.q])?;
    attention::fwd(dev, &pack, qkv, out, lse)?;
    op("attention bwd", s.dtype, shape, 5.0 * product, bytes(&[qkv, out, dout, lse, dqkv]), move |dev| {
        attention::bwd(dev, &pack, attention::Bwd { qkv, out, dout, lse, dqkv, prompt_of: None })
    })
}

pub fn rms_norm_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let dims = [s.tokens, s.hidden];
    let (x, gamma) = (normal(dev, s, &dims)?, normal(dev, s, &dims[1..])?);
    let (y, rstd) = (zeros(dev, s.dtype, &dims)?, zeros(dev, DType::F32, &dims[..1])?);
    let moved = bytes(&[x, gamma, y, rstd]);
    op("rms_norm fwd", s.dtype, format!("{dims:?}"), 0.0, moved, move |dev| rms_norm::fwd(dev, x, gamma, 1e-6, y, rstd))
}

pub fn rms_norm_bwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let dims = [s.tokens, s.hidden];
    let (x, gamma) = (normal(dev, s, &dims)?, normal(dev, s, &dims[1..])?);
    let (dy, dx) = (normal(dev, s, &dims)?, zeros(dev, s.dtype, &dims)?);
    let (rstd, dgamma) = (zeros(dev, DType::F32, &dims[..1])?, zeros(dev, DType::F32, &dims[1..])?);
    rms_norm::fwd(dev, x, gamma, 1e-6, dx, rstd)?;
    op("rms_norm bwd", s.dtype, format!("{dims:?}"), 0.0, bytes(&[x, gamma, rstd, dy, dx, dgamma]), move |dev| {
        rms_norm::bwd(dev, rms_norm::Bwd { x, gamma, rstd, dy, dx, accumulate: false, dgamma })
    })
}

/// Makes the case of rotary embeddings. Cosines and sines are one table on a GPU, and two on the CPU.
pub fn rope_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (t, h) = (s.tokens, s.heads);
    let qkv = normal(dev, s, &[t, h.qkv_len()])?;
    let cos = random(dev, DType::F32, &[t, h.dim / 2], 0.5 * s.scale)?;
    let (sin, tables) = match dev.kind().is_gpu() {
        true => (cos, bytes(&[cos])),
        false => (random(dev, DType::F32, &[t, h.dim / 2], 0.5 * s.scale)?, bytes(&[cos, cos])),
    };
    let turned = ((h.q + h.kv) * h.dim * t * qkv.dtype.size()) as f64;
    let shape = format!("[{t}, {}]", h.qkv_len());
    op("rope fwd", s.dtype, shape, 0.0, 2.0 * turned + tables, move |dev| rope::fwd(dev, qkv, cos, sin, h))
}

pub fn qk_norm_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (t, heads) = (s.tokens, s.heads);
    let qkv = normal(dev, s, &[t, heads.qkv_len()])?;
    let [cos, sin] = [random(dev, DType::F32, &[t, heads.dim / 2], 0.5 * s.scale)?; 2];
    let [q, k] = [normal(dev, s, &[heads.dim])?; 2];
    let kept = SavedRows::alloc(dev, Region::Overlay, s.dtype, t, heads)?;
    let moved = 3.0 * bytes(&[kept.x]) + bytes(&[kept.rstd, cos, sin]);
    op("qk_norm fwd", s.dtype, format!("[{t}, {}]", heads.qkv_len()), 0.0, moved, move |dev| {
        qk_norm::fwd(dev, Fwd { qkv, q, k, eps: 1e-6, cos, sin, heads, cache: None, kept: Some(kept) })
    })
}

pub fn qk_norm_bwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (t, heads) = (s.tokens, s.heads);
    let dqkv = normal(dev, s, &[t, heads.qkv_len()])?;
    let [cos, sin] = [random(dev, DType::F32, &[t, heads.dim / 2], 0.5 * s.scale)?; 2];
    let [q, k] = [normal(dev, s, &[heads.dim])?; 2];
    let kept = SavedRows::alloc(dev, Region::Overlay, s.dtype, t, heads)?;
    fill(dev, kept.x, s.scale)?;
    fill(dev, kept.rstd, s.scale)?;
    let dweights = Some([zeros(dev, DType::F32, &[heads.dim])?, zeros(dev, DType::F32, &[heads.dim])?]);
    // The gradient of the weights reads the gradient of the rows and what forward kept once more.
    let moved = 5.0 * bytes(&[kept.x]) + 2.0 * bytes(&[kept.rstd, cos, sin]);
    op("qk_norm bwd", s.dtype, format!("[{t}, {}]", heads.qkv_len()), 0.0, moved, move |dev| {
        qk_norm::bwd(dev, Bwd { dqkv, q, k, cos, sin, heads, kept, dweights })
    })
}

pub fn embedding_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let dims = [s.tokens, s.hidden];
    let (w, y) = (weight(dev, s, s.vocabulary, s.hidden)?, zeros(dev, s.dtype, &dims)?);
    let ids = dev.upload(Region::Overlay, &ids(s, s.tokens), &[s.tokens])?;
    let moved = bytes(&[y, y, ids]);
    op("embedding fwd", s.dtype, format!("{dims:?}"), 0.0, moved, move |dev| embedding::fwd(dev, ids, &w, y))
}

pub fn embedding_bwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let dims = [s.tokens, s.hidden];
    let (dy, (dw, _)) = (normal(dev, s, &dims)?, gradient(dev, s.dtype, s.vocabulary, s.hidden)?);
    let segments = Segments::upload(dev, Region::Overlay, &ids(s, s.tokens))?;
    let ids = dev.upload(Region::Overlay, &ids(s, s.tokens), &[s.tokens])?;
    // Rows of the f32 gradient are read and written.
    let (shape, moved) = (format!("{dims:?}"), 5.0 * bytes(&[dy]) + bytes(&[ids]));
    op("embedding bwd", s.dtype, shape, 0.0, moved, move |dev| embedding::bwd(dev, ids, &segments, dy, dw))
}

/// Makes the case of as many images as `s.patches` allows. An image has 32 x 32 patches, or 8 x 8 on the emulator.
pub fn patch_embed_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (side, width) = (if s.patches < 1024 { 8 } else { 32 }, s.vision.q * s.vision.dim);
    let norm = Normalize {
        mean: [0.5; 3],
        std: [0.25; 3],
        rescale: 1.0 / 255.0,
        patch_size: 14,
        merge_size: 2,
        temporal_patch_size: 2,
    };
    let image = side * side * norm.patch_size * norm.patch_size * 3;
    let one = |i: usize| PatchImage { offset: i * image, frames: 1, grid_thw: [1, side as u32, side as u32] };
    let images: Vec<_> = (0..s.patches / (side * side)).map(one).collect();
    let bytes_of: Vec<u8> = (0..images.len() * image).map(|i| (i * 37 % 251) as u8).collect();
    let pixels = dev.upload(Region::Overlay, &bytes_of, &[bytes_of.len()])?;
    let (w, y) = (weight(dev, s, width, norm.row_len())?, zeros(dev, s.dtype, &[s.patches, width])?);
    let flops = 2.0 * (s.patches * width * norm.row_len()) as f64;
    let shape = format!("{} x [1, {side}, {side}] x [{width}, {}]", images.len(), norm.row_len());
    op("patch_embed fwd", s.dtype, shape, flops, bytes(&[pixels, w.data, y]), move |dev| {
        patch_embed::fwd(dev, pixels, &images, &norm, &w, None, y)
    })
}

/// Makes the case of the backward pass of GELU, at the size of the activation between the merger's two products.
pub fn gelu_bwd(dev: &mut Device, s: Sizes, kind: GeluKind) -> Result<Case> {
    let dims = [s.patches / 4, 4 * s.vision.q * s.vision.dim];
    let (pre, dy, dpre) = (normal(dev, s, &dims)?, normal(dev, s, &dims)?, zeros(dev, s.dtype, &dims)?);
    let name = if kind == GeluKind::Exact { "gelu bwd" } else { "gelu tanh bwd" };
    op(name, s.dtype, format!("{dims:?}"), 0.0, bytes(&[pre, dy, dpre]), move |dev| gelu::bwd(dev, kind, pre, dy, dpre))
}

/// Makes the case `name` of an op that moves half of the hidden rows by index. The op reads and writes `moved` rows per
/// row. With `into`, it writes a subset of all rows, otherwise it reads a subset.
pub fn rows_moved(
    dev: &mut Device,
    s: Sizes,
    name: &'static str,
    moved: usize,
    into: bool,
    run: fn(&mut Device, Tensor, Tensor, Tensor) -> Result<()>,
) -> Result<Case> {
    let half = s.tokens / 2;
    let (all, some) = (normal(dev, s, &[s.tokens, s.hidden])?, normal(dev, s, &[half, s.hidden])?);
    let index: Vec<u32> = (0..half).map(|i| 2 * i as u32).collect();
    let index = dev.upload(Region::Overlay, &index, &[index.len()])?;
    let (src, dst) = if into { (some, all) } else { (all, some) };
    let (shape, moved) = (format!("{} of [{}, {}]", index.len(), s.tokens, s.hidden), moved as f64 * bytes(&[some]));
    op(name, s.dtype, shape, 0.0, moved + bytes(&[index]), move |dev| run(dev, src, index, dst))
}
