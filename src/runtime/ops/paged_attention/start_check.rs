//! Start check of prefill and decode by wgmma. Decode by wgmma must have the bits of decode by `mma.sync` and of
//! prefill, and prefill those of attention over packed sequences, as in training.

use half::bf16;

use super::cache::KvCache;
use super::call::Paged;
use super::decode::Decode;
use super::forward::fwd;
use super::split::DecodeStep;
use super::store::store;
use crate::device::{Device, KernelVariant, Region};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::attention::{self, Pack};
use crate::ops::start_check::{bits, differing, neighbours, sensitive_rows, sized, values, with_many_and_few_ctas};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

const AT: Region = Region::Workspace;

/// New tokens per sequence of a prefill.
const TAIL: usize = 40;

/// A batch of sequences in a cache.
struct Batch {
    cache: KvCache,
    heads: Heads,
    contexts: Vec<u32>,
    /// Block tables `[sequences, columns]`.
    tables: Vec<u32>,
}

/// Compares prefill and decode by wgmma with other paths to the same results, with heads of `dim` elements. The device
/// must already use wgmma for matrix products. Returns a description of the differences, or `None` if there are none.
pub fn wgmma_fault(dev: &mut Device, dim: usize) -> Result<Option<String>> {
    match dev.scope(Region::Workspace, |dev| decoded(dev, dim))? {
        None => dev.scope(Region::Workspace, |dev| packed(dev, dim)),
        fault => Ok(fault),
    }
}

/// Compares the two variants of decode, and prefill. All sequences begin with the same page, which one shared item
/// reads for all of them. Every second sequence has two chunks, whose states are folded.
fn decoded(dev: &mut Device, dim: usize) -> Result<Option<String>> {
    let sequences = sized(dev, 64, 12);
    let (kv, group) = (4, sized(dev, 7, 16));
    let heads = Heads { q: group * kv, kv, dim };
    let (columns, pages) = (18, 42);
    let contexts = (0..sequences).map(|i| if i % 2 == 1 { 2177 + i } else { 130 + i * 37 % 170 }).collect();
    // The pages between the first and those of the second chunk are in another order for each sequence.
    let page = |i: u32, c: u32| match c {
        0 => 0,
        1..16 => 1 + (i * 7 + c * 5) % 39,
        _ => 24 + c,
    };
    let tables = (0..sequences).flat_map(|i| (0..columns).map(move |c| page(i, c))).collect();
    let dims = [pages as usize, kv, BLOCK, dim];
    let count = dims.iter().product();
    // The keys of the second chunk are larger, so that its scores are the largest and the fold scales the first chunk.
    let mut keys = values(count, 1, 2.0);
    keys[count / pages as usize * 40..].iter_mut().for_each(|x| *x = bf16::from_f32(x.to_f32() * 2.0));
    let cache = KvCache { k: dev.upload(AT, &keys, &dims)?, v: dev.upload(AT, &neighbours(count, dim, 2), &dims)? };
    // Decode reads only the queries of these rows.
    let rows = sensitive_rows(sequences as usize, heads, 3);
    let qkv = dev.upload(AT, &rows, &[sequences as usize, heads.qkv_len()])?;
    let batch = Batch { cache, heads, contexts, tables };
    let mut first = None;
    for (variant, decode) in [(KernelVariant::Mma, true), (KernelVariant::Wgmma, true), (KernelVariant::Wgmma, false)] {
        dev.use_variant(variant)?;
        for found in with_many_and_few_ctas(dev, |dev| batch.outputs(dev, qkv, decode))? {
            let what = || format!("{} outputs of heads of size {dim}", if decode { "decoded" } else { "prefilled" });
            if let Some(fault) = differing(&found, first.get_or_insert_with(|| found.clone()), what) {
                return Ok(Some(fault));
            }
        }
    }
    Ok(None)
}

