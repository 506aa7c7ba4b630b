//! Attention over a paged KV cache: prefill in chunks and one-token decode. The row is the one of `attend`, so that
//! it has the bits `attention::fwd` gives it in training.

use std::ops::Range;

use bytemuck::NoUninit;

use crate::device::{Address, Cpu, Device, Gpu, Isa, Launch, On, Parts, Region, cpu_kernel};
use crate::error::{Error, Result};
pub use crate::ops::attend::BLOCK;
use crate::ops::attend::{Context, Heads, KeySource, Keys, RowStates, Setting, run_with_scratch};
use crate::ops::attention::launch::{self, ByDim};
use crate::ops::attention::sm90a::{self, WideCall, WideNames};
use crate::ops::check::{self, by_dtype};
use crate::ops::lanes::LANES;
use crate::tensor::{DType, Elem, Tensor};

mod agreement;
mod decode;
mod split;
pub use agreement::wgmma_fault;
pub use decode::{Decode, together};
pub use split::{DecodeStep, Split};

/// Query rows of one work item.
const ROWS: usize = 32;

/// One layer's cached keys and values, in blocks of [`BLOCK`] positions, both in the compute type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KvCache {
    /// On the CPU `[blocks, kv heads, dim, BLOCK]`: transposed, so that scores run over keys in vectors. On a GPU as `v`.
    pub k: Tensor,
    /// `[blocks, kv heads, BLOCK, dim]`.
    pub v: Tensor,
}

impl KvCache {
    /// Takes a cache of `blocks` blocks from `region`. Its content is undefined, and need not be cleared: positions
    /// that were never stored are never used.
    pub fn alloc(dev: &mut Device, region: Region, dtype: DType, blocks: usize, heads: Heads) -> Result<KvCache> {
        let k = dev.alloc(region, dtype, &key_dims(dev, blocks, heads))?;
        let v = dev.alloc(region, dtype, &value_dims(blocks, heads))?;
        Ok(KvCache { k, v })
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.k.rows()
    }

    /// The heads of packed rows `width` long that this cache stores.
    fn heads(&self, width: usize) -> Heads {
        let (kv, dim) = (self.v.shape[1], self.v.shape[3]);
        Heads { q: (width / dim.max(1)).saturating_sub(2 * kv), kv, dim }
    }

    /// Errors unless both parts are of `dtype` and laid out for `heads` on `dev`.
    pub(in crate::ops) fn check(&self, op: &'static str, dev: &Device, dtype: DType, heads: Heads) -> Result<()> {
        heads.check(op)?;
        check::tensor(op, "cache.k", self.k, dtype, &key_dims(dev, self.blocks(), heads))?;
        check::tensor(op, "cache.v", self.v, dtype, &value_dims(self.blocks(), heads))
    }
}

fn key_dims(dev: &Device, blocks: usize, heads: Heads) -> [usize; 4] {
    if dev.kind().is_gpu() { value_dims(blocks, heads) } else { [blocks, heads.kv, heads.dim, BLOCK] }
}

fn value_dims(blocks: usize, heads: Heads) -> [usize; 4] {
    [blocks, heads.kv, BLOCK, heads.dim]
}

/// Stores the k and v heads of new tokens: qkv `[T, (q + 2 kv) * dim]`, slot_mapping `[T]` u32, a token's slot being
/// block * BLOCK + position in the block; of equal slots the last wins. Errors on other shapes and on a slot past
/// the cache. On a GPU slots are distinct (of equal ones any may win), and a token whose slot is past the cache is not
/// stored.
pub fn store(dev: &mut Device, qkv: Tensor, slot_mapping: Tensor, cache: &KvCache) -> Result<()> {
    const OP: &str = "paged_attention::store";
    check::compute(OP, "qkv", qkv)?;
    check::that(OP, cache.v.shape.len() == 4, "cache.v of four dimensions", format!("{:?}", cache.v.shape))?;
    let heads = cache.heads(qkv.cols());
    check::tensor(OP, "qkv", qkv, qkv.dtype, &[qkv.rows(), heads.qkv_len()])?;
    check::tensor(OP, "slot_mapping", slot_mapping, DType::U32, &[qkv.rows()])?;
    cache.check(OP, dev, qkv.dtype, heads)?;
    match dev.on() {
        On::Count => Ok(()),
        On::Cpu(cpu) => by_dtype!(qkv.dtype, store_rows(cpu, qkv, slot_mapping, cache, heads)),
        On::Gpu(gpu) => launch_store(OP, gpu, qkv, slot_mapping, cache, heads),
    }
}

