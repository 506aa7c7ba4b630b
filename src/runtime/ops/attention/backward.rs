//! Backward of attention. With scores s, and c the softmax scale times log2(e), it computes
//!
//! - P = exp2(s c - lse log2(e)), recomputed instead of stored
//! - D = rowsum(dO * O) and dS = P * (dO V^T - D)
//! - dV = P^T dO, dK = scale dS^T Q and dQ = scale dS K
//!
//! Each element is summed in one fixed order: dQ over ascending keys, dK and dV over ascending (query row, head of the
//! group). If a sequence has one block of keys, one pass computes all three gradients. In longer sequences, dQ is
//! computed by query tiles, and dK and dV by key blocks, so that no two work items add to the same element.

use std::ops::Range;

use super::blocks::Blocks;
use super::call::{Bwd, Pack, check_rows};
use super::launch::check_heads;
use super::launch_bwd;
use super::pair::{KeyTile, Pair, Scratch, Wanted, pack_tiles, pair_grads, tile_rows};
use crate::device::{Cpu, Device, Isa, Parts, Pool, Region, cpu_kernel};
use crate::ops::attend::{BLOCK, Context, Heads, Setting, run_with_scratch};
use crate::ops::check::{self, by_dtype};
use crate::ops::lanes;
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Computes the gradient of [`super::fwd`] and writes it to dqkv `[T, (q + 2 kv) * dim]` (before `rope::bwd`). Returns
/// an error for other shapes and, on a GPU, for a head_dim above 128. On a GPU the values in cu_seqlens are not
/// checked.
pub fn bwd(dev: &mut Device, pack: &Pack, call: Bwd) -> Result<()> {
    const OP: &str = "attention::bwd";
    let (&Pack { cu_seqlens, heads, scale, .. }, Bwd { qkv, out, dout, lse, dqkv, prompt_of }) = (pack, call);
    check_rows(OP, qkv, cu_seqlens, heads)?;
    let t = qkv.rows();
    check::tensor(OP, "out", out, qkv.dtype, &[t, heads.out_len()])?;
    check::tensor(OP, "dout", dout, qkv.dtype, &[t, heads.out_len()])?;
    check::tensor(OP, "lse", lse, DType::F32, &[t, heads.q])?;
    check::tensor(OP, "dqkv", dqkv, qkv.dtype, &[t, heads.qkv_len()])?;
    if let Some(prompt_of) = prompt_of {
        check::tensor(OP, "prompt_of", prompt_of, DType::U32, &[cu_seqlens.rows() - 1])?;
        check::that(OP, pack.causal, "a causal mask with prompt_of", "none")?;
    }
    pack.note(dev, OP, 5.0, 2.0, [qkv, out]);
    let setting = Setting::new(qkv.dtype, heads, scale);
    dev.scope(Region::Workspace, |dev| {
        let is_gpu = dev.kind().is_gpu();
        let mut alloc = |dims: &[usize]| dev.alloc(Region::Workspace, DType::F32, dims);
        if is_gpu {
            check_heads(OP, qkv.dtype, heads)?;
            let delta = alloc(&[t, heads.q])?;
            let partial = prompt_of.map(|_| alloc(&[t, 2 * heads.kv, heads.dim])).transpose()?;
            return dev.op(OP).run(|_| (), |gpu| launch_bwd::bwd(gpu, pack, call, delta, partial, setting));
        }
        let packed = alloc(&[Blocks::most(t, cu_seqlens).max(1), heads.kv * KeyTile::len(heads)])?;
        let delta = alloc(&[t, heads.q])?;
        let scratch = dev.alloc(Region::Workspace, DType::F32, &[dev.threads(), Scratch::len(heads)])?;
        dev.on().run(|cpu| by_dtype!(qkv.dtype, backward(cpu, pack, setting, call, packed, delta, scratch)), |_| Ok(()))
    })
}

