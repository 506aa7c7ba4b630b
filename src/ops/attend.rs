//! Attention of one row, defined once (DESIGN section 8) for training, prefill and decode: keys in blocks of
//! [`BLOCK`] from the sequence's start, online softmax over the blocks of one chunk of [`CHUNK`] keys, chunk states
//! folded left to right. A row's base M is its largest score so far times c, rounded once; p = exp2(fma(score, c, -M)),
//! so that the largest key has 1 within |M| 2^-24. Rows are computed several at a time, which changes no row's arithmetic.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;

use crate::device::{Isa, Parts, Pool, cpu_kernel};
use crate::error::Result;
use crate::math::{exp2, ln};
use crate::ops::check;
use crate::ops::lanes::{self, LANES, Lanes, larger};
use crate::ops::tile::{self, Left, Right, Sums, product};
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
    /// c: the softmax scale times log2(e), positive.
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

/// Base, sum and un-normalised output of some rows.
struct State<'a> {
    m: &'a mut [f32],
    l: &'a mut [f32],
    o: &'a mut [f32],
}

impl State<'_> {
    /// Before any key. The output needs no zeros: the first block's product does not start from it.
    fn reset(&mut self) {
        self.m.fill(f32::NEG_INFINITY);
        self.l.fill(0.0);
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
                let rows = Rows { q: self.q, context: self.context, setting: self.setting };
                block(isa, rows, keys.block(b / BLOCK), b, state, self.p);
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
            lanes::widen(&from[..len], to);
        }
    }
}

/// Query rows and how they attend.
#[derive(Clone, Copy)]
struct Rows<'a> {
    q: &'a [f32],
    context: Context,
    setting: Setting,
}

/// One block of keys, the first of which is key `first` of the sequence, into the rows' states.
fn block(isa: Isa, rows: Rows<'_>, keys: Keys<'_>, first: usize, state: &mut State<'_>, p: &mut [f32]) {
    let Rows { q, context, setting } = rows;
    let (dim, padded) = (setting.dim, setting.padded());
    let start = !first.is_multiple_of(CHUNK);
    for (from, count) in tile::row_tiles(state.m.len()) {
        let mut visible = [0; tile::ROWS];
        for (r, v) in visible.iter_mut().enumerate().take(count) {
            *v = context.of(from + r).saturating_sub(first).min(BLOCK) as u32;
        }
        let longest = visible[count - 1] as usize;
        let rows = from..from + count;
        let o = &mut state.o[from * padded..][..count * padded];
        if longest == 0 {
            if !start {
                o.fill(0.0);
            }
            continue;
        }
        let groups = longest.div_ceil(LANES);
        let q = Left { data: &q[from * dim..], row: dim, step: 1 };
        let scores = Sums { data: p, stride: BLOCK, start: false };
        product(isa, q, Right { data: keys.k, stride: BLOCK }, dim, scores, count, groups);
        let alpha = softmax(isa, p, groups, visible, setting, &mut state.m[rows.clone()], &mut state.l[rows]);
        if start {
            rescale(isa, o, padded, alpha);
        }
        let p = Left { data: p, row: BLOCK, step: 1 };
        let sums = Sums { data: o, stride: padded, start };
        product(isa, p, Right { data: keys.v, stride: keys.v_stride }, longest, sums, count, padded / LANES);
    }
}

cpu_kernel! {
    /// Scores to probabilities under the base so far, in place; m and l move to that base. Gives the factors
    /// for the rows' outputs. Row r sees the first `visible[r]` keys; the others get probability zero, whatever
    /// their score. In passes over all rows, with lanes kept in arrays between them: the horizontal reductions then
    /// overlap, and do not tempt the compiler to split the lanes of the loops before.
    fn softmax(
        p: &mut [f32],
        groups: usize,
        visible: [u32; tile::ROWS],
        setting: Setting,
        m: &mut [f32],
        l: &mut [f32],
    ) -> Lanes {
        let before = lanes::load_tail(m);
        let mut after = before;
        let mut largest = [[f32::NEG_INFINITY; LANES]; tile::ROWS];
        for (r, p) in p.chunks_exact_mut(BLOCK).take(m.len()).enumerate() {
            mask_and_max(&mut p[..groups * LANES], visible[r] as usize, &mut largest[r]);
        }
        for r in 0..m.len() {
            after[r] = larger(before[r], lanes::max(&largest[r]) * setting.scale_log2e);
        }
        let mut alpha = [0.0; LANES];
        for i in 0..LANES {
            // Before its first key a row has nothing to rescale; where its base stands still the factor is exactly 1.
            let drop = if before[i] == f32::NEG_INFINITY { 0.0 } else { before[i] - after[i] };
            alpha[i] = exp2(drop);
        }
        let mut sums = [[0.0; LANES]; tile::ROWS];
        for (r, p) in p.chunks_exact_mut(BLOCK).take(m.len()).enumerate() {
            let (p, visible, scale) = (&mut p[..groups * LANES], visible[r] as usize, setting.scale_log2e);
            match setting.round {
                true => probabilities::<true>(p, visible, scale, after[r], &mut sums[r]),
                false => probabilities::<false>(p, visible, scale, after[r], &mut sums[r]),
            }
        }
        for (r, (m, l)) in m.iter_mut().zip(l).enumerate() {
            *m = after[r];
            *l = l.mul_add(alpha[r], lanes::sum(&sums[r]));
        }
        alpha
    }
}

