//! Gradients of the log-probs and the entropy, for one slab of columns at a time on the CPU, and in waves on a GPU
//! (`waves.rs`).

use super::call::{LogProbCall, ROWS, check_logits, check_targets, checked};
use super::logits::{Allowed, SEGMENT, inverse_temperature, logits_of};
use crate::device::{Cpu, Device, Isa, Parts, Pool, Region, cpu_kernel};
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::dequantize::widened;
use crate::ops::gradient::Gradient;
use crate::ops::matmul::{
    self, Cells, Epilogue, Order, PANEL, Product, Tile, WeightGradient, panel_count, panel_len, panel_stride,
};
use crate::tensor::{DType, Elem, Tensor};
use half::bf16;
use omr_base::error::Result;
use omr_base::math;

/// Columns whose gradients exist at one time, a multiple of [`SEGMENT`]. This is not a power of two, because rows of dZ
/// whose distance is a multiple of 4 KiB are mapped to the same few sets of the L1 cache.
const SLAB: usize = 9 * SEGMENT;

/// Bytes that [`bwd`] reserves on a GPU for the gradients of logits. With waves of 8,192 ids, reading and writing the
/// sums of dhidden between waves costs 3 % of the products' time (8 T D bytes at 4.3 TB/s, 6 T D flops per id at 600
/// TFLOP/s). Such a wave fits for up to 32,768 tokens.
pub const WAVE_BYTES: usize = 512 << 20;
/// Maximum number of ids of a wave.
const WAVE: usize = 8192;

/// Returns the number of ids of a wave on a GPU: a multiple of [`SEGMENT`], at least one segment.
fn wave(t: usize, bytes: usize) -> usize {
    (bytes / size_of::<bf16>() / t.max(1) / SEGMENT * SEGMENT).clamp(SEGMENT, WAVE)
}

/// Tensors of a [`bwd`] call, except those of [`LogProbCall`].
#[derive(Clone, Copy, Debug)]
pub struct Bwd {
    /// Logsumexp of each token, f32 `[T]`, as computed by [`super::fwd`].
    pub lse: Tensor,
    /// Entropies, f32 `[T]`, as computed by [`super::fwd`]; required with `dentropy`.
    pub entropy: Option<Tensor>,
    /// Logits as stored by [`super::fwd`], on the CPU. With `None`, they are computed again; the results are the same.
    pub logits: Option<Tensor>,
    /// Gradient of the loss with respect to the log-probs, f32 `[T]`.
    pub dlog_prob: Tensor,
    /// Gradient of the loss with respect to the entropies, f32 `[T]`.
    pub dentropy: Option<Tensor>,
    /// Gradient of the loss with respect to hidden, `[T, D]` in the same type, overwritten.
    pub dhidden: Tensor,
    /// Gradient of the loss with respect to w. f32, flat, in the device's element order for a weight of hidden's dtype.
    /// `None` if w is frozen.
    pub dw: Option<Gradient>,
}

/// Computes the gradients of [`super::fwd`]. A target of V or more is an error on the CPU. On a GPU, such a target
/// matches no id.
pub fn bwd(dev: &mut Device, logprob_call: LogProbCall<'_>, call: Bwd) -> Result<()> {
    bwd_within(dev, WAVE_BYTES, logprob_call, call)
}