/// One independent work item.
#[derive(Clone, Copy)]
enum Item {
    /// Gradients dQ, dK and dV of a sequence that has one block of keys and shares no prompt.
    Whole { sequence: usize },
    /// dQ of the query tile that starts at row `from` of the sequence, for one key head.
    Queries { sequence: usize, head: usize, from: usize },
    /// dK and dV of block `block` of the sequence, for one key head.
    Keys { sequence: usize, head: usize, block: usize },
}

/// Work items of a pack, and the partition of its gradient rows into parts that single items write. A short sequence is
/// one part. In a long sequence, each (q heads of a group | k head | v head) of each row is a part of its own.
struct Plan {
    items: Vec<Item>,
    starts: Vec<usize>,
    /// Index of each sequence's first part.
    parts: Vec<usize>,
}

impl Plan {
    fn new(blocks: &Blocks<'_>, heads: Heads) -> Plan {
        let (mut items, mut starts, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for sequence in 0..blocks.first.len() {
            let rows = blocks.rows(sequence);
            parts.push(starts.len());
            if rows.is_empty() {
                continue;
            }
            let shares = blocks.prompt(sequence).is_some() || !blocks.responses(sequence).is_empty();
            if rows.len() <= BLOCK && !shares {
                items.push(Item::Whole { sequence });
                starts.push(rows.start * heads.qkv_len());
                continue;
            }
            for head in 0..heads.kv {
                // The last tiles see the most keys, so they come first: the longest work starts first.
                let tiles = (0..rows.len()).step_by(tile_rows(heads)).rev();
                items.extend((0..rows.len().div_ceil(BLOCK)).map(|block| Item::Keys { sequence, head, block }));
                items.extend(tiles.map(|from| Item::Queries { sequence, head, from }));
            }
            for row in rows {
                starts.extend((0..3 * heads.kv).map(|slot| row * heads.qkv_len() + columns(heads, slot).start));
            }
        }
        starts.push(blocks.cu_seqlens.last().map_or(0, |&t| t as usize * heads.qkv_len()));
        Plan { items, starts, parts }
    }
}

/// Returns the columns of a packed row that belong to `slot` (below 3 kv). The slots are the q heads of each group,
/// then each k head, then each v head.
fn columns(heads: Heads, slot: usize) -> Range<usize> {
    let (start, len) = match slot.checked_sub(heads.kv) {
        None => (slot * heads.group() * heads.dim, heads.group() * heads.dim),
        Some(head) => (heads.out_len() + head * heads.dim, heads.dim),
    };
    start..start + len
}

/// Runs the backward on the CPU. `packed`, `delta` and `scratch` are memory for packed keys, D and the work items.
fn backward<T: Elem>(
    cpu: Cpu<'_>,
    pack: &Pack,
    setting: Setting,
    call: Bwd,
    packed: Tensor,
    delta: Tensor,
    scratch: Tensor,
) -> Result<()> {
    let (heads, isa) = (pack.heads, cpu.isa);
    // Without shared prompts the list is not read.
    let prompt_of = call.prompt_of.unwrap_or(pack.cu_seqlens);
    let (t, ins) = (call.qkv.rows(), [call.qkv, call.out, call.dout, call.lse, pack.cu_seqlens, prompt_of]);
    let outs = [call.dqkv, packed, delta, scratch];
    let ([dqkv, packed, delta, scratch], [qkv, out, dout, lse, cu, prompt_of]) = cpu.memory.tensors(outs, ins);
    let (qkv, out, dout, lse) = (qkv.of::<T>(), out.of::<T>(), dout.of::<T>(), lse.of::<f32>());
    let prompt_of = call.prompt_of.is_some().then(|| prompt_of.of::<u32>());
    let blocks =
        Blocks::new("attention::bwd", cu.of::<u32>(), pack.max_seqlen, t)?.sharing("attention::bwd", prompt_of)?;
    let (packed, delta) = (packed.of::<f32>(), delta.of::<f32>());
    prepare::<T>(cpu.pool, isa, &blocks, heads, [qkv, out, dout], packed, delta);
    let Plan { items, starts, parts } = Plan::new(&blocks, heads);
    let prepared = Prepared { isa, pack, setting, qkv, dout, lse, delta, blocks: &blocks, packed };
    let grads = Parts::at(dqkv.of::<T>(), starts);
    run_with_scratch(cpu.pool, items.len(), scratch.of::<f32>(), Scratch::len(heads), |i, scratch| {
        let mut s = Scratch::new(scratch, heads);
        let apart = |sequence: usize| {
            let (first, grads) = (parts[sequence], &grads);
            move |row: usize, slot: usize, from: &[f32], scale: f32| {
                narrow_heads::<T>(isa, from, heads, scale, grads.take(first + row * 3 * heads.kv + slot));
            }
        };
        match items[i] {
            Item::Whole { sequence } => {
                let to = grads.take(parts[sequence]);
                for head in 0..heads.kv {
                    prepared.whole(sequence, head, &mut s, |row, slot, from, scale| {
                        let row = &mut to[row * heads.qkv_len()..][..heads.qkv_len()];
                        narrow_heads::<T>(isa, from, heads, scale, &mut row[columns(heads, slot)]);
                    });
                }
            }
            Item::Queries { sequence, head, from } => prepared.dq(sequence, head, from, &mut s, apart(sequence)),
            Item::Keys { sequence, head, block } => prepared.dkv(sequence, head, block, &mut s, apart(sequence)),
        }
    });
    Ok(())
}

/// Receives gradients: `write(row, slot, heads, scale)`, where `row` counts from the start of the sequence. It is a type
/// parameter, because calls of a `dyn FnMut` make short sequences slower.
trait Write: FnMut(usize, usize, &[f32], f32) {}

impl<F: FnMut(usize, usize, &[f32], f32)> Write for F {}

/// The packed rows and the data prepared from them.
struct Prepared<'a, T> {
    isa: Isa,
    pack: &'a Pack,
    setting: Setting,
    qkv: &'a [T],
    dout: &'a [T],
    lse: &'a [f32],
    delta: &'a [f32],
    blocks: &'a Blocks<'a>,
    packed: &'a [f32],
}

