//! Code shared by training and sampling, so that a sampled token's log-prob is bitwise identical to the trainer's:
//! logits over the allowed ids, their partial sums per segment of 128 columns, and the fold of the segments.

use crate::device::{Isa, Pool, View, cpu_kernel};
use crate::ops::lanes;
use crate::ops::matmul::{self, Cells, Epilogue, PANEL, Product, Tile, Weight};
use crate::tensor::Elem;
use omr_base::math;

/// Columns of one segment, whose sum of exponentials is one partial.
pub const SEGMENT: usize = 4 * PANEL;
/// Number of f32s of one [`Partial`].
pub const PARTIAL: usize = 3;

/// Returns the factor of the logits: 1 / temperature, or 1 for temperature 0, because the log-probs of greedy decoding
/// are those of temperature 1.
pub fn inverse_temperature(temperature: f32) -> f32 {
    if temperature == 0.0 { 1.0 } else { 1.0 / temperature }
}

/// Factors of the logits (see [`inverse_temperature`]).
#[derive(Clone, Copy)]
pub enum Scale<'a> {
    /// One factor for all rows.
    All(f32),
    /// One factor per row.
    Rows(&'a [f32]),
}

impl Scale<'_> {
    /// Returns the factor of row `i`.
    pub fn at(&self, i: usize) -> f32 {
        match self {
            Scale::All(s) => *s,
            Scale::Rows(s) => s[i],
        }
    }
}

/// The allowed ids: those below `vocab`, and set in the bitmap if there is one.
#[derive(Clone, Copy)]
pub struct Allowed<'a> {
    /// Number of columns.
    pub vocab: usize,
    /// Optional bitmap: bit v % 32 of word v / 32 is set if id v is allowed.
    pub bitmap: Option<&'a [u32]>,
}

impl Allowed<'_> {
    /// Returns the 32 bits of panel `p`.
    #[inline(always)]
    pub fn word(&self, p: usize) -> u32 {
        let inside = self.vocab.saturating_sub(p * PANEL);
        let exists = if inside >= PANEL { u32::MAX } else { (1 << inside) - 1 };
        exists & self.bitmap.map_or(u32::MAX, |b| b[p])
    }

    /// Returns the words of `panels` panels from `first` on; the remaining words are zero.
    pub fn words(&self, first: usize, panels: usize) -> [u32; SEGMENT / PANEL] {
        let mut words = [0; SEGMENT / PANEL];
        for (i, word) in words[..panels].iter_mut().enumerate() {
            *word = self.word(first + i);
        }
        words
    }
}

/// Sums over one segment: (m, sum of e^(z - m), sum of e^(z - m) (z - m)), where m is the largest logit.
pub type Partial = [f32; PARTIAL];

/// Epilogue that converts sums to logits z (minus infinity where an id is not allowed) and partials.
pub(in crate::ops) struct Logits<'a> {
    pub allowed: Allowed<'a>,
    pub scale: Scale<'a>,
    /// True if the partials must also support the entropy.
    pub entropy: bool,
    /// Target ids, and the memory for each target's logit, `[rows, 1]`.
    pub targets: Option<(&'a [u32], Cells<'a, f32>)>,
    /// Partials `[rows, segments * PARTIAL]`, written.
    pub partials: Cells<'a, f32>,
    /// Memory for the logits, `[rows, panels * 32]`, if they are stored.
    pub logits: Option<Cells<'a, f32>>,
}

/// Computes the logits of `rows` rows of hidden states. `data` are the views of the weight's data and scales.
pub(in crate::ops) fn multiply<E: Elem>(
    pool: &Pool,
    isa: Isa,
    hidden: View<'_>,
    rows: usize,
    w: &Weight,
    [data, scales]: [View<'_>; 2],
    to: &Logits<'_>,
) {
    matmul::run(pool, isa, &Product::of::<E>(hidden.of(), rows, w, data, scales), to);
}

impl Epilogue for Logits<'_> {
    const UNIT: usize = SEGMENT / PANEL;
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        logits_tile(isa, self, tile);
    }
}

cpu_kernel! {
    fn logits_tile(to: &Logits<'_>, tile: &mut Tile<'_>) {
        let words = to.allowed.words(tile.panel, tile.panels);
        let (first, segment) = (tile.panel * PANEL, tile.panel * PANEL / SEGMENT);
        for i in 0..tile.rows {
            let row = tile.row + i;
            let z = tile.row(i);
            logits_of(z, to.scale.at(row), &words);
            let partial = partial_of(z, to.entropy);
            // SAFETY: one thread finishes each tile's rows and columns, once.
            let out = unsafe { to.partials.piece(row, segment * PARTIAL, PARTIAL) };
            out.copy_from_slice(&partial);
            if let Some((ids, logit)) = &to.targets {
                let column = (ids[row] as usize).wrapping_sub(first);
                if column < z.len() {
                    // SAFETY: the target of a row lies in exactly one tile.
                    let logit = unsafe { logit.piece(row, 0, 1) };
                    logit[0] = z[column];
                }
            }
            if let Some(logits) = &to.logits {
                // SAFETY: one thread finishes each tile's rows and columns, once.
                let out = unsafe { logits.piece(row, first, z.len()) };
                out.copy_from_slice(z);
            }
        }
    }
}

