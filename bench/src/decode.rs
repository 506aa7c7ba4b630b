//! Benchmarks of the ops around the vocabulary and of the ops of a decoding step.

use super::case::{Case, op, product, rows_by_weight};
use super::inputs::{Sizes, bytes, fill, gradient, ids, logprob_call, normal, random, weight, zeros};
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::ops::linear_logprob::{self, Outs};
use omr_runtime::ops::matmul::Weight;
use omr_runtime::ops::paged_attention::{self, Decode, DecodeStep, KvCache, Paged};
use omr_runtime::ops::sample::{self, Draw, NoiseKey, SamplingParams};
use omr_runtime::tensor::{DType, Tensor};

/// Returns hidden rows, the output matrix, targets, log-probs and log-sum-exps.
fn head(dev: &mut Device, s: Sizes) -> Result<(Tensor, Weight, Tensor, Tensor, Tensor)> {
    let (hidden, w) = (normal(dev, s, &[s.targets, s.hidden])?, weight(dev, s, s.vocabulary, s.hidden)?);
    let targets = dev.upload(Region::Overlay, &ids(s, s.targets), &[s.targets])?;
    let [log_prob, lse] = [zeros(dev, DType::F32, &[s.targets])?, zeros(dev, DType::F32, &[s.targets])?];
    Ok((hidden, w, targets, log_prob, lse))
}

pub fn linear_logprob_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (hidden, w, targets, log_prob, lse) = head(dev, s)?;
    let of = [s.targets, s.vocabulary, s.hidden];
    product("linear_logprob fwd", s.dtype, of, bytes(&[hidden, w.data, targets, log_prob, lse]), move |dev| {
        linear_logprob::fwd(dev, logprob_call(hidden, &w, targets), Outs { log_prob, lse, entropy: None, logits: None })
    })
}

/// Makes the case of the backward pass, which computes the logits again and then both gradients.
pub fn linear_logprob_bwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (hidden, w, targets, log_prob, lse) = head(dev, s)?;
    let dlog_prob = random(dev, DType::F32, &[s.targets], 1e-3 * s.scale)?;
    let dhidden = zeros(dev, s.dtype, &[s.targets, s.hidden])?;
    let (dw, written) = gradient(dev, s.dtype, s.vocabulary, s.hidden)?;
    linear_logprob::fwd(dev, logprob_call(hidden, &w, targets), Outs { log_prob, lse, entropy: None, logits: None })?;
    let (shape, flops) = rows_by_weight([s.targets, s.vocabulary, s.hidden]);
    let moved = bytes(&[hidden, w.data, targets, lse, dlog_prob, dhidden]) + written;
    op("linear_logprob bwd", s.dtype, shape, 3.0 * flops, moved, move |dev| {
        let call = linear_logprob::Bwd {
            lse,
            entropy: None,
            logits: None,
            dlog_prob,
            dentropy: None,
            dhidden,
            dw: Some(dw.into()),
        };
        linear_logprob::bwd(dev, logprob_call(hidden, &w, targets), call)
    })
}

pub fn paged_attention_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (h, n, blocks) = (s.heads, s.sequences, s.keys / BLOCK);
    let cache = KvCache::alloc(dev, Region::Overlay, s.dtype, n * blocks, h)?;
    [cache.k, cache.v].into_iter().try_for_each(|tensor| fill(dev, tensor, s.scale))?;
    let (qkv, out) = (normal(dev, s, &[n, h.qkv_len()])?, zeros(dev, s.dtype, &[n, h.out_len()])?);
    // Blocks are interleaved between sequences as an allocator would assign them.
    let tables: Vec<u32> = (0..n * blocks).map(|i| (i % blocks * n + i / blocks) as u32).collect();
    let rows: Vec<u32> = (0..=n as u32).collect();
    let lengths = vec![s.keys as u32; n];
    let step = DecodeStep { cu_seqlens_q: &rows, context_lens: &lengths, block_tables: &tables };
    let decode = dev.kind().is_gpu().then(|| Decode::of(dev, Region::Overlay, step, h)).transpose()?;
    let tables = dev.upload(Region::Overlay, &tables, &[n, blocks])?;
    let rows = dev.upload(Region::Overlay, &rows, &[n + 1])?;
    let lengths = dev.upload(Region::Overlay, &lengths, &[n])?;
    let flops = 4.0 * (n * s.keys * h.q * h.dim) as f64;
    let (shape, scale) = (format!("{n} x 1 of {} keys", s.keys), 1.0 / (h.dim as f32).sqrt());
    op("paged_attention fwd", s.dtype, shape, flops, bytes(&[cache.k, cache.v, qkv, out]), move |dev| {
        let (block_tables, cu_seqlens_q, context_lens) = (tables, rows, lengths);
        let paged = Paged { cache: &cache, block_tables, cu_seqlens_q, context_lens, heads: h, scale, decode };
        paged_attention::fwd(dev, paged, qkv, out)
    })
}

/// Makes the case of storing new tokens block by block.
pub fn kv_cache_store(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (t, h) = (s.tokens, s.heads);
    let cache = KvCache::alloc(dev, Region::Overlay, s.dtype, t.div_ceil(BLOCK), h)?;
    let qkv = normal(dev, s, &[t, h.qkv_len()])?;
    let slots = dev.upload(Region::Overlay, &(0..t as u32).collect::<Vec<_>>(), &[t])?;
    let moved = (2 * 2 * t * h.kv * h.dim * qkv.dtype.size()) as f64 + bytes(&[slots]);
    let shape = format!("[{t}, {}]", h.qkv_len());
    op("kv_cache store", s.dtype, shape, 0.0, moved, move |dev| paged_attention::store(dev, qkv, slots, &cache))
}

pub fn sample_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let n = s.sequences;
    let (hidden, w) = (normal(dev, s, &[n, s.hidden])?, weight(dev, s, s.vocabulary, s.hidden)?);
    let (ids, logprobs) = (zeros(dev, DType::U32, &[n])?, zeros(dev, DType::F32, &[n])?);
    let noise = |i: u32| NoiseKey { prompt: i / 8, rollout: i % 8, position: 0 };
    let draws: Vec<_> = (0..n as u32).map(|i| Draw::new(SamplingParams::default(), noise(i), 1, 1)).collect();
    let table = Draw::upload(dev, Region::Overlay, &draws)?;
    let of = [n, s.vocabulary, s.hidden];
    product("sample fwd", s.dtype, of, bytes(&[hidden, w.data, ids, logprobs]), move |dev| {
        sample::fwd(dev, hidden, &w, None, &draws, table, sample::Outs { ids, logprobs, logits: None })
    })
}
