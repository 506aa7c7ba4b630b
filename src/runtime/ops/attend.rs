//! Attention of one row, defined once (docs/dev/design/training.md) for training, prefill and decode.
//!
//! Keys are processed in blocks of [`BLOCK`] from the sequence's start, with online softmax over the blocks of one
//! chunk of [`CHUNK`] keys. The states of the chunks are then folded left to right. The base M of a row is its largest
//! score so far times c (the softmax scale times log2(e)), rounded once. Probabilities are p = exp2(fma(score, c, -M)),
//! so the largest key has probability 1 within |M| 2^-24. Several rows are computed at a time; this changes no row's
//! arithmetic.

use std::sync::atomic::{AtomicUsize, Ordering};

use half::bf16;

use crate::device::{Isa, Parts, Pool, cpu_kernel};
use crate::ops::check;
use crate::ops::lanes::{self, LANES, Lanes, larger};
use crate::ops::tile::{self, Left, Right, Sums, product};
use crate::tensor::{DType, Elem};
use omr_base::error::Result;
use omr_base::math::{exp2, ln};

/// Keys per block, the unit of the KV cache and of the online softmax.
pub const BLOCK: usize = 128;

/// Keys per chunk. Softmax states are folded at chunk borders, so decode may be split there.
pub const CHUNK: usize = 2048;

/// Head counts and head size of packed rows `[q heads | k heads | v heads]`, where each head has `dim` elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heads {
    /// Number of query heads.
    pub q: usize,
    /// Number of key heads, which is also the number of value heads. It divides `q`.
    pub kv: usize,
    /// Number of elements of a head. It is even.
    pub dim: usize,
}

impl Heads {
    /// Returns the number of elements of a packed qkv row.
    pub fn qkv_len(&self) -> usize {
        (self.q + 2 * self.kv) * self.dim
    }

    /// Returns the number of elements of an attention output row.
    pub fn out_len(&self) -> usize {
        self.q * self.dim
    }

    /// Returns the number of query heads that share one key head.
    pub fn group(&self) -> usize {
        self.q / self.kv
    }

    /// Returns an error if a number is zero, `kv` does not divide `q`, or `dim` is odd.
    pub fn check(&self, op: &'static str) -> Result<()> {
        let Heads { q, kv, dim } = *self;
        let holds = q > 0 && kv > 0 && q.is_multiple_of(kv) && dim > 0 && dim.is_multiple_of(2);
        check::that(op, holds, "q heads a multiple of kv heads, an even dim, none zero", format!("{self:?}"))
    }

    /// Returns `dim` rounded up to a multiple of [`LANES`]: the length of a padded value row.
    pub(crate) fn padded(&self) -> usize {
        self.dim.next_multiple_of(LANES)
    }
}

/// The keys and values of one block.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// Keys transposed, `[dim][BLOCK]`.
    pub k: &'a [f32],
    /// Values `[BLOCK][padded dim]`, or longer rows that start `v_stride` elements apart.
    pub v: &'a [f32],
    /// Distance between the starts of two value rows, in elements.
    pub v_stride: usize,
}

/// Source of a sequence's key blocks. Columns of k and rows of v past the existing keys may hold any values.
pub trait KeySource {
    /// Returns block `b`, which holds the keys from `b * BLOCK` on.
    fn block(&mut self, b: usize) -> Keys<'_>;
}

/// Values that all rows of a call share.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Elements of a head.
    pub dim: usize,
    /// The factor c: the softmax scale times log2(e), positive.
    pub scale_log2e: f32,
    /// True if the probabilities are rounded to bf16 before they are multiplied by the values.
    pub round: bool,
}

impl Setting {
    /// Returns the setting of a call with this compute type, these heads and this softmax scale.
    pub fn new(dtype: DType, heads: Heads, scale: f32) -> Setting {
        let scale_log2e = (f64::from(scale) * std::f64::consts::LOG2_E) as f32;
        Setting { dim: heads.dim, scale_log2e, round: dtype == DType::Bf16 }
    }

    fn padded(&self) -> usize {
        self.dim.next_multiple_of(LANES)
    }
}

/// Number of keys that each row of a call sees. A row is a pair (query row, query head of the group); the head index
/// varies fastest.
#[derive(Clone, Copy)]
pub struct Context {
    /// Keys that the first query row sees, at least one.
    pub first: usize,
    /// Additional keys per further query row: 1 under a causal mask, else 0.
    pub step: usize,
    /// Query heads of the group.
    pub group: usize,
}

impl Context {
    /// Returns the number of keys that row `r` sees.
    #[inline(always)]
    pub fn of(&self, r: usize) -> usize {
        self.first + r / self.group * self.step
    }

    /// Returns the first row that sees key `key`. Returns `usize::MAX` if there is no causal mask and no row sees the
    /// key.
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

/// Queries and running states of the rows of one call, all of them parts of one scratch buffer.
pub struct RowStates<'a> {
    q: &'a mut [f32],
    chunk: State<'a>,
    total: State<'a>,
    p: &'a mut [f32],
    context: Context,
    setting: Setting,
}

/// Running state of some rows: base m, sum l, and output o before normalisation.
struct State<'a> {
    m: &'a mut [f32],
    l: &'a mut [f32],
    o: &'a mut [f32],
}