/// `kv_cache::Args` of kernels/kv_cache.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct StoreArgs {
    qkv: Address,
    slots: Address,
    k: Address,
    v: Address,
    rows: i32,
    width: i32,
    skip: i32,
    heads: i32,
    dim: i32,
    blocks: u32,
}

fn launch_store(
    op: &'static str,
    mut gpu: Gpu<'_>,
    qkv: Tensor,
    slots: Tensor,
    cache: &KvCache,
    heads: Heads,
) -> Result<()> {
    const THREADS: u32 = 256;
    check::gpu_compute(op, qkv.dtype)?;
    // Elements of a thread: 16-byte accesses where heads start on 16 bytes.
    let (kernel, each) = if heads.dim.is_multiple_of(8) { ("kv_store_vectors", 8) } else { ("kv_store_elements", 1) };
    let elements = qkv.rows() * 2 * heads.kv * heads.dim;
    check::count(op, "elements", elements)?;
    let args = StoreArgs {
        qkv: gpu.ptr(qkv),
        slots: gpu.ptr(slots),
        k: gpu.ptr(cache.k),
        v: gpu.ptr(cache.v),
        rows: qkv.rows() as i32,
        width: check::count(op, "columns", qkv.cols())?,
        skip: (heads.q * heads.dim) as i32,
        heads: heads.kv as i32,
        dim: heads.dim as i32,
        blocks: check::count(op, "blocks", cache.blocks())? as u32,
    };
    let grid = check::grid(op, (elements / each).div_ceil(THREADS as usize))?;
    gpu.launch("kv_cache", kernel, Launch::new([grid, 1, 1], THREADS, 0), &args)
}

fn store_rows<T: Elem>(cpu: Cpu<'_>, qkv: Tensor, slots: Tensor, cache: &KvCache, heads: Heads) -> Result<()> {
    let ([k, v], [qkv, slots]) = cpu.memory.tensors([cache.k, cache.v], [qkv, slots]);
    let (qkv, slots) = (qkv.of::<T>(), slots.of::<u32>());
    if let Some(slot) = slots.iter().find(|&&s| s as usize >= cache.blocks() * BLOCK) {
        let (want, got) = (format!("slots below {}", cache.blocks() * BLOCK), slot.to_string());
        return Err(Error::Shape { op: "paged_attention::store", want, got });
    }
    let mut tokens: Vec<u32> = (0..slots.len() as u32).collect();
    tokens.sort_by_key(|&t| slots[t as usize]);
    let block = |t: &u32| slots[*t as usize] as usize / BLOCK;
    let by_block: Vec<&[u32]> = tokens.chunk_by(|a, b| block(a) == block(b)).collect();
    let len = heads.kv * heads.dim * BLOCK;
    let (k, v) = (Parts::new(k.of::<T>(), len), Parts::new(v.of::<T>(), len));
    cpu.pool.run(by_block.len(), |i| {
        let b = block(&by_block[i][0]);
        store_block::<T>(cpu.isa, qkv, slots, by_block[i], heads, k.take(b), v.take(b));
    });
    Ok(())
}

cpu_kernel! {
    /// The tokens of one block.
    fn store_block<T: Elem>(qkv: &[T], slots: &[u32], tokens: &[u32], heads: Heads, k: &mut [T], v: &mut [T]) {
        let (dim, width) = (heads.dim, heads.qkv_len());
        for &t in tokens {
            let at = slots[t as usize] as usize % BLOCK;
            let row = &qkv[t as usize * width + heads.q * dim..][..2 * heads.kv * dim];
            let (keys, values) = row.split_at(heads.kv * dim);
            for (column, x) in k.chunks_exact_mut(BLOCK).zip(keys) {
                column[at] = *x;
            }
            for (head, x) in v.chunks_exact_mut(BLOCK * dim).zip(values.chunks_exact(dim)) {
                head[at * dim..][..dim].copy_from_slice(x);
            }
        }
    }
}

/// Where the keys of new tokens lie.
#[derive(Clone, Copy, Debug)]
pub struct Paged<'a> {
    /// The layer's keys and values.
    pub cache: &'a KvCache,
    /// u32 `[S, max blocks]`.
    pub block_tables: Tensor,
    /// u32 `[S + 1]`: the new tokens of sequence s are rows `cu_seqlens_q[s]` .. `cu_seqlens_q[s + 1]` and its last
    /// positions.
    pub cu_seqlens_q: Tensor,
    /// u32 `[S]`: a sequence's keys with the new ones, which [`store`] must have put into the cache before.
    pub context_lens: Tensor,
    /// Heads of a row.
    pub heads: Heads,
    /// Multiplies the scores; positive.
    pub scale: f32,
    /// The work items of a step in which no sequence has more than one new token: a GPU then fills the card by chunks of
    /// keys. Without, rows are cut alone; the CPU cuts them as ever. No bit depends on it.
    pub decode: Option<Decode>,
}

