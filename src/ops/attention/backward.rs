//! Backward of attention: P = exp2(s c - lse log2 e) recomputed, D = rowsum(dO * O), dS = P * (dO V^T - D);
//! dV = P^T dO, dK = scale dS^T Q, dQ = scale dS K. Each element is one chain: dQ over ascending keys, dK and dV over
//! ascending (query row, head of the group). Sequences of one block of keys get all three in one pass; of longer
//! ones dQ by query tiles and dK, dV by key blocks, so that no two work items add to the same element.

use half::bf16;

use super::{Blocks, check_rows};
use crate::device::{Cpu, Device, Isa, Parts, Pool, Region, cpu_kernel};
use crate::error::Result;
use crate::ops::attend::{BLOCK, Context, Heads, Setting, run_with_scratch};
use crate::ops::check::{self, by_dtype};
use crate::ops::lanes::{self, LANES};
use crate::ops::math::exp2;
use crate::ops::tile::{self, Left, product};
use crate::tensor::{DType, Elem, Tensor};

/// (Query row, head) lines of a query tile, about: two of its `[LINES][BLOCK]` score tiles fill the first cache.
const LINES: usize = 48;

/// Gradient of [`super::fwd`]: dqkv `[T, (q + 2 kv) * dim]` is written (before `rope::bwd`). qkv, out, lse and
/// cu_seqlens as forward had and left them, dout as out. Errors on other shapes.
#[allow(clippy::too_many_arguments)]
pub fn bwd(
    dev: &mut Device,
    qkv: Tensor,
    out: Tensor,
    dout: Tensor,
    lse: Tensor,
    cu_seqlens: Tensor,
    heads: Heads,
    causal: bool,
    scale: f32,
    dqkv: Tensor,
) -> Result<()> {
    const OP: &str = "attention::bwd";
    check_rows(OP, qkv, cu_seqlens, heads)?;
    let t = qkv.rows();
    check::tensor(OP, "out", out, qkv.dtype, &[t, heads.out_len()])?;
    check::tensor(OP, "dout", dout, qkv.dtype, &[t, heads.out_len()])?;
    check::tensor(OP, "lse", lse, DType::F32, &[t, heads.q])?;
    check::tensor(OP, "dqkv", dqkv, qkv.dtype, &[t, heads.qkv_len()])?;
    let mark = dev.mark(Region::Workspace);
    let blocks = Blocks::most(t, cu_seqlens);
    let packed = dev.alloc(Region::Workspace, DType::F32, &[blocks.max(1), heads.kv * KeyTile::len(heads)])?;
    let delta = dev.alloc(Region::Workspace, DType::F32, &[t, heads.q])?;
    let scratch = dev.alloc(Region::Workspace, DType::F32, &[dev.threads(), scratch_len(heads)])?;
    let done = match dev.on_cpu() {
        Some(cpu) => {
            let call = Call { heads, causal, scale, setting: Setting::new(qkv.dtype, heads, scale) };
            by_dtype!(qkv.dtype, backward(cpu, call, [qkv, out, dout, lse, cu_seqlens], [dqkv, packed, delta, scratch]))
        }
        None => Ok(()),
    };
    dev.release(mark);
    done
}

#[derive(Clone, Copy)]
struct Call {
    heads: Heads,
    causal: bool,
    scale: f32,
    setting: Setting,
}

/// One independent piece of work.
enum Item {
    /// All gradients of a sequence of one block of keys, for one key head.
    Whole { sequence: usize, head: usize },
    /// dQ of the query tile that starts at row `from` of the sequence.
    Queries { sequence: usize, head: usize, from: usize },
    /// dK and dV of block `block` of the sequence.
    Keys { sequence: usize, head: usize, block: usize },
}

fn items(blocks: &Blocks<'_>, heads: Heads) -> Vec<Item> {
    let mut items = Vec::new();
    for sequence in 0..blocks.first.len() {
        let len = blocks.rows(sequence).len();
        for head in 0..heads.kv {
            match len {
                0 => {}
                1..=BLOCK => items.push(Item::Whole { sequence, head }),
                _ => {
                    let tiles = (0..len).step_by(tile_rows(heads)).rev();
                    items.extend(tiles.map(|from| Item::Queries { sequence, head, from }));
                    items.extend((0..len.div_ceil(BLOCK)).map(|block| Item::Keys { sequence, head, block }));
                }
            }
        }
    }
    items
}