/// Computes [`bwd`] with `bytes` for the gradients of logits on a GPU, or with the memory that 128 ids need if that is
/// more. The value does not affect the bits of the result.
pub fn bwd_within(dev: &mut Device, bytes: usize, logprob_call: LogProbCall<'_>, call: Bwd) -> Result<()> {
    const OP: &str = "linear_logprob::bwd";
    let Bwd { lse, entropy, logits, dlog_prob, dentropy, dhidden, dw } = call;
    let per_token = [("lse", Some(lse)), ("entropy", entropy), ("dlog_prob", Some(dlog_prob)), ("dentropy", dentropy)];
    let dtype = checked(OP, logprob_call, &per_token)?;
    let (t, d, v) = (logprob_call.hidden.rows(), logprob_call.w.k, logprob_call.w.n);
    check_logits(OP, dev, logits, t, v)?;
    check::tensor(OP, "dhidden", dhidden, dtype, &[t, d])?;
    check::optional(OP, "dw", dw.map(|dw| dw.tensor), DType::F32, &[Order::of(dev).len(dtype, v, d)])?;
    check::that(OP, dentropy.is_none() || entropy.is_some(), "entropy together with dentropy", "none")?;
    // The logits, if they were not kept, then dhidden and, unless w is frozen, dw.
    let products = usize::from(logits.is_none()) + 1 + usize::from(dw.is_some());
    let of_dw = dw.map_or(0.0, Gradient::moved);
    let traffic = moved(&[logprob_call.hidden, dhidden]) + logprob_call.w.bytes() + of_dw;
    dev.note_work(OP, products as f64 * 2.0 * t as f64 * (v * d) as f64, traffic);
    widened(dev, logprob_call.w, |dev, w| {
        let dw = dw.map(|dw| dw.of_product(dev, t, d)).transpose()?;
        let call = Backward { logprob_call: LogProbCall { w, ..logprob_call }, call: Bwd { dw, ..call } };
        dev.scope(Region::Workspace, |dev| match dev.kind().is_gpu() {
            true => call.by_waves(OP, dev, wave(t, bytes)),
            false => call.by_slabs(dev, dtype),
        })
    })
}

struct Scratch {
    /// Gradients dZ of one slab `[T, slab]`, rounded.
    dz: Tensor,
    /// Scratch of the weight gradient.
    gradient: Tensor,
    /// Transpose of the weight's slab.
    transposed: Tensor,
    /// Unfinished sums of dhidden over V, `[T, D]` f32.
    sums: Tensor,
}

/// Arguments of the backward call.
pub(super) struct Backward<'a> {
    pub logprob_call: LogProbCall<'a>,
    pub call: Bwd,
}

impl Backward<'_> {
    fn by_slabs(&self, dev: &mut Device, dtype: DType) -> Result<()> {
        let LogProbCall { hidden, w, .. } = self.logprob_call;
        let (t, d, slab) = (hidden.rows(), w.k, SLAB.min(w.n));
        let gradient = |cols| matmul::weight_gradient_scratch(dtype, t, cols, d);
        let scratch = Scratch {
            dz: dev.alloc(Region::Workspace, dtype, &[t, slab])?,
            // With fewer columns, more tokens are processed at a time, so the last slab can need more scratch.
            gradient: dev.alloc(Region::Workspace, dtype, &[gradient(slab).max(gradient(w.n % SLAB))])?,
            transposed: dev.alloc(Region::Workspace, dtype, &[panel_len(dtype, d, slab)])?,
            sums: dev.alloc(Region::Workspace, DType::F32, &[t, d])?,
        };
        dev.on().run(|cpu| by_dtype!(dtype, on_cpu(cpu, self, &scratch)), |_| Ok(()))
    }
}