/// Causal attention of new tokens to all cached ones: qkv `[T, (q + 2 kv) * dim]` (its q heads are read), out
/// `[T, q * dim]`. A row gets the bits of `attention::fwd`. Errors on other shapes, on a
/// context shorter than its new tokens or longer than its table, and on a block past the cache; on a GPU on a head_dim
/// above 128, and these numbers, which lie in its memory, are not looked at.
pub fn fwd(dev: &mut Device, paged: Paged<'_>, qkv: Tensor, out: Tensor) -> Result<()> {
    const OP: &str = "paged_attention::fwd";
    let Paged { cache, block_tables, cu_seqlens_q, context_lens, heads, scale, decode } = paged;
    check::compute(OP, "qkv", qkv)?;
    let (t, s) = (qkv.rows(), context_lens.rows());
    check::tensor(OP, "qkv", qkv, qkv.dtype, &[t, heads.qkv_len()])?;
    cache.check(OP, dev, qkv.dtype, heads)?;
    check::tensor(OP, "block_tables", block_tables, DType::U32, &[s, block_tables.cols()])?;
    check::tensor(OP, "cu_seqlens_q", cu_seqlens_q, DType::U32, &[s + 1])?;
    check::tensor(OP, "context_lens", context_lens, DType::U32, &[s])?;
    check::tensor(OP, "out", out, qkv.dtype, &[t, heads.out_len()])?;
    let setting = Setting::new(qkv.dtype, heads, scale);
    if dev.kind().is_gpu() {
        launch::check_heads(OP, qkv.dtype, heads)?;
        let mark = dev.mark(Region::Workspace);
        if let Some(decode) = decode {
            let states = decode::states(dev, decode, &paged)?;
            let done = match dev.on() {
                On::Gpu(gpu) => decode::fwd(OP, gpu, &paged, decode, [qkv, out, states], setting),
                _ => Ok(()),
            };
            dev.release(mark);
            return done;
        }
        let ins = [qkv, cache.k, cache.v, block_tables, cu_seqlens_q, context_lens];
        let totals = sm90a::totals(dev, heads, block_tables.cols() * BLOCK)?;
        let done = match dev.on() {
            On::Gpu(gpu) => launch_fwd(OP, gpu, ins, heads, setting, [out, totals]),
            _ => Ok(()),
        };
        dev.release(mark);
        return done;
    }
    let mark = dev.mark(Region::Workspace);
    let scratch = dev.alloc(Region::Workspace, DType::F32, &[dev.threads(), scratch_len(heads)])?;
    let done = match dev.cpu_only(OP)? {
        Some(cpu) => {
            let ins = [qkv, cache.k, cache.v, block_tables, cu_seqlens_q, context_lens];
            by_dtype!(qkv.dtype, forward(cpu, ins, heads, setting, out, scratch))
        }
        None => Ok(()),
    };
    dev.release(mark);
    done
}

const PREFILL: ByDim = [
    (16, "paged_attention_prefill_hd16"),
    (32, "paged_attention_prefill_hd32"),
    (64, "paged_attention_prefill_hd64"),
    (80, "paged_attention_prefill_hd80"),
    (128, "paged_attention_prefill_hd128"),
];

const WIDE: WideNames = [(80, "paged_attention_prefill_wide_hd80"), (128, "paged_attention_prefill_wide_hd128")];

/// `attend::PagedArgs` of kernels/common/attend_calls.cuh.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    qkv: Address,
    k: Address,
    v: Address,
    block_tables: Address,
    cu_seqlens_q: Address,
    context_lens: Address,
    out: Address,
    sequences: i32,
    columns: i32,
    q_heads: i32,
    kv_heads: i32,
    dim: i32,
    wide: i32,
    scale_log2e: f32,
    padding: i32,
}

