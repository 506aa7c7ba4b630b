//! Attention over a paged cache: the entry point, prefill on a GPU, and prefill and decode on the CPU.

use std::ops::Range;

use super::cache::KvCache;
use super::call::Paged;
use super::launch_decode;
use crate::device::{Cpu, Device, Gpu, Isa, Launch, Parts, Region, cpu_kernel, params};
use crate::ops::attend::{BLOCK, Context, Heads, KeySource, Keys, RowStates, Setting, run_with_scratch};
use crate::ops::attention::names::{ByDim, WideKernels, by_dim, holding, num_slots, wide_kernels};
use crate::ops::attention::sm90a::{self, WideCall};
use crate::ops::attention::{Pack, launch};
use crate::ops::check::{self, by_dtype};
use crate::ops::lanes::{self, LANES};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Query rows of one work item.
const ROWS: usize = 32;

/// Computes causal attention of new tokens to all cached ones. qkv is `[T, (q + 2 kv) * dim]`, of which only the q
/// heads are read; out is `[T, q * dim]`. Each row is bitwise identical to that of `attention::fwd`. Returns an error
/// for
///
/// - other shapes;
/// - a context shorter than its new tokens or longer than its block table, and a block id past the cache (not checked
///   on a GPU, where these numbers are in device memory);
/// - a head_dim above 128 on a GPU.
pub fn fwd(dev: &mut Device, paged: Paged<'_>, qkv: Tensor, out: Tensor) -> Result<()> {
    run(dev, paged, qkv, out, None)
}

/// Computes [`fwd`] in prefill, and writes the log-sum-exps of the rows to lse f32 `[T, q heads]`, as `attention::fwd`
/// does. Also returns an error if `paged` has the work items of a decode step. `pairs` is the number of pairs of a row
/// and a key that it attends to, of which only the recorded work depends.
pub fn fwd_with_lse(
    dev: &mut Device,
    paged: Paged<'_>,
    qkv: Tensor,
    out: Tensor,
    lse: Tensor,
    pairs: usize,
) -> Result<()> {
    check::that("paged_attention::fwd", paged.decode.is_none(), "prefill, for log-sum-exps", "decode")?;
    let Paged { cu_seqlens_q, heads, scale, .. } = paged;
    let pack = Pack { cu_seqlens: cu_seqlens_q, max_seqlen: qkv.rows(), heads, causal: true, scale, pairs };
    pack.note(dev, "attention", 2.0, 1.0, [qkv, out]);
    run(dev, paged, qkv, out, Some(lse))
}

fn run(dev: &mut Device, paged: Paged<'_>, qkv: Tensor, out: Tensor, lse: Option<Tensor>) -> Result<()> {
    const OP: &str = "paged_attention::fwd";
    let Paged { cache, block_tables, cu_seqlens_q, context_lens, heads, decode, .. } = paged;
    check::compute(OP, "qkv", qkv)?;
    let (t, s) = (qkv.rows(), context_lens.rows());
    check::tensor(OP, "qkv", qkv, qkv.dtype, &[t, heads.qkv_len()])?;
    cache.check(OP, dev, qkv.dtype, heads)?;
    check::tensor(OP, "block_tables", block_tables, DType::U32, &[s, block_tables.cols()])?;
    check::tensor(OP, "cu_seqlens_q", cu_seqlens_q, DType::U32, &[s + 1])?;
    check::tensor(OP, "context_lens", context_lens, DType::U32, &[s])?;
    check::tensor(OP, "out", out, qkv.dtype, &[t, heads.out_len()])?;
    if let Some(lse) = lse {
        check::tensor(OP, "lse", lse, DType::F32, &[t, heads.q])?;
    }
    dev.scope(Region::Workspace, |dev| {
        if !dev.kind().is_gpu() {
            let scratch = dev.alloc(Region::Workspace, DType::F32, &[dev.threads(), scratch_len(heads)])?;
            return dev.on().run(|cpu| by_dtype!(qkv.dtype, forward(cpu, &paged, qkv, out, lse, scratch)), |_| Ok(()));
        }
        launch::check_heads(OP, qkv.dtype, heads)?;
        if let Some(decode) = decode {
            let states = launch_decode::states(dev, decode, &paged)?;
            return dev.op(OP).run(|_| (), |gpu| launch_decode::fwd(gpu, &paged, decode, qkv, out, states));
        }
        let counter = sm90a::counter(dev)?;
        dev.op(OP).run(|_| (), |gpu| launch_fwd(gpu, &paged, qkv, out, lse, counter))
    })
}

