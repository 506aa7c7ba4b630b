//! One query tile against one block of keys: the five products of attention's backward.

use half::bf16;

use crate::device::{Isa, cpu_kernel};
use crate::ops::attend::{BLOCK, Context, Heads, Setting, pack_block, transpose};
use crate::ops::lanes::{self, LANES};
use crate::ops::tile::{self, Left, Right, Sums, product};
use crate::tensor::Elem;
use omr_base::math::exp2;

/// Approximate number of (query row, head) lines of a query tile. Two score tiles `[LINES][BLOCK]` fill the L1 cache.
const LINES: usize = 48;

/// Returns the number of query rows of a query tile.
pub(super) fn tile_rows(heads: Heads) -> usize {
    (LINES / heads.group()).max(1)
}

/// Scratch memory of a work item: queries and dO of a tile with padded rows, log-sum-exp and D, scores and their
/// gradients, the gradients of the tile and of a block of keys, and the sums of the latter over several sequences.
pub(super) struct Scratch<'a> {
    pub(super) q: &'a mut [f32],
    pub(super) dout: &'a mut [f32],
    pub(super) lse: &'a mut [f32],
    pub(super) delta: &'a mut [f32],
    pub(super) p: &'a mut [f32],
    pub(super) ds: &'a mut [f32],
    pub(super) dq: &'a mut [f32],
    pub(super) dk: &'a mut [f32],
    pub(super) dv: &'a mut [f32],
    sum_dk: &'a mut [f32],
    sum_dv: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    /// Returns the number of elements that [`Scratch::new`] needs.
    pub(super) fn len(heads: Heads) -> usize {
        let lines = tile_rows(heads) * heads.group();
        lines * (3 * heads.padded() + 2 * BLOCK + 2) + 4 * BLOCK * heads.padded()
    }

    pub(super) fn new(scratch: &'a mut [f32], heads: Heads) -> Scratch<'a> {
        let (lines, padded) = (tile_rows(heads) * heads.group(), heads.padded());
        let mut rest = scratch;
        let mut cut = |n: usize| rest.split_off_mut(..n).expect("scratch as long as Scratch::len");
        Scratch {
            q: cut(lines * padded),
            dout: cut(lines * padded),
            p: cut(lines * BLOCK),
            ds: cut(lines * BLOCK),
            dq: cut(lines * padded),
            dk: cut(BLOCK * padded),
            dv: cut(BLOCK * padded),
            sum_dk: cut(BLOCK * padded),
            sum_dv: cut(BLOCK * padded),
            lse: cut(lines),
            delta: cut(lines),
        }
    }

    /// Sets the gradients of the first keys, `len` elements of each, to zero.
    pub(super) fn clear_keys(&mut self, len: usize) {
        self.dk[..len].fill(0.0);
        self.dv[..len].fill(0.0);
    }

    /// Adds the gradients of the keys to their sums over sequences. The `first` gradients are copied.
    pub(super) fn add_keys(&mut self, first: bool) {
        for (sum, x) in [(&mut *self.sum_dk, &*self.dk), (&mut *self.sum_dv, &*self.dv)] {
            match first {
                true => sum.copy_from_slice(x),
                false => sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x),
            }
        }
    }

    /// Replaces the gradients of the keys by their sums over sequences.
    pub(super) fn take_keys(&mut self) {
        self.dk.copy_from_slice(self.sum_dk);
        self.dv.copy_from_slice(self.sum_dv);
    }
}

/// One block of one key head: k and v transposed `[dim][BLOCK]`, and k `[BLOCK][padded]`.
#[derive(Clone, Copy)]
pub(super) struct KeyTile<'a> {
    pub(super) kt: &'a [f32],
    pub(super) vt: &'a [f32],
    pub(super) k: &'a [f32],
}

impl<'a> KeyTile<'a> {
    pub(super) fn len(heads: Heads) -> usize {
        BLOCK * (2 * heads.dim + heads.padded())
    }

    pub(super) fn new(packed: &'a [f32], heads: Heads, block: usize, head: usize) -> KeyTile<'a> {
        let tile = &packed[(block * heads.kv + head) * Self::len(heads)..][..Self::len(heads)];
        let (kt, rest) = tile.split_at(BLOCK * heads.dim);
        let (vt, k) = rest.split_at(BLOCK * heads.dim);
        KeyTile { kt, vt, k }
    }
}

cpu_kernel! {
    /// Packs all key heads of `n` rows as [`KeyTile`]s.
    pub(super) fn pack_tiles<T: Elem>(qkv: &[T], n: usize, heads: Heads, tiles: &mut [f32]) {
        let (dim, stride) = (heads.dim, heads.qkv_len());
        for (head, tile) in tiles.chunks_exact_mut(KeyTile::len(heads)).enumerate() {
            let (kt, rest) = tile.split_at_mut(BLOCK * dim);
            let (vt, k) = rest.split_at_mut(BLOCK * dim);
            let (keys, values) = (&qkv[(heads.q + head) * dim..], &qkv[(heads.q + heads.kv + head) * dim..]);
            pack_block(keys, keys, stride, n, dim, kt, k);
            transpose(values, stride, n, dim, vt);
        }
    }
}

/// A query tile and a block of `n` keys. `first` is the sequence position of the block's first key.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub(super) lines: usize,
    pub(super) context: Context,
    pub(super) first: usize,
    pub(super) n: usize,
    pub(super) setting: Setting,
    pub(super) wanted: Wanted,
}

