//! The ops around the vocabulary (4,096 ids) and of one decode step (256 sequences of 512 keys each).

use super::case::{Case, op};
use super::inputs::{HEADS, HIDDEN, TOKENS, asked, bytes, random, weight, zeros};
use crate::device::{Device, Region};
use crate::error::Result;
use crate::ops::attend::BLOCK;
use crate::ops::linear_logprob::{self, Outs};
use crate::ops::matmul::panel_len;
use crate::ops::paged_attention::{self, KvCache, Paged};
use crate::ops::sample::{self, Draw, NoiseKey, SamplingParams};
use crate::tensor::{DType, Tensor};

const VOCABULARY: usize = 4096;
const SEQUENCES: usize = 256;
const KEYS: usize = 512;

fn targets(dev: &mut Device) -> Result<Tensor> {
    let ids: Vec<u32> = (0..TOKENS).map(|t| (t * 7919 % VOCABULARY) as u32).collect();
    dev.upload(Region::Overlay, &ids, &[TOKENS])
}

pub fn linear_logprob_fwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (hidden, w) = (random(dev, dtype, &[TOKENS, HIDDEN], 1.0)?, weight(dev, dtype, VOCABULARY, HIDDEN)?);
    let (targets, logprob) = (targets(dev)?, zeros(dev, DType::F32, &[TOKENS])?);
    let lse = zeros(dev, DType::F32, &[TOKENS])?;
    let flops = 2.0 * (TOKENS * VOCABULARY * HIDDEN) as f64;
    let moved = bytes(&[hidden, w.data, targets, logprob, lse]);
    let shape = format!("[{TOKENS}, {HIDDEN}] x [{VOCABULARY}, {HIDDEN}]");
    op("linear_logprob fwd", shape, dtype, flops, moved, move |dev| {
        linear_logprob::fwd(dev, asked(hidden, &w, targets), Outs { logprob, lse, entropy: None })
    })
}

pub fn linear_logprob_bwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (hidden, w) = (random(dev, dtype, &[TOKENS, HIDDEN], 1.0)?, weight(dev, dtype, VOCABULARY, HIDDEN)?);
    let (targets, logprob) = (targets(dev)?, zeros(dev, DType::F32, &[TOKENS])?);
    let lse = zeros(dev, DType::F32, &[TOKENS])?;
    let (dlogprob, dhidden) = (random(dev, DType::F32, &[TOKENS], 1.0)?, zeros(dev, dtype, &[TOKENS, HIDDEN])?);
    let dw = zeros(dev, DType::F32, &[panel_len(dtype, VOCABULARY, HIDDEN)])?;
    linear_logprob::fwd(dev, asked(hidden, &w, targets), Outs { logprob, lse, entropy: None })?;
    // The logits again, then both gradients.
    let flops = 6.0 * (TOKENS * VOCABULARY * HIDDEN) as f64;
    let moved = bytes(&[hidden, w.data, targets, lse, dlogprob, dhidden, dw]);
    let shape = format!("[{TOKENS}, {HIDDEN}] x [{VOCABULARY}, {HIDDEN}]");
    op("linear_logprob bwd", shape, dtype, flops, moved, move |dev| {
        let call = linear_logprob::Bwd { lse, entropy: None, dlogprob, dentropy: None, dhidden, dw };
        linear_logprob::bwd(dev, asked(hidden, &w, targets), call)
    })
}

pub fn paged_attention_fwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let blocks = KEYS / BLOCK;
    let cache = KvCache {
        k: random(dev, dtype, &[SEQUENCES * blocks, HEADS.kv, HEADS.dim, BLOCK], 1.0)?,
        v: random(dev, dtype, &[SEQUENCES * blocks, HEADS.kv, BLOCK, HEADS.dim], 1.0)?,
    };
    let qkv = random(dev, dtype, &[SEQUENCES, HEADS.qkv_len()], 1.0)?;
    let out = zeros(dev, dtype, &[SEQUENCES, HEADS.q * HEADS.dim])?;
    let tables: Vec<u32> = (0..(SEQUENCES * blocks) as u32).collect();
    let block_tables = dev.upload(Region::Overlay, &tables, &[SEQUENCES, blocks])?;
    let rows: Vec<u32> = (0..=SEQUENCES as u32).collect();
    let cu_seqlens_q = dev.upload(Region::Overlay, &rows, &[SEQUENCES + 1])?;
    let context_lens = dev.upload(Region::Overlay, &[KEYS as u32; SEQUENCES], &[SEQUENCES])?;
    let flops = 4.0 * (SEQUENCES * KEYS * HEADS.q * HEADS.dim) as f64;
    let moved = bytes(&[cache.k, cache.v, qkv, out]);
    let shape = format!("{SEQUENCES} x 1 of {KEYS} keys");
    op("paged_attention fwd", shape, dtype, flops, moved, move |dev| {
        let (heads, scale) = (HEADS, 0.125);
        let decode = None;
        let paged = Paged { cache: &cache, block_tables, cu_seqlens_q, context_lens, heads, scale, decode };
        paged_attention::fwd(dev, paged, qkv, out)
    })
}

pub fn sample_fwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (hidden, w) = (random(dev, dtype, &[SEQUENCES, HIDDEN], 1.0)?, weight(dev, dtype, VOCABULARY, HIDDEN)?);
    let (ids, logprobs) = (zeros(dev, DType::U32, &[SEQUENCES])?, zeros(dev, DType::F32, &[SEQUENCES])?);
    let noise = |i: u32| NoiseKey { prompt: i / 8, rollout: i % 8, position: 0 };
    let draws: Vec<_> = (0..SEQUENCES as u32).map(|i| Draw::new(SamplingParams::default(), noise(i), 1, 1)).collect();
    let table = Draw::upload(dev, Region::Overlay, &draws)?;
    let flops = 2.0 * (SEQUENCES * VOCABULARY * HIDDEN) as f64;
    let moved = bytes(&[hidden, w.data, ids, logprobs]);
    let shape = format!("[{SEQUENCES}, {HIDDEN}] x [{VOCABULARY}, {HIDDEN}]");
    op("sample fwd", shape, dtype, flops, moved, move |dev| {
        sample::fwd(dev, hidden, &w, None, &draws, table, sample::Outs { ids, logprobs })
    })
}