fn on_cpu<E: Elem>(cpu: Cpu<'_>, of: &Backward<'_>, s: &Scratch) -> Result<()> {
    let Cpu { memory, pool, isa } = cpu;
    let LogProbCall { hidden, w, allowed, temperature, targets } = of.logprob_call;
    let Bwd { lse, entropy, logits, dlog_prob, dentropy, dhidden, dw } = of.call;
    let (t, d, v, none) = (hidden.rows(), w.k, w.n, lse.slice(0, 0));
    let [bitmap, entropy, slopes, stored] = [allowed, entropy, dentropy, logits].map(|t| t.unwrap_or(none));
    let outs = [dhidden, dw.map_or(none, |dw| dw.tensor), s.dz, s.gradient, s.transposed, s.sums];
    let ins = [hidden, w.data, targets, bitmap, lse, entropy, dlog_prob, slopes, stored];
    let trains = dw.is_some();
    let ([dhidden, dw, dz, gradient, transposed, sums], views) = memory.tensors(outs, ins);
    let [hidden, w, targets, bitmap, lse, entropy, dlog_prob, slopes, stored] = views;
    let logits = logits.map(|_| stored.of::<f32>());
    let (hidden, w, targets) = (hidden.of::<E>(), w.of::<E>(), targets.of::<u32>());
    let (dw, dz, gradient, transposed) = (dw.of::<f32>(), dz.of::<E>(), gradient.of::<E>(), transposed.of::<E>());
    let sums = sums.of::<f32>();
    check_targets("linear_logprob::bwd", targets, v)?;
    if t == 0 || d == 0 {
        return Ok(());
    }
    sums.fill(0.0);
    let stride = panel_stride(E::DTYPE, d);
    for first in (0..v).step_by(SLAB) {
        let cols = SLAB.min(v - first);
        let panels = first / PANEL * stride..(first / PANEL + panel_count(cols)) * stride;
        let slab = &w[panels.clone()];
        let dz = &mut dz[..t * cols];
        let epilogue = LogitGradient {
            allowed: Allowed { vocab: v, bitmap: allowed.map(|_| bitmap.of()) },
            scale: inverse_temperature(temperature),
            first,
            targets,
            lse: lse.of(),
            dlog_prob: dlog_prob.of(),
            entropy: dentropy.map(|_| (entropy.of(), slopes.of())),
            finished: logits.is_some(),
            dz: Cells::new(&mut *dz, cols),
        };
        match logits {
            Some(logits) => epilogue.of_logits(pool, isa, logits),
            None => matmul::run(pool, isa, &Product::rows(hidden, t, d, slab, cols), &epilogue),
        }

        if trains {
            let (dw, scratch) = (&mut dw[panels], &mut *gradient);
            let call = WeightGradient { x: hidden, k: d, dy: dz, n: cols, dw, dbias: None, scratch };
            matmul::weight_gradient(pool, isa, call);
        }

        let transposed = &mut transposed[..panel_len(E::DTYPE, d, cols)];
        matmul::transpose(pool, isa, slab, cols, d, transposed);
        let resume = ResumedSums { sums: Cells::new(&mut *sums, d) };
        matmul::run(pool, isa, &Product::rows(dz, t, cols, transposed, d), &resume);
    }
    let parts = Parts::new(dhidden.of::<E>(), ROWS * d);
    pool.run(parts.count(), |i| {
        let out = parts.take(i);
        let at = i * ROWS * d;
        round_all::<E>(isa, &sums[at..at + out.len()], out);
    });
    Ok(())
}

cpu_kernel! {
    fn round_all<E: Elem>(x: &[f32], out: &mut [E]) {
        matmul::store(x, out);
    }
}

/// Epilogue that computes dZ of one slab from the logits' sums.
struct LogitGradient<'a, E> {
    allowed: Allowed<'a>,
    scale: f32,
    /// First column of the slab.
    first: usize,
    targets: &'a [u32],
    lse: &'a [f32],
    dlog_prob: &'a [f32],
    /// Entropies and their gradients.
    entropy: Option<(&'a [f32], &'a [f32])>,
    /// True if tiles have logits in place of sums.
    finished: bool,
    /// Output `[T, slab]`.
    dz: Cells<'a, E>,
}

impl<E: Elem> LogitGradient<'_, E> {
    /// Computes the slab from the logits `[T, panels * 32]` of all columns.
    fn of_logits(&self, pool: &Pool, isa: Isa, logits: &[f32]) {
        let (rows, width) = (self.targets.len(), panel_count(self.allowed.vocab) * PANEL);
        pool.run(rows.div_ceil(ROWS), |job| {
            let mut z = [0.0; SEGMENT];
            for row in job * ROWS..rows.min((job + 1) * ROWS) {
                for panel in (0..panel_count(self.dz.cols())).step_by(SEGMENT / PANEL) {
                    let panels = (panel_count(self.dz.cols()) - panel).min(SEGMENT / PANEL);
                    let (at, sums) = (row * width + self.first + panel * PANEL, &mut z[..panels * PANEL]);
                    sums.copy_from_slice(&logits[at..at + sums.len()]);
                    self.finish(isa, &mut Tile { row, rows: 1, panel, panels, sums, stride: SEGMENT });
                }
            }
        });
    }
}

