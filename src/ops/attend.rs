//! Attention of one row, defined once (DESIGN section 8) for training, prefill and decode: keys in blocks of
//! [`BLOCK`] from the sequence's start, online softmax over the blocks of one chunk of [`CHUNK`] keys, chunk states
//! folded left to right. Rows are computed several at a time, which changes no row's arithmetic.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;

use crate::device::{Isa, Parts, Pool, cpu_kernel};
use crate::error::Result;
use crate::ops::check;
use crate::ops::lanes::{self, LANES, larger};
use crate::ops::math::{exp2, ln};
use crate::ops::tile::{self, Left, product};
use crate::tensor::{DType, Elem};

/// Keys of one block: the unit of the KV cache and of the online softmax.
pub const BLOCK: usize = 128;

/// Keys of one chunk: softmax states are folded at its borders, so decode may split there.
pub const CHUNK: usize = 2048;

/// Head counts and size of packed rows `[q heads | k heads | v heads]`, each head `dim` long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heads {
    /// Query heads.
    pub q: usize,
    /// Key and value heads; divides `q`.
    pub kv: usize,
    /// Elements of a head, even.
    pub dim: usize,
}

impl Heads {
    /// Elements of a packed qkv row.
    pub fn qkv_len(&self) -> usize {
        (self.q + 2 * self.kv) * self.dim
    }

    /// Elements of an attention output row.
    pub fn out_len(&self) -> usize {
        self.q * self.dim
    }

    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.q / self.kv
    }

    /// Errors when `kv` does not divide `q`, or a number is zero, or `dim` is odd.
    pub fn check(&self, op: &'static str) -> Result<()> {
        let Heads { q, kv, dim } = *self;
        let holds = q > 0 && kv > 0 && q.is_multiple_of(kv) && dim > 0 && dim.is_multiple_of(2);
        check::that(op, holds, "q a multiple of kv and dim even, none zero", format!("{self:?}"))
    }

    /// `dim` rounded up to whole lanes: the length of a padded value row.
    pub(crate) fn padded(&self) -> usize {
        self.dim.next_multiple_of(LANES)
    }
}

/// The keys and values of one block.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// Keys transposed, `[dim][BLOCK]`.
    pub k: &'a [f32],
    /// Values `[BLOCK][padded dim]`, or rows `v_stride` apart that reach that far.
    pub v: &'a [f32],
    /// Distance of value rows.
    pub v_stride: usize,
}

/// Where a sequence's blocks come from. Columns of k and rows of v past the keys that exist may hold anything.
pub trait KeySource {
    /// Block `b`: keys `b * BLOCK..` of the sequence.
    fn block(&mut self, b: usize) -> Keys<'_>;
}

/// The numbers that are the same for all rows of a call.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Elements of a head.
    pub dim: usize,
    /// The softmax scale times log2(e).
    pub scale_log2e: f32,
    /// Round the probabilities to bf16 before they meet the values.
    pub round: bool,
}

impl Setting {
    /// The setting of a call with this compute type, heads and softmax scale.
    pub fn new(dtype: DType, heads: Heads, scale: f32) -> Setting {
        let scale_log2e = (f64::from(scale) * std::f64::consts::LOG2_E) as f32;
        Setting { dim: heads.dim, scale_log2e, round: dtype == DType::Bf16 }
    }

    fn padded(&self) -> usize {
        self.dim.next_multiple_of(LANES)
    }
}

/// How many keys the rows of a call see. Rows are (query row, query head of the group), heads fastest.
#[derive(Clone, Copy)]
pub struct Context {
    /// Keys the first query row sees, at least one.
    pub first: usize,
    /// More keys for each further query row: 1 under a causal mask, else 0.
    pub step: usize,
    /// Query heads of the group.
    pub group: usize,
}

impl Context {
    /// Keys row `r` sees.
    #[inline(always)]
    pub fn of(&self, r: usize) -> usize {
        self.first + r / self.group * self.step
    }

    /// The first row that sees key `key`; past all rows under a full mask that does not reach it.
    #[inline(always)]
    pub fn first_seeing(&self, key: usize) -> usize {
        if key < self.first {
            0
        } else if self.step == 0 {
            usize::MAX
        } else {
            (key + 1 - self.first) * self.group
        }
    }
}

/// Rows of one call: queries and their running states, all cut from one piece of scratch.
pub struct RowStates<'a> {
    q: &'a mut [f32],
    chunk: State<'a>,
    total: State<'a>,
    p: &'a mut [f32],
    context: Context,
    setting: Setting,
}