/// Compares prefill and decode of the last tokens with attention over the packed sequences, of which one is longer than
/// a chunk.
fn packed(dev: &mut Device, dim: usize) -> Result<Option<String>> {
    dev.use_variant(KernelVariant::Wgmma)?;
    let lens: &[usize] = sized(dev, &[2900, 1500, 2049, 300], &[2100, 300]);
    let kv = sized(dev, 4, 1);
    let heads = Heads { q: 2 * kv, kv, dim };
    let (tokens, width) = (lens.iter().sum::<usize>(), heads.qkv_len());
    let mut cu_seqlens = vec![0u32];
    lens.iter().for_each(|len| cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + *len as u32));
    let qkv = dev.upload(AT, &sensitive_rows(tokens, heads, 4), &[tokens, width])?;
    let out = dev.alloc(AT, DType::Bf16, &[tokens, heads.out_len()])?;
    let lse = dev.alloc(AT, DType::F32, &[tokens, heads.q])?;
    let cu = dev.upload(AT, &cu_seqlens, &[cu_seqlens.len()])?;
    let scale = 1.0 / (dim as f32).sqrt();
    attention::fwd(
        dev,
        &Pack { cu_seqlens: cu, max_seqlen: tokens, heads, causal: true, scale, pairs: 0 },
        qkv,
        out,
        lse,
    )?;

    let columns = lens.iter().map(|len| len.div_ceil(BLOCK)).max().unwrap_or(0);
    let page = |s: usize, c: usize| (s * columns + c) as u32;
    let tables = (0..lens.len()).flat_map(|s| (0..columns).map(move |c| page(s, c))).collect();
    let cache = KvCache::alloc(dev, AT, DType::Bf16, lens.len() * columns, heads)?;
    let slot = |s: usize, t: usize| page(s, t / BLOCK) * BLOCK as u32 + (t % BLOCK) as u32;
    let slots: Vec<u32> = lens.iter().enumerate().flat_map(|(s, len)| (0..*len).map(move |t| slot(s, t))).collect();
    let slots = dev.upload(AT, &slots, &[tokens])?;
    store(dev, qkv, slots, &cache)?;
    let batch = Batch { cache, heads, contexts: lens.iter().map(|len| *len as u32).collect(), tables };
    for (tail, decode) in [(TAIL, false), (1, true)] {
        let last = |dev: &mut Device, t: Tensor| last_rows(dev, t, &cu_seqlens, tail);
        let (new, want) = (last(dev, qkv)?, last(dev, out)?);
        let want = bits(dev, &[want])?;
        for found in with_many_and_few_ctas(dev, |dev| batch.outputs(dev, new, decode))? {
            let path = if decode { "decoded" } else { "prefilled" };
            let what = || format!("{path} outputs of heads of size {dim}, compared with a packed pass,");
            if let Some(fault) = differing(&found, &want, what) {
                return Ok(Some(fault));
            }
        }
    }
    Ok(None)
}

/// Returns a copy of the last `tail` rows of each sequence.
fn last_rows(dev: &mut Device, rows: Tensor, cu_seqlens: &[u32], tail: usize) -> Result<Tensor> {
    let ends = &cu_seqlens[1..];
    let to = dev.alloc(AT, rows.dtype, &[ends.len() * tail, rows.cols()])?;
    for (s, end) in ends.iter().enumerate() {
        let from = rows.slice(*end as usize - tail, *end as usize);
        dev.copy(from, to.slice(s * tail, (s + 1) * tail))?;
    }
    Ok(to)
}

impl Batch {
    /// Returns the bits of the outputs of the new tokens `qkv`, which are the last ones of each sequence, computed by
    /// decode's work items or by prefill.
    fn outputs(&self, dev: &mut Device, qkv: Tensor, decode: bool) -> Result<Vec<u32>> {
        let Batch { ref cache, heads, ref contexts, ref tables } = *self;
        let sequences = contexts.len();
        let each = (qkv.rows() / sequences) as u32;
        let cu_seqlens: Vec<u32> = (0..=sequences as u32).map(|s| s * each).collect();
        let step = DecodeStep { cu_seqlens_q: &cu_seqlens, context_lens: contexts, block_tables: tables };
        let decode = decode.then(|| Decode::of(dev, AT, step, heads)).transpose()?;
        let paged = Paged {
            cache,
            block_tables: dev.upload(AT, tables, &[sequences, tables.len() / sequences])?,
            cu_seqlens_q: dev.upload(AT, &cu_seqlens, &[sequences + 1])?,
            context_lens: dev.upload(AT, contexts, &[sequences])?,
            heads,
            scale: 1.0 / (heads.dim as f32).sqrt(),
            decode,
        };
        let out = dev.alloc(AT, DType::Bf16, &[qkv.rows(), heads.out_len()])?;
        fwd(dev, paged, qkv, out)?;
        bits(dev, &[out])
    }
}