impl<E: Elem> Epilogue for LogitGradient<'_, E> {
    fn prefetch(&self, tile: &Tile<'_>) {
        self.dz.prefetch_tile(tile);
    }
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        let (col, cols) = tile.columns(self.dz.cols());
        let words = self.allowed.words(self.first / PANEL + tile.panel, tile.panels);
        for i in 0..tile.rows {
            let row = tile.row + i;
            let (entropy, dentropy) = self.entropy.map_or((0.0, 0.0), |(h, dh)| (h[row], dh[row]));
            let token =
                Token { scale: self.scale, lse: self.lse[row], dlog_prob: self.dlog_prob[row], entropy, dentropy };
            // SAFETY: one thread finishes each tile's rows and columns, once.
            let dz = unsafe { self.dz.piece(row, col, cols) };
            let target = (self.targets[row] as usize).wrapping_sub(self.first + col);
            gradient_row::<E>(isa, tile.row(i), token, &words, self.finished, target, dz);
        }
    }
}

#[derive(Clone, Copy)]
struct Token {
    scale: f32,
    lse: f32,
    dlog_prob: f32,
    entropy: f32,
    dentropy: f32,
}

cpu_kernel! {
    /// Computes dz = (dlog_prob (`1[target]` - p) - dentropy p (ln p + entropy)) / temperature.
    fn gradient_row<E: Elem>(
        z: &mut [f32], token: Token, words: &[u32], finished: bool, target: usize, dz: &mut [E],
    ) {
        if !finished {
            logits_of(z, token.scale, words);
        }
        for z in z.iter_mut() {
            let off = *z == f32::NEG_INFINITY;
            let ln_p = if off { 0.0 } else { *z - token.lse };
            let p = if off { 0.0 } else { math::exp(ln_p) };
            let slope = token.dentropy.mul_add(ln_p + token.entropy, token.dlog_prob);
            *z = -p * slope;
        }
        if target < dz.len() && words[target / PANEL] >> (target % PANEL) & 1 != 0 {
            z[target] += token.dlog_prob;
        }
        for (&z, dz) in z.iter().zip(dz) {
            *dz = E::from_f32(z * token.scale);
        }
    }
}

/// Epilogue for sums that continue over several products. Each product starts from the values in `sums` `[rows, n]` f32
/// and stores its results there.
struct ResumedSums<'a> {
    sums: Cells<'a, f32>,
}

impl<'a> ResumedSums<'a> {
    /// Returns the columns of row `i` of the tile.
    fn piece(&self, tile: &Tile<'_>, i: usize) -> &'a mut [f32] {
        let (col, cols) = tile.columns(self.sums.cols());
        // SAFETY: one thread starts and finishes a tile, and no other tile contains its elements.
        unsafe { self.sums.piece(tile.row + i, col, cols) }
    }
}

impl Epilogue for ResumedSums<'_> {
    const START: bool = true;
    fn start(&self, _isa: Isa, tile: &mut Tile<'_>) {
        for i in 0..tile.rows {
            let sums = self.piece(tile, i);
            let row = tile.row(i);
            row[..sums.len()].copy_from_slice(sums);
            row[sums.len()..].fill(0.0);
        }
    }
    fn finish(&self, _isa: Isa, tile: &mut Tile<'_>) {
        for i in 0..tile.rows {
            let sums = self.piece(tile, i);
            sums.copy_from_slice(&tile.row(i)[..sums.len()]);
        }
    }
}