/// Gradients that [`pair_grads`] adds to.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) dq: bool,
    pub(super) dkv: bool,
}

impl Pair {
    /// Returns the number of keys of the block that `line` sees.
    #[inline(always)]
    fn visible(&self, line: usize) -> usize {
        self.context.of(line).saturating_sub(self.first).min(self.n)
    }
}

pub(super) fn pair_grads(isa: Isa, pair: Pair, keys: KeyTile<'_>, s: &mut Scratch<'_>) {
    let dim = pair.setting.dim;
    let padded = dim.next_multiple_of(LANES);
    for (from, count) in tile::row_tiles(pair.lines) {
        let longest = pair.visible(from + count - 1);
        let groups = longest.div_ceil(LANES);
        let (p, ds) = (&mut s.p[from * BLOCK..][..count * BLOCK], &mut s.ds[from * BLOCK..][..count * BLOCK]);
        let line = |x| Left { data: x, row: padded, step: 1 };
        let tile = |data| Sums { data, stride: BLOCK, start: false };
        let transposed = |data| Right { data, stride: BLOCK };
        product(isa, line(&s.q[from * padded..]), transposed(keys.kt), dim, tile(p), count, groups);
        product(isa, line(&s.dout[from * padded..]), transposed(keys.vt), dim, tile(ds), count, groups);
        score_grads(isa, p, ds, from, pair, groups, &s.lse[from..from + count], &s.delta[from..]);
        if pair.wanted.dq {
            let ds = Left { data: ds, row: BLOCK, step: 1 };
            let dq = Sums { data: &mut s.dq[from * padded..], stride: padded, start: true };
            product(isa, ds, Right { data: keys.k, stride: padded }, longest, dq, count, padded / LANES);
        }
    }
    if pair.wanted.dkv {
        for (j, count) in tile::row_tiles(pair.n) {
            let start = pair.context.first_seeing(pair.first + j).min(pair.lines);
            let lines = pair.lines - start;
            if lines == 0 {
                continue;
            }
            let column = |x: &'_ [f32]| start * BLOCK + j..x.len();
            let (p, ds) = (&s.p[column(s.p)], &s.ds[column(s.ds)]);
            for (left, right, sums) in [(p, &*s.dout, &mut *s.dv), (ds, &*s.q, &mut *s.dk)] {
                let left = Left { data: left, row: 1, step: BLOCK };
                let right = Right { data: &right[start * padded..], stride: padded };
                let sums = Sums { data: &mut sums[j * padded..], stride: padded, start: true };
                product(isa, left, right, lines, sums, count, padded / LANES);
            }
        }
    }
}

cpu_kernel! {
    /// For the lines from `from` on, replaces scores in p by probabilities and dP in ds by dS. Both are zero where a
    /// line does not see the key.
    fn score_grads(
        p: &mut [f32],
        ds: &mut [f32],
        from: usize,
        pair: Pair,
        groups: usize,
        lse: &[f32],
        delta: &[f32],
    ) {
        let setting = pair.setting;
        let width = pair.n.next_multiple_of(LANES);
        let lines = p.chunks_exact_mut(BLOCK).zip(ds.chunks_exact_mut(BLOCK)).zip(lse.iter().zip(delta));
        for (r, ((p, ds), (&lse, &delta))) in lines.enumerate() {
            let visible = pair.visible(from + r);
            let tiles = p.chunks_exact_mut(LANES).zip(ds.chunks_exact_mut(LANES)).take(groups);
            for (g, (p, ds)) in tiles.enumerate() {
                let (mut e, mut d) = ([0.0; LANES], [0.0; LANES]);
                for i in 0..LANES {
                    (e[i], d[i]) = score_grad(p[i], ds[i], lse, delta, &setting);
                }
                let seen = visible.saturating_sub(g * LANES);
                p.copy_from_slice(&lanes::keep(&e, seen, 0.0));
                ds.copy_from_slice(&lanes::keep(&d, seen, 0.0));
            }
            p[groups * LANES..width].fill(0.0);
            ds[groups * LANES..width].fill(0.0);
        }
    }
}

/// Returns (P, dS) for a score and its dP.
#[inline(always)]
fn score_grad(score: f32, dp: f32, lse: f32, delta: f32, setting: &Setting) -> (f32, f32) {
    let e = exp2(score.mul_add(setting.scale_log2e, -lse));
    let d = e * (dp - delta);
    match setting.round {
        true => (bf16::from_f32(e).to_f32(), bf16::from_f32(d).to_f32()),
        false => (e, d),
    }
}