/// Some rows of a sequence, counted from its start.
#[derive(Clone)]
struct SequenceRows {
    sequence: usize,
    rows: Range<usize>,
}

impl<T: Elem> Prepared<'_, T> {
    /// Computes all gradients of a sequence with one block of keys, for one key head.
    fn whole(&self, sequence: usize, head: usize, s: &mut Scratch<'_>, mut write: impl Write) {
        let keys = SequenceRows { sequence, rows: 0..self.blocks.rows(sequence).len() };
        s.clear_keys(keys.rows.len() * self.pack.heads.padded());
        for tile in self.tiles(sequence, 0) {
            self.load(&tile, head, s);
            s.dq.fill(0.0);
            self.multiply(&tile, &keys, head, Wanted { dq: true, dkv: true }, s);
            self.write_dq(tile.rows, head, s, &mut write);
        }
        self.write_dkv(keys.rows, head, s, &mut write);
    }

    /// Computes dQ of the query tile that starts at row `from`: first over the keys of the prompt, then over its own.
    fn dq(&self, sequence: usize, head: usize, from: usize, s: &mut Scratch<'_>, mut write: impl Write) {
        let len = self.blocks.rows(sequence).len();
        let tile = SequenceRows { sequence, rows: from..len.min(from + tile_rows(self.pack.heads)) };
        let own = SequenceRows { sequence, rows: 0..if self.pack.causal { tile.rows.end } else { len } };
        let prompt = self.blocks.prompt(sequence);
        let prompt = prompt.map(|sequence| SequenceRows { sequence, rows: 0..self.blocks.rows(sequence).len() });
        self.load(&tile, head, s);
        s.dq.fill(0.0);
        for keys in prompt.into_iter().chain([own]) {
            self.multiply(&tile, &keys, head, Wanted { dq: true, dkv: false }, s);
        }
        self.write_dq(tile.rows, head, s, &mut write);
    }

    /// Computes dK and dV of a block: the sums over the sequences that share it as a prompt, each summed on its own and
    /// added in their order, and then over its own sequence.
    fn dkv(&self, sequence: usize, head: usize, block: usize, s: &mut Scratch<'_>, mut write: impl Write) {
        let (len, from) = (self.blocks.rows(sequence).len(), block * BLOCK);
        let keys = SequenceRows { sequence, rows: from..len.min(from + BLOCK) };
        let add = |s: &mut Scratch<'_>, queries: usize, from: usize| {
            s.clear_keys(keys.rows.len() * self.pack.heads.padded());
            for tile in self.tiles(queries, from) {
                self.load(&tile, head, s);
                self.multiply(&tile, &keys, head, Wanted { dq: false, dkv: true }, s);
            }
        };
        let responses = self.blocks.responses(sequence);
        for response in responses.clone() {
            add(s, response, 0);
            s.add_keys(response == responses.start);
        }
        add(s, sequence, if self.pack.causal { from } else { 0 });
        if !responses.is_empty() {
            s.add_keys(false);
            s.take_keys();
        }
        self.write_dkv(keys.rows, head, s, &mut write);
    }

    /// Returns the query tiles of a sequence, from the one that contains row `from` on.
    fn tiles(&self, sequence: usize, from: usize) -> impl Iterator<Item = SequenceRows> + use<T> {
        let (len, size) = (self.blocks.rows(sequence).len(), tile_rows(self.pack.heads));
        let starts = (from / size * size..len).step_by(size);
        starts.map(move |from| SequenceRows { sequence, rows: from..len.min(from + size) })
    }

    /// Multiplies a loaded query tile with keys of its sequence or of its prompt, and adds to the wanted gradients. The
    /// keys start at the border of a block.
    fn multiply(&self, queries: &SequenceRows, keys: &SequenceRows, head: usize, wanted: Wanted, s: &mut Scratch<'_>) {
        let (&Pack { heads, causal, .. }, setting) = (self.pack, self.setting);
        let len = self.blocks.rows(keys.sequence).len();
        let masked = causal && queries.sequence == keys.sequence;
        let (first, step) = if masked { (queries.rows.start + 1, 1) } else { (len, 0) };
        let (context, lines) = (Context { first, step, group: heads.group() }, queries.rows.len() * heads.group());
        for first in keys.rows.clone().step_by(BLOCK) {
            let block = self.blocks.first[keys.sequence] as usize + first / BLOCK;
            let (n, keys) = ((len - first).min(BLOCK), KeyTile::new(self.packed, heads, block, head));
            let pair = Pair { lines, context, first, n, setting, wanted };
            pair_grads(self.isa, pair, keys, s);
        }
    }

    fn write_dq(&self, tile: Range<usize>, head: usize, s: &Scratch<'_>, write: &mut impl Write) {
        let heads = self.pack.heads;
        for (row, dq) in tile.zip(s.dq.chunks_exact(heads.group() * heads.padded())) {
            write(row, head, dq, self.pack.scale);
        }
    }

    fn write_dkv(&self, keys: Range<usize>, head: usize, s: &Scratch<'_>, write: &mut impl Write) {
        let (heads, padded) = (self.pack.heads, self.pack.heads.padded());
        for (row, (dk, dv)) in keys.zip(s.dk.chunks_exact(padded).zip(s.dv.chunks_exact(padded))) {
            write(row, heads.kv + head, dk, self.pack.scale);
            write(row, 2 * heads.kv + head, dv, 1.0);
        }
    }

    /// Loads a query tile, with the q heads of group `head`.
    fn load(&self, tile: &SequenceRows, head: usize, s: &mut Scratch<'_>) {
        let (isa, heads, group) = (self.isa, self.pack.heads, self.pack.heads.group());
        let (from, n) = (self.blocks.rows(tile.sequence).start + tile.rows.start, tile.rows.len());
        let at = head * group;
        let qkv = &self.qkv[from * heads.qkv_len() + at * heads.dim..];
        let dout = &self.dout[from * heads.out_len() + at * heads.dim..];
        widen_heads::<T>(isa, qkv, heads.qkv_len(), n, heads, s.q);
        widen_heads::<T>(isa, dout, heads.out_len(), n, heads, s.dout);
        for i in 0..n {
            let from = (from + i) * heads.q + at;
            s.lse[i * group..][..group].copy_from_slice(&self.lse[from..][..group]);
            s.delta[i * group..][..group].copy_from_slice(&self.delta[from..][..group]);
        }
        for lse in &mut s.lse[..n * group] {
            *lse *= std::f32::consts::LOG2_E;
        }
    }
}