/// `largest` becomes the largest score of the keys seen, lane by lane. The others' become zero, not minus infinity:
/// exponentials that underflow are slow, and theirs are dropped anyway.
#[inline(always)]
fn mask_and_max(p: &mut [f32], visible: usize, largest: &mut Lanes) {
    let mut most = *largest;
    for (g, p) in p.chunks_exact_mut(LANES).enumerate() {
        let mut t = [0.0; LANES];
        t.copy_from_slice(p);
        let seen = visible.saturating_sub(g * LANES);
        p.copy_from_slice(&lanes::keep(&t, seen, 0.0));
        let t = lanes::keep(&t, seen, f32::NEG_INFINITY);
        for i in 0..LANES {
            most[i] = larger(most[i], t[i]);
        }
    }
    *largest = most;
}

/// exp2(p scale - base) of the keys seen, zero of the others; `sums` becomes their sum before rounding, lane by lane.
#[inline(always)]
fn probabilities<const ROUND: bool>(p: &mut [f32], visible: usize, scale: f32, base: f32, sums: &mut Lanes) {
    let mut sum = [0.0; LANES];
    for (g, p) in p.chunks_exact_mut(LANES).enumerate() {
        let mut e = [0.0; LANES];
        for i in 0..LANES {
            e[i] = exp2(p[i].mul_add(scale, -base));
        }
        let e = lanes::keep(&e, visible.saturating_sub(g * LANES), 0.0);
        for i in 0..LANES {
            sum[i] += e[i];
            p[i] = if ROUND { bf16::from_f32(e[i]).to_f32() } else { e[i] };
        }
    }
    *sums = sum;
}

cpu_kernel! {
    /// Each row of o times its factor.
    fn rescale(o: &mut [f32], padded: usize, alpha: Lanes) {
        for (o, alpha) in o.chunks_exact_mut(padded).zip(alpha) {
            for o in o {
                *o *= alpha;
            }
        }
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
            lanes::narrow_scaled(o, *inv, out);
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
    transpose(keys, stride, n, dim, k);
    for (j, row) in v.chunks_exact_mut(dim.next_multiple_of(LANES)).take(n).enumerate() {
        let (row, rest) = row.split_at_mut(dim);
        lanes::widen(&values[j * stride..][..dim], row);
        rest.fill(0.0);
    }
}

/// Rows `[n][dim]`, `stride` apart, to columns `[dim][BLOCK]`. Sixteen rows at a time, so that each cache line of the
/// columns is written once and whole.
#[inline(always)]
pub(crate) fn transpose<T: Elem>(rows: &[T], stride: usize, n: usize, dim: usize, columns: &mut [f32]) {
    let row = |j: usize| &rows[j * stride..][..dim];
    let whole = n / LANES * LANES;
    for j in (0..whole).step_by(LANES) {
        let mut lines: [&[T]; LANES] = [&[]; LANES];
        for (i, line) in lines.iter_mut().enumerate() {
            *line = row(j + i);
        }
        for (d, column) in columns.chunks_exact_mut(BLOCK).take(dim).enumerate() {
            for (x, line) in column[j..j + LANES].iter_mut().zip(lines) {
                *x = line[d].to_f32();
            }
        }
    }
    for j in whole..n {
        for (column, x) in columns.chunks_exact_mut(BLOCK).zip(row(j)) {
            column[j] = x.to_f32();
        }
    }
}