impl State<'_> {
    /// Resets the state to that of no keys. The output needs no zeros, because the first block's product does not add
    /// to it.
    fn reset(&mut self) {
        self.m.fill(f32::NEG_INFINITY);
        self.l.fill(0.0);
    }
}

impl<'a> RowStates<'a> {
    /// Returns the number of scratch elements that [`RowStates::new`] needs for `rows` rows.
    pub fn len(rows: usize, dim: usize) -> usize {
        let padded = dim.next_multiple_of(LANES);
        (rows * (dim + 2 * padded + 4)).next_multiple_of(LANES) + tile::ROWS * BLOCK
    }

    /// Splits `scratch` and copies the queries into it. Each of the `rows` query rows consists of the `context.group`
    /// heads at the start of every `stride` elements of `queries`.
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

    /// Computes the attention of all rows over the keys that they see.
    pub fn attend(&mut self, isa: Isa, keys: &mut impl KeySource) {
        let longest = self.context.of(self.total.m.len() - 1);
        for chunk in 0..longest.div_ceil(CHUNK) {
            let state = if chunk == 0 { &mut self.total } else { &mut self.chunk };
            state.reset();
            let first = chunk * CHUNK;
            for b in (first..longest.min(first + CHUNK)).step_by(BLOCK) {
                let rows = QueryRows { q: self.q, context: self.context, setting: self.setting };
                block(isa, rows, keys.block(b / BLOCK), b, state, self.p);
            }
            if chunk > 0 {
                fold(isa, &self.chunk, &mut self.total, self.setting.padded());
            }
        }
        finish(isa, &mut self.total);
    }

    /// Returns the log-sum-exp of every row (natural logarithm, scale included). Valid after [`RowStates::attend`].
    pub fn lse(&self) -> &[f32] {
        self.total.m
    }

    /// Writes the output heads of query row `i`, `group * dim` elements. Valid after [`RowStates::attend`].
    pub fn write<T: Elem>(&self, isa: Isa, i: usize, out: &mut [T]) {
        let (group, padded) = (self.context.group, self.setting.padded());
        let (o, inv) = (&self.total.o[i * group * padded..], &self.total.l[i * group..][..group]);
        normalise(isa, o, padded, inv, self.setting.dim, out);
    }
}

cpu_kernel! {
    /// Copies the first `len` elements of every `stride` elements of `from` to `to`, in f32.
    fn widen_rows<T: Elem>(from: &[T], stride: usize, len: usize, to: &mut [f32]) {
        for (to, from) in to.chunks_exact_mut(len).zip(from.chunks(stride)) {
            lanes::widen(&from[..len], to);
        }
    }
}

/// Query rows and the setting of their attention.
#[derive(Clone, Copy)]
struct QueryRows<'a> {
    q: &'a [f32],
    context: Context,
    setting: Setting,
}

/// Adds one block of keys to the rows' states. `first` is the sequence position of the block's first key.
fn block(isa: Isa, rows: QueryRows<'_>, keys: Keys<'_>, first: usize, state: &mut State<'_>, p: &mut [f32]) {
    let QueryRows { q, context, setting } = rows;
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
    /// Converts scores to probabilities in place, relative to the largest base so far, and updates m and l. Returns the
    /// factors that rescale the rows' outputs. Row r sees the first `visible[r]` keys; the other keys get probability
    /// zero, whatever their score. The function makes several passes over all rows and keeps the lanes in arrays
    /// between them. The horizontal reductions then overlap, and the compiler does not split the lanes of the loops
    /// before them.
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
            // Before its first key, a row has nothing to rescale. If its base does not change, the factor is exactly 1.
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

/// Updates `largest` with the largest score of the visible keys, lane by lane. The other scores become zero. Minus
/// infinity would be slower, because exponentials that underflow are slow; the exponentials of these scores are
/// discarded in any case.
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

/// Replaces p by exp2(p scale - base) for the visible keys and by zero for the others. `sums` becomes their sum before
/// rounding, lane by lane.
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
    /// Multiplies each row of o by its factor.
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
    /// Replaces m by the log-sum-exp and l by its inverse.
    fn finish(total: &mut State<'_>) {
        for (m, l) in total.m.iter_mut().zip(total.l.iter_mut()) {
            *m = m.mul_add(std::f32::consts::LN_2, ln(*l));
            *l = 1.0 / *l;
        }
    }
}

cpu_kernel! {
    /// Computes out = o / l, head by head. Adding zero turns -0 into +0, because the sign of a zero is the only part of
    /// the result that may depend on which rows are computed together.
    fn normalise<T: Elem>(o: &[f32], padded: usize, inv: &[f32], dim: usize, out: &mut [T]) {
        for ((out, o), inv) in out.chunks_exact_mut(dim).zip(o.chunks_exact(padded)).zip(inv) {
            lanes::narrow_scaled(o, *inv, out);
        }
    }
}

/// Runs `f` for each index below `items` on the pool's threads. Each thread has its own `len` elements of `scratch`.
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

/// Converts a row-major block of keys `[n][dim]` and values, with rows `stride` apart, to the layout of [`Keys`]: k
/// `[dim][BLOCK]`, v `[n][padded]`. The columns of k and the rows of v from `n` on are not written.
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

/// Transposes rows `[n][dim]`, `stride` apart, to columns `[dim][BLOCK]`. Sixteen rows are transposed at a time, so
/// that each cache line of the columns is written once and completely.
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