/// Query rows of a query tile.
fn tile_rows(heads: Heads) -> usize {
    (LINES / heads.group()).max(1)
}

fn scratch_len(heads: Heads) -> usize {
    let lines = tile_rows(heads) * heads.group();
    lines * (3 * heads.padded() + 2 * BLOCK + 2) + 2 * BLOCK * heads.padded()
}

/// What a work item computes in: queries and dO of a tile with their rows padded, log-sum-exp and D, scores and
/// their gradients, and the gradients of the tile and of a block of keys.
struct Scratch<'a> {
    q: &'a mut [f32],
    dout: &'a mut [f32],
    lse: &'a mut [f32],
    delta: &'a mut [f32],
    p: &'a mut [f32],
    ds: &'a mut [f32],
    dq: &'a mut [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn new(scratch: &'a mut [f32], heads: Heads) -> Scratch<'a> {
        let (lines, padded) = (tile_rows(heads) * heads.group(), heads.padded());
        let mut rest = scratch;
        let mut cut = |n: usize| rest.split_off_mut(..n).expect("scratch as long as scratch_len");
        Scratch {
            q: cut(lines * padded),
            dout: cut(lines * padded),
            p: cut(lines * BLOCK),
            ds: cut(lines * BLOCK),
            dq: cut(lines * padded),
            dk: cut(BLOCK * padded),
            dv: cut(BLOCK * padded),
            lse: cut(lines),
            delta: cut(lines),
        }
    }
}

/// A block of one key head: k and v transposed `[dim][BLOCK]`, and k `[BLOCK][padded]`.
#[derive(Clone, Copy)]
struct KeyTile<'a> {
    kt: &'a [f32],
    vt: &'a [f32],
    k: &'a [f32],
}

impl<'a> KeyTile<'a> {
    fn len(heads: Heads) -> usize {
        BLOCK * (2 * heads.dim + heads.padded())
    }