const PREFILL: ByDim = by_dim!("paged_attention_prefill");
const WIDE: WideKernels = wide_kernels!("paged_attention_sm90a", "paged_attention_prefill_wide");

fn launch_fwd(
    mut gpu: Gpu<'_>,
    paged: &Paged<'_>,
    qkv: Tensor,
    out: Tensor,
    lse: Option<Tensor>,
    counter: Tensor,
) -> Result<()> {
    let &Paged { cache: &KvCache { k, v }, block_tables, cu_seqlens_q, context_lens, heads, .. } = paged;
    let (tokens, sequences) = (out.rows(), context_lens.rows());
    check::that(gpu.op, sequences > 0 || tokens == 0, "a sequence", "none")?;
    let wide = launch::wide(&gpu, heads.dim, &[qkv, k, v, out]);
    let args = params!(attend::PagedArgs {
        qkv,
        k,
        v,
        block_tables,
        cu_seqlens_q,
        context_lens,
        out,
        lse,
        sequences: check::count(gpu.op, "sequences", sequences)?,
        columns: check::count(gpu.op, "columns", block_tables.cols())?,
        q_heads: heads.q as i32,
        kv_heads: heads.kv as i32,
        dim: heads.dim as i32,
        wide,
        scale_log2e: Setting::new(qkv.dtype, heads, paged.scale).scale_log2e,
    });
    let keys = [k, v].map(|pages| sm90a::paged_keys(gpu.ptr(pages), paged.cache.blocks(), heads));
    let call = WideCall { qkv, tokens, sequences, heads, wide, keys, counter };
    if call.launch(&mut gpu, &WIDE, &args)? {
        return Ok(());
    }
    let (kept, kernel) = holding(&PREFILL, heads.dim);
    let slots = num_slots(gpu.op, tokens, sequences, heads.group(), launch::TILE_ROWS)?;
    let grid = [slots, check::grid(gpu.op, heads.kv)?, 1];
    gpu.launch("paged_attention", kernel, Launch::new(grid, launch::THREADS, launch::rows_smem(kept)), args)
}

/// Returns the scratch elements of a thread: a block in f32, then the rows' states.
fn scratch_len(heads: Heads) -> usize {
    widened_len(heads) + RowStates::len(ROWS * heads.group(), heads.dim)
}

fn widened_len(heads: Heads) -> usize {
    BLOCK * (heads.dim + heads.padded())
}

/// Query rows of one sequence, at most [`ROWS`].
struct QueryTile {
    sequence: usize,
    rows: Range<usize>,
    /// Number of keys that the first row sees.
    context: usize,
}

fn tiles(cu: &[u32], context_lens: &[u32], tables: &[u32], t: usize, blocks: usize) -> Result<Vec<QueryTile>> {
    const OP: &str = "paged_attention::fwd";
    if cu[0] != 0 || cu[cu.len() - 1] as usize != t || cu.windows(2).any(|w| w[0] > w[1]) {
        return check::fail(OP, format!("cu_seqlens_q ascending from 0 to {t}"), format!("{cu:?}"));
    }
    let columns = tables.len() / context_lens.len().max(1);
    let mut tiles = Vec::new();
    for (sequence, (w, &context)) in cu.windows(2).zip(context_lens).enumerate() {
        let (from, to, context) = (w[0] as usize, w[1] as usize, context as usize);
        if from == to {
            continue;
        }
        if context < to - from || context > columns * BLOCK {
            return check::fail(OP, format!("a context of {} to {}", to - from, columns * BLOCK), context.to_string());
        }
        let table = &tables[sequence * columns..][..context.div_ceil(BLOCK)];
        if let Some(b) = table.iter().find(|&&b| b as usize >= blocks) {
            return check::fail(OP, format!("blocks below {blocks}"), b.to_string());
        }
        for at in (from..to).step_by(ROWS) {
            tiles.push(QueryTile { sequence, rows: at..to.min(at + ROWS), context: context - (to - at) + 1 });
        }
    }
    Ok(tiles)
}