/// Running maximum (times scale and log2 e), sum and un-normalised output of some rows.
struct State<'a> {
    m: &'a mut [f32],
    l: &'a mut [f32],
    o: &'a mut [f32],
}

impl State<'_> {
    fn reset(&mut self) {
        self.m.fill(f32::NEG_INFINITY);
        self.l.fill(0.0);
        self.o.fill(0.0);
    }
}

impl<'a> RowStates<'a> {
    /// Scratch elements that [`RowStates::new`] wants for `rows` rows.
    pub fn len(rows: usize, dim: usize) -> usize {
        let padded = dim.next_multiple_of(LANES);
        (rows * (dim + 2 * padded + 4)).next_multiple_of(LANES) + tile::ROWS * BLOCK
    }

    /// Cuts `scratch` up and takes the queries: `rows` query rows, each the `context.group` heads at the start of
    /// every `stride` elements of `queries`.
    pub fn new<T: Elem>(
        isa: Isa,
        scratch: &'a mut [f32],
        queries: &[T],
        stride: usize,
        rows: usize,
        context: Context,
        setting: Setting,
    ) -> RowStates<'a> {
        let (dim, padded) = (setting.dim, setting.padded());
        let lines = rows * context.group;
        let mut rest = scratch;
        let mut cut = |n: usize| rest.split_off_mut(..n).expect("scratch as long as RowStates::len");
        let (p, q) = (cut(tile::ROWS * BLOCK), cut(lines * dim));
        let mut state = || State { m: cut(lines), l: cut(lines), o: cut(lines * padded) };
        let (chunk, total) = (state(), state());
        widen_rows::<T>(isa, queries, stride, context.group * dim, q);
        RowStates { q, chunk, total, p, context, setting }
    }

    /// Attends all rows to the keys they see.
    pub fn attend(&mut self, isa: Isa, keys: &mut impl KeySource) {
        let longest = self.context.of(self.total.m.len() - 1);
        for chunk in 0..longest.div_ceil(CHUNK) {
            let state = if chunk == 0 { &mut self.total } else { &mut self.chunk };
            state.reset();
            let first = chunk * CHUNK;
            for b in (first..longest.min(first + CHUNK)).step_by(BLOCK) {
                block(isa, self.q, keys.block(b / BLOCK), self.context, b, self.setting, state, self.p);
            }
            if chunk > 0 {
                fold(isa, &self.chunk, &mut self.total, self.setting.padded());
            }
        }
        finish(isa, &mut self.total);
    }

    /// After [`RowStates::attend`]: the log-sum-exp of every row (natural logarithm, scale included).
    pub fn lse(&self) -> &[f32] {
        self.total.m
    }

    /// After [`RowStates::attend`]: writes query row `i`'s output heads, `group * dim` elements.
    pub fn write<T: Elem>(&self, isa: Isa, i: usize, out: &mut [T]) {
        let (group, padded) = (self.context.group, self.setting.padded());
        let (o, inv) = (&self.total.o[i * group * padded..], &self.total.l[i * group..][..group]);
        normalise(isa, o, padded, inv, self.setting.dim, out);
    }
}

cpu_kernel! {
    /// The first `len` elements of every `stride` of `from`, in f32.
    fn widen_rows<T: Elem>(from: &[T], stride: usize, len: usize, to: &mut [f32]) {
        for (to, from) in to.chunks_exact_mut(len).zip(from.chunks(stride)) {
            for (to, from) in to.iter_mut().zip(from) {
                *to = from.to_f32();
            }
        }
    }
}

cpu_kernel! {
    /// One block of keys, the first of which is key `first` of the sequence, into the rows' states.
    fn block(
        q: &[f32],
        keys: Keys<'_>,
        context: Context,
        first: usize,
        setting: Setting,
        state: &mut State<'_>,
        p: &mut [f32],
    ) {
        let (dim, padded) = (setting.dim, setting.padded());
        for (from, count) in tile::row_tiles(state.m.len()) {
            let visible = |r: usize| context.of(from + r).saturating_sub(first).min(BLOCK);
            let longest = (0..count).map(visible).max().unwrap_or(0);
            if longest == 0 {
                continue;
            }
            let groups = longest.div_ceil(LANES);
            let q = Left::<false> { data: &q[from * dim..], stride: dim };
            product::<false, true>(q, keys.k, BLOCK, dim, p, BLOCK, count, groups);
            for r in 0..count {
                let p = &mut p[r * BLOCK..][..groups * LANES];
                let row = from + r;
                if visible(r) == 0 {
                    p.fill(0.0);
                    continue;
                }
                let o = &mut state.o[row * padded..][..padded];
                softmax(p, visible(r), &setting, &mut state.m[row], &mut state.l[row], o);
            }
            let left = Left::<false> { data: p, stride: BLOCK };
            let o = &mut state.o[from * padded..];
            product::<false, false>(left, keys.v, keys.v_stride, longest, o, padded, count, padded / LANES);
        }
    }
}