    fn new(packed: &'a [f32], heads: Heads, block: usize, head: usize) -> KeyTile<'a> {
        let tile = &packed[(block * heads.kv + head) * Self::len(heads)..][..Self::len(heads)];
        let (kt, rest) = tile.split_at(BLOCK * heads.dim);
        let (vt, k) = rest.split_at(BLOCK * heads.dim);
        KeyTile { kt, vt, k }
    }
}

fn backward<T: Elem>(cpu: Cpu<'_>, call: Call, ins: [Tensor; 5], outs: [Tensor; 4]) -> Result<()> {
    let heads = call.heads;
    let (t, width) = (ins[0].rows(), heads.qkv_len());
    let ([dqkv, packed, delta, scratch], [qkv, out, dout, lse, cu]) = cpu.memory.tensors(outs, ins);
    let (qkv, out, dout, lse) = (qkv.of::<T>(), out.of::<T>(), dout.of::<T>(), lse.of::<f32>());
    let blocks = Blocks::new("attention::bwd", cu.of::<u32>(), t)?;
    let (packed, delta) = (packed.of::<f32>(), delta.of::<f32>());
    prepare::<T>(cpu.pool, cpu.isa, &blocks, heads, qkv, out, dout, packed, delta);
    let rows = Rows { qkv, dout, lse, delta, heads };
    let (items, packed) = (items(&blocks, heads), &*packed);
    let grads = Parts::new(dqkv.of::<T>(), heads.dim);
    run_with_scratch(cpu.pool, items.len(), scratch.of::<f32>(), scratch_len(heads), |i, scratch| {
        let mut s = Scratch::new(scratch, heads);
        let (sequence, head) = match items[i] {
            Item::Whole { sequence, head }
            | Item::Queries { sequence, head, .. }
            | Item::Keys { sequence, head, .. } => (sequence, head),
        };
        let seq = blocks.rows(sequence);
        let step = tile_rows(heads);
        let (query_rows, key_rows) = match items[i] {
            Item::Whole { .. } => (0..seq.len(), 0..seq.len()),
            Item::Queries { from, .. } => {
                let to = seq.len().min(from + step);
                (from..to, 0..if call.causal { to } else { seq.len() })
            }
            Item::Keys { block, .. } => {
                let from = block * BLOCK;
                let first = if call.causal { from / step * step } else { 0 };
                (first..seq.len(), from..seq.len().min(from + BLOCK))
            }
        };
        let (want_dq, want_dkv) = (!matches!(items[i], Item::Keys { .. }), !matches!(items[i], Item::Queries { .. }));
        if want_dkv {
            s.dk.fill(0.0);
            s.dv.fill(0.0);
        }
        for from in query_rows.clone().step_by(step) {
            let tile_range = from..query_rows.end.min(from + step);
            let context = match call.causal {
                true => Context { first: from + 1, step: 1, group: heads.group() },
                false => Context { first: seq.len(), step: 0, group: heads.group() },
            };
            let lines = tile_range.len() * heads.group();
            rows.load(cpu.isa, seq.start + from, tile_range.len(), head, &mut s);
            if want_dq {
                s.dq[..lines * heads.padded()].fill(0.0);
            }
            for first in key_rows.clone().step_by(BLOCK) {
                let n = (seq.len() - first).min(BLOCK);
                let keys = KeyTile::new(packed, heads, blocks.first[sequence] as usize + first / BLOCK, head);
                let pair = Pair { lines, context, first, n, setting: call.setting, want_dq, want_dkv };
                pair_grads(cpu.isa, pair, keys, &mut s);
            }
            if want_dq {
                for line in 0..lines {
                    let (row, h) = (seq.start + from + line / heads.group(), line % heads.group());
                    let to = grads.take(row * (width / heads.dim) + head * heads.group() + h);
                    scaled::<T>(cpu.isa, &s.dq[line * heads.padded()..], call.scale, to);
                }
            }
        }
        if want_dkv {
            for (j, row) in (seq.start + key_rows.start..seq.start + key_rows.end).enumerate() {
                let k = row * (width / heads.dim) + heads.q + head;
                scaled::<T>(cpu.isa, &s.dk[j * heads.padded()..], call.scale, grads.take(k));
                scaled::<T>(cpu.isa, &s.dv[j * heads.padded()..], 1.0, grads.take(k + heads.kv));
            }
        }
    });
    Ok(())
}

/// Packs the blocks of keys and works out D.
#[allow(clippy::too_many_arguments)]
fn prepare<T: Elem>(
    pool: &Pool,
    isa: Isa,
    blocks: &Blocks<'_>,
    heads: Heads,
    qkv: &[T],
    out: &[T],
    dout: &[T],
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
    /// All key heads of `n` packed rows as [`KeyTile`]s.
    fn pack_tiles<T: Elem>(qkv: &[T], n: usize, heads: Heads, tiles: &mut [f32]) {
        let (dim, padded, stride) = (heads.dim, heads.padded(), heads.qkv_len());
        for (head, tile) in tiles.chunks_exact_mut(KeyTile::len(heads)).enumerate() {
            let (kt, rest) = tile.split_at_mut(BLOCK * dim);
            let (vt, k) = rest.split_at_mut(BLOCK * dim);
            for j in 0..n {
                let keys = &qkv[j * stride + (heads.q + head) * dim..][..dim];
                let values = &qkv[j * stride + (heads.q + heads.kv + head) * dim..][..dim];
                let row = &mut k[j * padded..][..padded];
                for d in 0..dim {
                    row[d] = keys[d].to_f32();
                    kt[d * BLOCK + j] = keys[d].to_f32();
                    vt[d * BLOCK + j] = values[d].to_f32();
                }
                row[dim..].fill(0.0);
            }
        }
    }
}

cpu_kernel! {
    /// `sums[i]` = dot of the i-th heads of a and b.
    fn row_sums<T: Elem>(a: &[T], b: &[T], dim: usize, sums: &mut [f32]) {
        for ((s, a), b) in sums.iter_mut().zip(a.chunks_exact(dim)).zip(b.chunks_exact(dim)) {
            *s = lanes::dot(a, b);
        }
    }
}

/// The packed rows a query tile is loaded from.
struct Rows<'a, T> {
    qkv: &'a [T],
    dout: &'a [T],
    lse: &'a [f32],
    delta: &'a [f32],
    heads: Heads,
}

