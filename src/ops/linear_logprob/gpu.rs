//! Launches of kernels/linear_logprob.cu, and code shared with the launches of kernels/sample.cu: tiles of 128 columns,
//! each of which is one segment of the fold.

use super::call::{LogProbCall, Outs};
use super::logits::{SEGMENT, inverse_temperature, segments};
use crate::device::{Gpu, Params, params};
use crate::error::Result;
use crate::ops::check;
use crate::ops::gemm::{KernelNames, Role, Wide, kernel_names, operands};
use crate::ops::matmul::Weight;
use crate::tensor::Tensor;

/// Number of f32s of `logits::Partial` of kernels/common/logits.cuh: three and one of padding, so that one access reads
/// them all.
pub(in crate::ops) const PARTIAL: usize = 4;

/// Rows and stages of `TileM16`, `TileM64` and `TileM128` of kernels/common/logits.cuh.
const TILES: [(usize, usize); 3] = [(16, 4), (64, 3), (128, 3)];

/// Launches the tiles over the rows of x and of w. It selects the kernel of `names` with the shortest tile that covers
/// all rows, or else with the largest tile. All of these kernels give the same bits for a row. `args` starts with the
/// operands. If the device is set to use wgmma, the wgmma kernel runs instead.
pub(in crate::ops) fn launch_tiles(
    gpu: &mut Gpu<'_>,
    file: &'static str,
    names: &KernelNames,
    x: Tensor,
    w: &Weight,
    args: Params,
) -> Result<()> {
    const THREADS: usize = 128;
    const BLOCK_K: usize = 64;
    if let Some(product) = Wide::of(gpu, names.role, x, w, w.n, None)? {
        return product.launch(gpu, file, &names.wide, args);
    }
    let (t, n) = (x.rows(), w.n);
    let index = TILES.iter().position(|(rows, _)| t <= *rows).unwrap_or(TILES.len() - 1);
    let (rows, stages) = TILES[index];
    let smem = (stages * (rows + SEGMENT) * BLOCK_K * 2).max(sums_bytes(rows));
    let launch = check::launch(gpu.op, t.div_ceil(rows) * segments(n), THREADS, smem)?;
    gpu.launch(file, names.tiles[index], launch, args)
}

/// Returns the bytes of `gemm::Sums` for a tile of `rows` rows.
pub(in crate::ops) fn sums_bytes(rows: usize) -> usize {
    rows * (SEGMENT + 8) * 4
}

/// Returns the kernel argument for the allowed ids: those below `vocab`, and set in `bitmap` if there is one.
pub(in crate::ops) fn allowed(op: &'static str, bitmap: Option<Tensor>, vocab: usize) -> Result<Params> {
    Ok(params!(logits::Allowed { bitmap, vocab: check::count(op, "ids", vocab)? }))
}

/// Launches the forward. [`super::fwd`] has checked the shapes.
pub(super) fn fwd(mut gpu: Gpu<'_>, logprob_call: LogProbCall<'_>, outs: Outs, partials: Tensor) -> Result<()> {
    /// Threads of a CTA of the fold, in which each warp handles one row.
    const FOLD_THREADS: usize = 128;
    const NAMES: KernelNames = kernel_names!("linear_logprob", Role::Logits);
    let (LogProbCall { hidden, w, temperature, targets, .. }, Outs { log_prob, lse, entropy, .. }) =
        (logprob_call, outs);
    let (rows, segments) = (check::count(gpu.op, "rows", hidden.rows())?, segments(w.n) as i32);
    let out = params!(Segment::Args {
        allowed: allowed(gpu.op, logprob_call.allowed, w.n)?,
        targets,
        // `log_prob` holds the target's logit until the logsumexp is known.
        logit: log_prob,
        partials,
        scale: inverse_temperature(temperature),
        segments,
    });
    let args = operands(gpu.op, hidden, w)?.with(out);
    launch_tiles(&mut gpu, "linear_logprob", &NAMES, hidden, w, args)?;
    let vocab = w.n as i32;
    let args =
        params!(linear_logprob::FoldArgs { partials, targets, logprob: log_prob, lse, entropy, rows, segments, vocab });
    let launch = check::launch(gpu.op, hidden.rows().div_ceil(FOLD_THREADS / 32), FOLD_THREADS, 0)?;
    gpu.launch("linear_logprob", "linear_logprob_fold", launch, args)
}