/// Packs the blocks of keys into `packed` and computes D into `delta`.
fn prepare<T: Elem>(
    pool: &Pool,
    isa: Isa,
    blocks: &Blocks<'_>,
    heads: Heads,
    [qkv, out, dout]: [&[T]; 3],
    packed: &mut [f32],
    delta: &mut [f32],
) {
    let num_blocks = blocks.sequence.len();
    let packed = Parts::new(packed, heads.kv * KeyTile::len(heads));
    let delta = Parts::new(delta, BLOCK * heads.q);
    pool.run(num_blocks + delta.count(), |i| match i.checked_sub(num_blocks) {
        None => {
            let rows = blocks.keys(i);
            pack_tiles::<T>(isa, &qkv[rows.start * heads.qkv_len()..], rows.len(), heads, packed.take(i));
        }
        Some(i) => {
            let from = i * BLOCK * heads.out_len();
            row_sums::<T>(isa, &out[from..], &dout[from..], heads.dim, delta.take(i));
        }
    });
}

cpu_kernel! {
    /// Sets `sums[i]` to the dot product of the i-th heads of a and b.
    fn row_sums<T: Elem>(a: &[T], b: &[T], dim: usize, sums: &mut [f32]) {
        for ((s, a), b) in sums.iter_mut().zip(a.chunks_exact(dim)).zip(b.chunks_exact(dim)) {
            *s = lanes::dot(a, b);
        }
    }
}

