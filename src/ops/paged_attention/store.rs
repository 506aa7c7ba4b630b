//! Stores the keys and values of new tokens in the cache.

use super::cache::KvCache;
use crate::device::{Cpu, Device, Gpu, On, Parts, cpu_kernel, params};
use crate::error::{Error, Result};
use crate::ops::attend::{BLOCK, Heads};
use crate::ops::check::{self, by_dtype};
use crate::tensor::{DType, Elem, Tensor};

/// Stores the k and v heads of new tokens. qkv is `[T, (q + 2 kv) * dim]`; slot_mapping is u32 `[T]`, where a token's
/// slot is block * BLOCK + position in the block. Returns an error for other shapes.
///
/// - Several tokens with the same slot: the CPU stores the last one, a GPU any one of them.
/// - A slot past the cache: an error on the CPU; a GPU does not store the token.
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

fn launch_store(
    op: &'static str,
    mut gpu: Gpu<'_>,
    qkv: Tensor,
    slots: Tensor,
    cache: &KvCache,
    heads: Heads,
) -> Result<()> {
    const THREADS: usize = 256;
    check::gpu_compute(op, qkv.dtype)?;
    // Number of elements per thread: 8 for 16-byte accesses, if heads start at multiples of 16 bytes.
    let (kernel, each) = if heads.dim.is_multiple_of(8) { ("kv_store_vectors", 8) } else { ("kv_store_elements", 1) };
    let elements = qkv.rows() * 2 * heads.kv * heads.dim;
    check::count(op, "elements", elements)?;
    let args = params!(kv_cache::Args {
        qkv,
        slots,
        k: cache.k,
        v: cache.v,
        rows: qkv.rows() as i32,
        width: check::count(op, "columns", qkv.cols())?,
        skip: (heads.q * heads.dim) as i32,
        heads: heads.kv as i32,
        dim: heads.dim as i32,
        blocks: check::count(op, "blocks", cache.blocks())?,
    });
    gpu.launch("kv_cache", kernel, check::launch(op, (elements / each).div_ceil(THREADS), THREADS, 0)?, args)
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
    /// Stores the tokens of one block.
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