fn launch_fwd(
    op: &'static str,
    mut gpu: Gpu<'_>,
    ins: [Tensor; 6],
    heads: Heads,
    setting: Setting,
    [out, totals]: [Tensor; 2],
) -> Result<()> {
    let (tokens, sequences, columns, blocks) = (out.rows(), ins[5].rows(), ins[3].cols(), ins[1].rows());
    check::that(op, sequences > 0 || tokens == 0, "a sequence", "none")?;
    let [qkv, k, v, block_tables, cu_seqlens_q, context_lens] = ins.map(|t| gpu.ptr(t));
    let [out, totals] = [out, totals].map(|t| gpu.ptr(t));
    let wide = launch::wide(heads.dim, &[qkv, k, v, out]);
    let args = Args {
        qkv,
        k,
        v,
        block_tables,
        cu_seqlens_q,
        context_lens,
        out,
        sequences: check::count(op, "sequences", sequences)?,
        columns: check::count(op, "columns", columns)?,
        q_heads: heads.q as i32,
        kv_heads: heads.kv as i32,
        dim: heads.dim as i32,
        wide: i32::from(wide),
        scale_log2e: setting.scale_log2e,
        padding: 0,
    };
    let keys = [k, v].map(|pages| sm90a::paged_keys(pages, blocks, heads));
    let call = WideCall { qkv, tokens, sequences, heads, wide, keys, totals };
    if call.launch(op, &mut gpu, ("paged_attention_sm90a", &WIDE), &args)? {
        return Ok(());
    }
    let (kept, kernel) = launch::by_dim(&PREFILL, heads.dim);
    let slots = launch::slots(op, tokens, sequences, heads.group(), launch::TILE_ROWS)?;
    let grid = [slots, check::grid(op, heads.kv)?, 1];
    gpu.launch("paged_attention", kernel, Launch::new(grid, launch::THREADS, launch::rows_smem(kept)), &args)
}

/// A block widened, then the rows' states.
fn scratch_len(heads: Heads) -> usize {
    widened_len(heads) + RowStates::len(ROWS * heads.group(), heads.dim)
}

fn widened_len(heads: Heads) -> usize {
    BLOCK * (heads.dim + heads.padded())
}

/// Query rows of one sequence, at most [`ROWS`].
struct Tile {
    sequence: usize,
    rows: Range<usize>,
    /// Keys the first of them sees.
    context: usize,
}

fn tiles(cu: &[u32], context_lens: &[u32], tables: &[u32], t: usize, blocks: usize) -> Result<Vec<Tile>> {
    let fail = |want: String, got: String| Err(Error::Shape { op: "paged_attention::fwd", want, got });
    if cu[0] != 0 || cu[cu.len() - 1] as usize != t || cu.windows(2).any(|w| w[0] > w[1]) {
        return fail(format!("cu_seqlens_q ascending from 0 to {t}"), format!("{cu:?}"));
    }
    let columns = tables.len() / context_lens.len().max(1);
    let mut tiles = Vec::new();
    for (sequence, (w, &context)) in cu.windows(2).zip(context_lens).enumerate() {
        let (from, to, context) = (w[0] as usize, w[1] as usize, context as usize);
        if from == to {
            continue;
        }
        if context < to - from || context > columns * BLOCK {
            return fail(format!("a context of {} to {}", to - from, columns * BLOCK), context.to_string());
        }
        let table = &tables[sequence * columns..][..context.div_ceil(BLOCK)];
        if let Some(b) = table.iter().find(|&&b| b as usize >= blocks) {
            return fail(format!("blocks below {blocks}"), b.to_string());
        }
        for at in (from..to).step_by(ROWS) {
            tiles.push(Tile { sequence, rows: at..to.min(at + ROWS), context: context - (to - at) + 1 });
        }
    }
    Ok(tiles)
}

fn forward<T: Elem>(
    cpu: Cpu<'_>,
    ins: [Tensor; 6],
    heads: Heads,
    setting: Setting,
    out: Tensor,
    scratch: Tensor,
) -> Result<()> {
    let (t, blocks) = (out.rows(), ins[1].rows());
    let ([out, scratch], [qkv, k, v, tables, cu, contexts]) = cpu.memory.tensors([out, scratch], ins);
    let (qkv, k, v, tables) = (qkv.of::<T>(), k.of::<T>(), v.of::<T>(), tables.of::<u32>());
    let contexts = contexts.of::<u32>();
    let tiles = tiles(cu.of::<u32>(), contexts, tables, t, blocks)?;
    let columns = tables.len() / contexts.len().max(1);
    let (group, isa) = (heads.group(), cpu.isa);
    let out = Parts::new(out.of::<T>(), group * heads.dim);
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
    /// A block in f32, value rows padded with zeros.
    fn widen_block<T: Elem>(k: &[T], v: &[T], dim: usize, padded: usize, wide_k: &mut [f32], wide_v: &mut [f32]) {
        for (to, from) in wide_k.iter_mut().zip(k) {
            *to = from.to_f32();
        }
        for (to, from) in wide_v.chunks_exact_mut(padded).zip(v.chunks_exact(dim)) {
            let (to, rest) = to.split_at_mut(dim);
            for (to, from) in to.iter_mut().zip(from) {
                *to = from.to_f32();
            }
            rest.fill(0.0);
        }
    }
}