cpu_kernel! {
    /// Copies the first group of heads of `n` rows, in f32 and padded.
    fn widen_heads<T: Elem>(from: &[T], stride: usize, n: usize, heads: Heads, to: &mut [f32]) {
        let (dim, padded, group) = (heads.dim, heads.padded(), heads.group());
        if dim == padded {
            for (to, from) in to.chunks_exact_mut(group * dim).take(n).zip(from.chunks(stride)) {
                lanes::widen(&from[..group * dim], to);
            }
            return;
        }
        for i in 0..n {
            for h in 0..group {
                let from = &from[i * stride + h * dim..][..dim];
                let (to, rest) = to[(i * group + h) * padded..][..padded].split_at_mut(dim);
                lanes::widen(from, to);
                rest.fill(0.0);
            }
        }
    }
}

cpu_kernel! {
    /// Multiplies padded heads by `scale` and writes them packed. -0 becomes +0, so that the result does not depend on
    /// which lines share a tile.
    fn narrow_heads<T: Elem>(from: &[f32], heads: Heads, scale: f32, to: &mut [T]) {
        if heads.dim == heads.padded() {
            return lanes::narrow_scaled(from, scale, to);
        }
        for (to, from) in to.chunks_exact_mut(heads.dim).zip(from.chunks_exact(heads.padded())) {
            lanes::narrow_scaled(from, scale, to);
        }
    }
}
