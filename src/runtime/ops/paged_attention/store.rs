//! Stores the keys and values of new tokens in the cache.

use super::cache::KvCache;
use crate::device::{Cpu, Device, Gpu, Parts, cpu_kernel, params};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check::{self, by_dtype};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Stores the k and v heads of new tokens. qkv is `[T, (q + 2 kv) * dim]`; slot_mapping is u32 `[T]`, where a token's
/// slot is block * BLOCK + position in the block. Returns an error for other shapes.
///
/// - Several tokens with the same slot: the CPU stores the last one, a GPU any one of them.
/// - A slot past the cache: an error on the CPU; a GPU does not store the token.
pub fn store(dev: &mut Device, qkv: Tensor, slot_mapping: Tensor, cache: &KvCache) -> Result<()> {
    check::tensor("paged_attention::store", "slot_mapping", slot_mapping, DType::U32, &[qkv.rows()])?;
    store_into(dev, qkv, None, slot_mapping, cache)
}

/// Stores the k and v heads of row `rows[i]` of qkv in slot `slot_mapping[i]`, for all i. rows and slot_mapping are u32
/// of the same length. A row may go to several slots. Nothing is stored for a slot of `u32::MAX`, with which lists are
/// padded. Otherwise as [`store`], and a row past qkv is an error on the CPU and not stored on a GPU.
pub fn store_rows(dev: &mut Device, qkv: Tensor, rows: Tensor, slot_mapping: Tensor, cache: &KvCache) -> Result<()> {
    const OP: &str = "paged_attention::store_rows";
    check::tensor(OP, "rows", rows, DType::U32, &[rows.len()])?;
    check::tensor(OP, "slot_mapping", slot_mapping, DType::U32, &[rows.len()])?;
    store_into(dev, qkv, Some(rows), slot_mapping, cache)
}

fn store_into(dev: &mut Device, qkv: Tensor, rows: Option<Tensor>, slots: Tensor, cache: &KvCache) -> Result<()> {
    const OP: &str = "paged_attention::store";
    check::compute(OP, "qkv", qkv)?;
    check::that(OP, cache.v.shape.len() == 4, "cache.v of four dimensions", format!("{:?}", cache.v.shape))?;
    let heads = cache.heads(qkv.cols());
    check::tensor(OP, "qkv", qkv, qkv.dtype, &[qkv.rows(), heads.qkv_len()])?;
    cache.check(OP, dev, qkv.dtype, heads)?;
    dev.op(OP).run(
        |cpu| by_dtype!(qkv.dtype, store_blocks(cpu, qkv, rows, slots, cache)),
        |gpu| launch_store(gpu, qkv, rows, slots, cache),
    )
}

fn launch_store(mut gpu: Gpu<'_>, qkv: Tensor, rows: Option<Tensor>, slots: Tensor, cache: &KvCache) -> Result<()> {
    let heads = cache.heads(qkv.cols());
    check::gpu_compute(gpu.op, qkv.dtype)?;
    // Number of elements per thread: 8 for 16-byte accesses, if heads start at multiples of 16 bytes.
    let (kernel, each) = if heads.dim.is_multiple_of(8) { ("kv_store_vectors", 8) } else { ("kv_store_elements", 1) };
    let elements = slots.rows() * 2 * heads.kv * heads.dim;
    check::count(gpu.op, "elements", elements)?;
    let args = params!(kv_cache::Args {
        qkv,
        from: rows,
        slots,
        k: cache.k,
        v: cache.v,
        rows: slots.rows() as i32,
        width: check::count(gpu.op, "columns", qkv.cols())?,
        skip: (heads.q * heads.dim) as i32,
        heads: heads.kv as i32,
        dim: heads.dim as i32,
        blocks: check::count(gpu.op, "blocks", cache.blocks())?,
        sources: check::count(gpu.op, "rows", qkv.rows())?,
    });
    gpu.launch("kv_cache", kernel, check::by_elements(gpu.op, elements, each)?, args)
}

fn store_blocks<T: Elem>(
    cpu: Cpu<'_>,
    qkv: Tensor,
    rows: Option<Tensor>,
    slots: Tensor,
    cache: &KvCache,
) -> Result<()> {
    let heads = cache.heads(qkv.cols());
    let ([k, v], [data, slots, from]) = cpu.memory.tensors([cache.k, cache.v], [qkv, slots, rows.unwrap_or(slots)]);
    let (data, slots, from) = (data.of::<T>(), slots.of::<u32>(), from.of::<u32>());
    let pairs = slots
        .iter()
        .enumerate()
        .map(|(i, &slot)| Stored { row: if rows.is_some() { from[i] } else { i as u32 }, slot });
    let mut stored: Vec<Stored> = pairs.filter(|s| rows.is_none() || s.slot != u32::MAX).collect();
    let bounds = (qkv.rows(), cache.blocks() * BLOCK);
    if let Some(s) = stored.iter().find(|s| s.row as usize >= bounds.0 || s.slot as usize >= bounds.1) {
        let (want, got) = (format!("rows below {} and slots below {}", bounds.0, bounds.1), format!("{s:?}"));
        return check::fail("paged_attention::store", want, got);
    }
    stored.sort_by_key(|s| s.slot);
    let by_block: Vec<&[Stored]> = stored.chunk_by(|a, b| a.block() == b.block()).collect();
    let len = heads.kv * heads.dim * BLOCK;
    let (k, v) = (Parts::new(k.of::<T>(), len), Parts::new(v.of::<T>(), len));
    cpu.pool.run(by_block.len(), |i| {
        let b = by_block[i][0].block();
        store_block::<T>(cpu.isa, data, by_block[i], heads, k.take(b), v.take(b));
    });
    Ok(())
}

/// A row of qkv and the slot in which its keys and values are stored.
#[derive(Clone, Copy, Debug)]
struct Stored {
    row: u32,
    slot: u32,
}

impl Stored {
    fn block(self) -> usize {
        self.slot as usize / BLOCK
    }
}

cpu_kernel! {
    /// Stores rows in the slots of one block.
    fn store_block<T: Elem>(qkv: &[T], stored: &[Stored], heads: Heads, k: &mut [T], v: &mut [T]) {
        let (dim, width) = (heads.dim, heads.qkv_len());
        for s in stored {
            let at = s.slot as usize % BLOCK;
            let row = &qkv[s.row as usize * width + heads.q * dim..][..2 * heads.kv * dim];
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