impl<T: Elem> Rows<'_, T> {
    /// `n` query rows from row `from` of the pack, the heads of group `head`.
    fn load(&self, isa: Isa, from: usize, n: usize, head: usize, s: &mut Scratch<'_>) {
        let (heads, group) = (self.heads, self.heads.group());
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

cpu_kernel! {
    /// The first group of heads of `n` rows, widened and padded.
    fn widen_heads<T: Elem>(from: &[T], stride: usize, n: usize, heads: Heads, to: &mut [f32]) {
        let (dim, padded, group) = (heads.dim, heads.padded(), heads.group());
        for i in 0..n {
            for h in 0..group {
                let from = &from[i * stride + h * dim..][..dim];
                let to = &mut to[(i * group + h) * padded..][..padded];
                for d in 0..dim {
                    to[d] = from[d].to_f32();
                }
                to[dim..].fill(0.0);
            }
        }
    }
}

/// A query tile against a block of `n` keys, the first of which is key `first` of the sequence.
#[derive(Clone, Copy)]
struct Pair {
    lines: usize,
    context: Context,
    first: usize,
    n: usize,
    setting: Setting,
    want_dq: bool,
    want_dkv: bool,
}

cpu_kernel! {
    fn pair_grads(pair: Pair, keys: KeyTile<'_>, s: &mut Scratch<'_>) {
        let dim = pair.setting.dim;
        let padded = dim.next_multiple_of(LANES);
        let width = pair.n.next_multiple_of(LANES);
        for (from, count) in tile::row_tiles(pair.lines) {
            let visible = |r: usize| pair.context.of(from + r).saturating_sub(pair.first).min(pair.n);
            let longest = (0..count).map(visible).max().unwrap_or(0);
            let groups = longest.div_ceil(LANES);
            let (p, ds) = (&mut s.p[from * BLOCK..], &mut s.ds[from * BLOCK..]);
            let q = Left::<false> { data: &s.q[from * padded..], stride: padded };
            product::<false, true>(q, keys.kt, BLOCK, dim, p, BLOCK, count, groups);
            let dout = Left::<false> { data: &s.dout[from * padded..], stride: padded };
            product::<false, true>(dout, keys.vt, BLOCK, dim, ds, BLOCK, count, groups);
            for r in 0..count {
                let (p, ds) = (&mut p[r * BLOCK..][..width], &mut ds[r * BLOCK..][..width]);
                score_grads(p, ds, visible(r), groups, s.lse[from + r], s.delta[from + r], &pair.setting);
            }
            if pair.want_dq {
                let left = Left::<false> { data: ds, stride: BLOCK };
                let dq = &mut s.dq[from * padded..];
                product::<false, false>(left, keys.k, padded, longest, dq, padded, count, padded / LANES);
            }
        }
        if pair.want_dkv {
            for (j, count) in tile::row_tiles(pair.n) {
                let start = pair.context.first_seeing(pair.first + j).min(pair.lines);
                let (k, groups) = (pair.lines - start, padded / LANES);
                if k == 0 {
                    continue;
                }
                let p = Left::<true> { data: &s.p[start * BLOCK + j..], stride: BLOCK };
                product::<true, false>(p, &s.dout[start * padded..], padded, k, &mut s.dv[j * padded..], padded, count, groups);
                let ds = Left::<true> { data: &s.ds[start * BLOCK + j..], stride: BLOCK };
                product::<true, false>(ds, &s.q[start * padded..], padded, k, &mut s.dk[j * padded..], padded, count, groups);
            }
        }
    }
}

/// p: scores to probabilities; ds: dP to dS; both zero where the line sees no key.
#[inline(always)]
fn score_grads(p: &mut [f32], ds: &mut [f32], visible: usize, groups: usize, lse: f32, delta: f32, setting: &Setting) {
    p[groups * LANES..].fill(0.0);
    ds[groups * LANES..].fill(0.0);
    let tiles = p.chunks_exact_mut(LANES).zip(ds.chunks_exact_mut(LANES));
    for (g, (p, ds)) in tiles.take(groups).enumerate() {
        for i in 0..LANES {
            let seen = g * LANES + i < visible;
            let e = exp2(p[i].mul_add(setting.scale_log2e, -lse));
            let d = e * (ds[i] - delta);
            let (e, d) = match setting.round {
                true => (bf16::from_f32(e).to_f32(), bf16::from_f32(d).to_f32()),
                false => (e, d),
            };
            p[i] = if seen { e } else { 0.0 };
            ds[i] = if seen { d } else { 0.0 };
        }
    }
}

cpu_kernel! {
    /// to = from * scale. Adding zero turns -0 into +0: which lines share a tile then shows nowhere.
    fn scaled<T: Elem>(from: &[f32], scale: f32, to: &mut [T]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = T::from_f32(from * scale + 0.0);
        }
    }
}