/// Scores to probabilities under the maximum so far, in place; the state moves to that maximum. Keys from
/// `visible` on get probability zero, whatever their score.
#[inline(always)]
fn softmax(p: &mut [f32], visible: usize, setting: &Setting, m: &mut f32, l: &mut f32, o: &mut [f32]) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    for (g, p) in p.chunks_exact_mut(LANES).enumerate() {
        for i in 0..LANES {
            let t = p[i] * setting.scale_log2e;
            p[i] = if g * LANES + i < visible { t } else { f32::NEG_INFINITY };
            largest[i] = larger(largest[i], p[i]);
        }
    }
    let after = larger(*m, lanes::max(&largest));
    let alpha = exp2(*m - after);
    let mut sums = [0.0; LANES];
    for (g, p) in p.chunks_exact_mut(LANES).enumerate() {
        for i in 0..LANES {
            let e = if g * LANES + i < visible { exp2(p[i] - after) } else { 0.0 };
            sums[i] += e;
            p[i] = if setting.round { bf16::from_f32(e).to_f32() } else { e };
        }
    }
    *m = after;
    *l = l.mul_add(alpha, lanes::sum(&sums));
    for o in o {
        *o *= alpha;
    }
}

cpu_kernel! {
    /// Folds the states of one chunk into the total of the chunks before it.
    fn fold(chunk: &State<'_>, total: &mut State<'_>, padded: usize) {
        for r in 0..total.m.len() {
            if chunk.l[r] == 0.0 {
                continue;
            }
            let after = larger(total.m[r], chunk.m[r]);
            let (a, b) = (exp2(total.m[r] - after), exp2(chunk.m[r] - after));
            total.m[r] = after;
            total.l[r] = total.l[r].mul_add(a, chunk.l[r] * b);
            let (to, from) = (&mut total.o[r * padded..][..padded], &chunk.o[r * padded..][..padded]);
            for (to, from) in to.iter_mut().zip(from) {
                *to = to.mul_add(a, from * b);
            }
        }
    }
}

cpu_kernel! {
    /// m becomes the log-sum-exp, l its inverse.
    fn finish(total: &mut State<'_>) {
        for (m, l) in total.m.iter_mut().zip(total.l.iter_mut()) {
            *m = m.mul_add(std::f32::consts::LN_2, ln(*l));
            *l = 1.0 / *l;
        }
    }
}

cpu_kernel! {
    /// out = o / l, head by head. Adding zero turns -0 into +0: rows computed together differ in nothing else.
    fn normalise<T: Elem>(o: &[f32], padded: usize, inv: &[f32], dim: usize, out: &mut [T]) {
        for ((out, o), inv) in out.chunks_exact_mut(dim).zip(o.chunks_exact(padded)).zip(inv) {
            for (out, o) in out.iter_mut().zip(o) {
                *out = T::from_f32(o * inv + 0.0);
            }
        }
    }
}

/// Hands the indices below `items` to the threads, each with a piece of `scratch` of `len` elements of its own.
pub(crate) fn run_with_scratch(
    pool: &Pool,
    items: usize,
    scratch: &mut [f32],
    len: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    let pieces = Parts::new(scratch, len);
    let next = AtomicUsize::new(0);
    pool.run(pieces.count(), |w| {
        let scratch = pieces.take(w);
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= items {
                return;
            }
            f(i, scratch);
        }
    });
}

/// A row-major block of keys `[n][dim]` and values, rows `stride` apart, as [`Keys`] wants them: k `[dim][BLOCK]`,
/// v `[n][padded]`; nothing else is written.
#[inline(always)]
pub(crate) fn pack_block<T: Elem>(
    keys: &[T],
    values: &[T],
    stride: usize,
    n: usize,
    dim: usize,
    k: &mut [f32],
    v: &mut [f32],
) {
    let padded = dim.next_multiple_of(LANES);
    for j in 0..n {
        for (d, x) in keys[j * stride..][..dim].iter().enumerate() {
            k[d * BLOCK + j] = x.to_f32();
        }
        let (row, rest) = v[j * padded..][..padded].split_at_mut(dim);
        for (y, x) in row.iter_mut().zip(&values[j * stride..]) {
            *y = x.to_f32();
        }
        rest.fill(0.0);
    }
}