cpu_kernel! {
    /// Converts a row of given sums to logits and partials, as [`Logits`] does. `sums` consists of full panels.
    pub(in crate::ops) fn of_given(sums: &mut [f32], scale: f32, allowed: Allowed<'_>, partials: &mut [f32]) {
        let pieces = sums.chunks_mut(SEGMENT).zip(partials.chunks_exact_mut(PARTIAL));
        for (segment, (z, partial)) in pieces.enumerate() {
            let words = allowed.words(segment * (SEGMENT / PANEL), z.len() / PANEL);
            logits_of(z, scale, &words);
            partial.copy_from_slice(&partial_of(z, false));
        }
    }
}

/// Converts sums to logits: scaled, and minus infinity where a bit of `words` is not set.
#[inline(always)]
pub fn logits_of(sums: &mut [f32], scale: f32, words: &[u32]) {
    for (z, &word) in sums.chunks_exact_mut(PANEL).zip(words) {
        for (j, z) in z.iter_mut().enumerate() {
            *z = if (word >> j) & 1 != 0 { *z * scale } else { f32::NEG_INFINITY };
        }
    }
}

/// Returns the partial of a segment's logits. Its third number is computed only if `entropy` is true.
#[inline(always)]
fn partial_of(z: &[f32], entropy: bool) -> Partial {
    let mut max = [f32::NEG_INFINITY; lanes::LANES];
    for z in z.chunks_exact(lanes::LANES) {
        for j in 0..lanes::LANES {
            max[j] = lanes::larger(max[j], z[j]);
        }
    }
    let m = lanes::max(&max);
    // An id that is not allowed adds nothing, even in a segment with no allowed id, where m is minus infinity too.
    let term = |z: f32| {
        let off = z == f32::NEG_INFINITY;
        let d = if off { 0.0 } else { z - m };
        (d, if off { 0.0 } else { math::exp(d) })
    };
    let (mut sum, mut weighted) = ([0.0; lanes::LANES], [0.0; lanes::LANES]);
    if entropy {
        for z in z.chunks_exact(lanes::LANES) {
            for j in 0..lanes::LANES {
                let (d, e) = term(z[j]);
                sum[j] += e;
                weighted[j] = e.mul_add(d, weighted[j]);
            }
        }
    } else {
        for z in z.chunks_exact(lanes::LANES) {
            for j in 0..lanes::LANES {
                sum[j] += term(z[j]).1;
            }
        }
    }
    [m, lanes::sum(&sum), lanes::sum(&weighted)]
}

/// Combination of one row's segments in ascending order.
#[derive(Clone, Copy, Debug)]
pub struct Fold {
    /// Largest logit.
    pub max: f32,
    sum: f32,
    weighted: f32,
}

impl Fold {
    /// Combines a row's partials, lowest segment first.
    pub fn of(partials: &[f32]) -> Fold {
        let mut fold = Fold { max: f32::NEG_INFINITY, sum: 0.0, weighted: 0.0 };
        for p in partials.chunks_exact(PARTIAL) {
            let (max, sum, weighted) = (p[0], p[1], p[2]);
            if sum == 0.0 {
                continue;
            }
            if fold.sum == 0.0 {
                fold = Fold { max, sum, weighted };
                continue;
            }
            let m = lanes::larger(fold.max, max);
            let (da, db) = (fold.max - m, max - m);
            let (a, b) = (math::exp(da), math::exp(db));
            fold.weighted = a * fold.sum.mul_add(da, fold.weighted) + b * sum.mul_add(db, weighted);
            fold.sum = a.mul_add(fold.sum, b * sum);
            fold.max = m;
        }
        fold
    }

    /// Returns ln of the sum of e^z, or minus infinity if no id is allowed.
    pub fn logsumexp(&self) -> f32 {
        self.max + math::ln(self.sum)
    }

    /// Returns the entropy of softmax(z) in nats. The partials must have been computed with `entropy`.
    pub fn entropy(&self) -> f32 {
        math::ln(self.sum) - self.weighted / self.sum
    }
}

/// Returns the number of segments of `vocab` columns.
pub fn segments(vocab: usize) -> usize {
    vocab.div_ceil(SEGMENT)
}