fn forward<T: Elem>(
    cpu: Cpu<'_>,
    paged: &Paged<'_>,
    qkv: Tensor,
    out: Tensor,
    lse: Option<Tensor>,
    scratch: Tensor,
) -> Result<()> {
    let &Paged { cache: &KvCache { k, v }, block_tables, cu_seqlens_q, context_lens, heads, .. } = paged;
    let (t, blocks, setting) = (qkv.rows(), k.rows(), Setting::new(qkv.dtype, heads, paged.scale));
    let ins = [qkv, k, v, block_tables, cu_seqlens_q, context_lens];
    // Without a request for log-sum-exps, their list is empty.
    let outs = [out, lse.unwrap_or(scratch.slice(0, 0)), scratch];
    let ([out, lse_view, scratch], [qkv, k, v, tables, cu, contexts]) = cpu.memory.tensors(outs, ins);
    let (qkv, k, v, tables) = (qkv.of::<T>(), k.of::<T>(), v.of::<T>(), tables.of::<u32>());
    let contexts = contexts.of::<u32>();
    let tiles = tiles(cu.of::<u32>(), contexts, tables, t, blocks)?;
    let columns = tables.len() / contexts.len().max(1);
    let (group, isa) = (heads.group(), cpu.isa);
    let (out, lses) = (Parts::new(out.of::<T>(), group * heads.dim), Parts::new(lse_view.of::<f32>(), group));
    run_with_scratch(cpu.pool, tiles.len() * heads.kv, scratch.of::<f32>(), scratch_len(heads), |i, scratch| {
        let (tile, head) = (&tiles[i / heads.kv], i % heads.kv);
        let (widened, scratch) = scratch.split_at_mut(widened_len(heads));
        let context = Context { first: tile.context, step: 1, group };
        let queries = &qkv[tile.rows.start * heads.qkv_len() + head * group * heads.dim..];
        let rows = tile.rows.len();
        let mut states = RowStates::new(isa, scratch, queries, heads.qkv_len(), rows, context, setting);
        let table = &tables[tile.sequence * columns..][..columns];
        states.attend(isa, &mut CachedKeys { k, v, table, heads, head, widened, isa });
        for (i, row) in tile.rows.clone().enumerate() {
            states.write(isa, i, out.take(row * heads.kv + head));
            if lse.is_some() {
                lses.take(row * heads.kv + head).copy_from_slice(&states.lse()[i * group..][..group]);
            }
        }
    });
    Ok(())
}

/// One key head of a sequence's blocks in the cache.
struct CachedKeys<'a, T> {
    k: &'a [T],
    v: &'a [T],
    table: &'a [u32],
    heads: Heads,
    head: usize,
    widened: &'a mut [f32],
    isa: Isa,
}

impl<T: Elem> KeySource for CachedKeys<'_, T> {
    fn block(&mut self, b: usize) -> Keys<'_> {
        let dim = self.heads.dim;
        let at = (self.table[b] as usize * self.heads.kv + self.head) * dim * BLOCK;
        let (k, v) = (&self.k[at..][..dim * BLOCK], &self.v[at..][..dim * BLOCK]);
        if T::DTYPE == DType::F32 && dim.is_multiple_of(LANES) {
            return Keys { k: bytemuck::cast_slice(k), v: bytemuck::cast_slice(v), v_stride: dim };
        }
        let padded = self.heads.padded();
        let (wide_k, wide_v) = self.widened.split_at_mut(BLOCK * dim);
        widen_block::<T>(self.isa, k, v, dim, padded, wide_k, wide_v);
        Keys { k: wide_k, v: wide_v, v_stride: padded }
    }
}

cpu_kernel! {
    /// Converts a block to f32 and pads its value rows with zeros.
    fn widen_block<T: Elem>(k: &[T], v: &[T], dim: usize, padded: usize, wide_k: &mut [f32], wide_v: &mut [f32]) {
        lanes::widen(k, wide_k);
        for (to, from) in wide_v.chunks_exact_mut(padded).zip(v.chunks_exact(dim)) {
            let (to, rest) = to.split_at_mut(dim);
            lanes::widen(from, to);
            rest.fill(0.0);
        }
    }
}
