//! Forward of attention over packed sequences: the entry point, and the CPU implementation with the rows of `attend`.

use super::blocks::Blocks;
use super::call::{Fwd, Pack, check_rows};
use super::{launch, sm90a};
use crate::device::{Cpu, Device, Parts, Region, cpu_kernel};
use crate::ops::attend::{BLOCK, Context, Heads, KeySource, Keys, RowStates, Setting, pack_block, run_with_scratch};
use crate::ops::check::{self, by_dtype};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Query rows of one work item.
const ROWS: usize = 32;

/// Computes out = softmax(scale q k^T) v within each sequence. qkv `[T, (q + 2 kv) * dim]` and out `[T, q * dim]` have
/// the compute type; lse `[T, q]` f32 receives the rows' log-sum-exp for backward. Returns an error for other shapes
/// and, on a GPU, for a head_dim above 128. On a GPU the values in cu_seqlens are not checked.
pub fn fwd(dev: &mut Device, pack: &Pack, qkv: Tensor, out: Tensor, lse: Tensor) -> Result<()> {
    const OP: &str = "attention::fwd";
    let &Pack { cu_seqlens, heads, scale, .. } = pack;
    check_rows(OP, qkv, cu_seqlens, heads)?;
    let t = qkv.rows();
    check::tensor(OP, "out", out, qkv.dtype, &[t, heads.out_len()])?;
    check::tensor(OP, "lse", lse, DType::F32, &[t, heads.q])?;
    pack.note(dev, "attention", 2.0, 1.0, [qkv, out]);
    let setting = Setting::new(qkv.dtype, heads, scale);
    let call = Fwd { qkv, out, lse };
    dev.scope(Region::Workspace, |dev| {
        if dev.kind().is_gpu() {
            launch::check_heads(OP, qkv.dtype, heads)?;
            let counter = sm90a::counter(dev)?;
            return dev.op(OP).run(|_| (), |gpu| launch::fwd(gpu, pack, call, counter, setting));
        }
        let blocks = Blocks::most(t, cu_seqlens);
        let packed = dev.alloc(Region::Workspace, DType::F32, &[blocks.max(1), block_len(heads)])?;
        let scratch_len = RowStates::len(ROWS * heads.group(), heads.dim);
        let scratch = dev.alloc(Region::Workspace, DType::F32, &[dev.threads(), scratch_len])?;
        dev.on().run(|cpu| by_dtype!(qkv.dtype, forward(cpu, pack, setting, call, packed, scratch)), |_| Ok(()))
    })
}

/// Returns the elements of one packed block of all key heads: for each head k `[dim][BLOCK]`, then v `[BLOCK][padded]`.
fn block_len(heads: Heads) -> usize {
    heads.kv * BLOCK * (heads.dim + heads.padded())
}

/// Runs the forward on the CPU. `packed` and `scratch` are memory for packed keys and the rows' states.
fn forward<T: Elem>(
    cpu: Cpu<'_>,
    pack: &Pack,
    setting: Setting,
    call: Fwd,
    packed: Tensor,
    scratch: Tensor,
) -> Result<()> {
    let (t, &Pack { cu_seqlens, max_seqlen, heads, causal, .. }) = (call.qkv.rows(), pack);
    let outs = [call.out, call.lse, packed, scratch];
    let ([out, lse, packed, scratch], [qkv, cu]) = cpu.memory.tensors(outs, [call.qkv, cu_seqlens]);
    let qkv = qkv.of::<T>();
    let blocks = Blocks::new("attention::fwd", cu.of::<u32>(), max_seqlen, t)?;
    let packed = packed.of::<f32>();
    let parts = Parts::new(packed, block_len(heads));
    cpu.pool.run(blocks.sequence.len(), |b| {
        let rows = blocks.keys(b);
        pack_heads::<T>(cpu.isa, &qkv[rows.start * heads.qkv_len()..], rows.len(), heads, parts.take(b));
    });
    let (out, lse) = (Parts::new(out.of::<T>(), ROWS * heads.out_len()), Parts::new(lse.of::<f32>(), ROWS * heads.q));
    let len = RowStates::len(ROWS * heads.group(), heads.dim);
    run_with_scratch(cpu.pool, out.count(), scratch.of::<f32>(), len, |i, scratch| {
        let (from, to) = (i * ROWS, ((i + 1) * ROWS).min(t));
        let (out, lse) = (out.take(i), lse.take(i));
        for (s, rows) in blocks.meeting(from, to) {
            let at = rows.start - from;
            let start = blocks.rows(s).start;
            let context = match causal {
                true => Context { first: rows.start - start + 1, step: 1, group: heads.group() },
                false => Context { first: blocks.rows(s).len(), step: 0, group: heads.group() },
            };
            let keys = &packed[blocks.first[s] as usize * block_len(heads)..];
            for head in 0..heads.kv {
                let queries = &qkv[rows.start * heads.qkv_len() + head * heads.group() * heads.dim..];
                let stride = heads.qkv_len();
                let mut states = RowStates::new(cpu.isa, scratch, queries, stride, rows.len(), context, setting);
                states.attend(cpu.isa, &mut PackedKeys { data: keys, heads, head });
                for i in 0..rows.len() {
                    let from = (at + i) * heads.q + head * heads.group();
                    let group = from..from + heads.group();
                    states.write(cpu.isa, i, &mut out[group.start * heads.dim..group.end * heads.dim]);
                    lse[group].copy_from_slice(&states.lse()[i * heads.group()..][..heads.group()]);
                }
            }
        }
    });
    Ok(())
}

/// One key head of a sequence's blocks, in the layout of `pack_heads`.
struct PackedKeys<'a> {
    data: &'a [f32],
    heads: Heads,
    head: usize,
}

impl KeySource for PackedKeys<'_> {
    fn block(&mut self, b: usize) -> Keys<'_> {
        let (dim, padded) = (self.heads.dim, self.heads.padded());
        let head = &self.data[b * block_len(self.heads) + self.head * BLOCK * (dim + padded)..];
        let (k, v) = head[..BLOCK * (dim + padded)].split_at(BLOCK * dim);
        Keys { k, v, v_stride: padded }
    }
}

cpu_kernel! {
    /// Packs all key heads of `n` rows into one block.
    fn pack_heads<T: Elem>(qkv: &[T], n: usize, heads: Heads, block: &mut [f32]) {
        let (dim, stride) = (heads.dim, heads.qkv_len());
        for (head, block) in block.chunks_exact_mut(BLOCK * (dim + heads.padded())).enumerate() {
            let (k, v) = block.split_at_mut(BLOCK * dim);
            let keys = &qkv[(heads.q + head) * dim..];
            let values = &qkv[(heads.q + heads.kv + head) * dim..];
            pack_block(keys, values, stride, n, dim, k, v);
        }
    }
}
