//! Launches of kernels/linear_logprob.cu, and code shared with the launches of kernels/sample.cu: tiles of 128 columns,
//! each of which is one segment of the fold.

use super::call::{LogProbCall, Outs};
use super::logits::{SEGMENT, inverse_temperature, segments};
use crate::device::{Gpu, Params, params};
use crate::ops::check;
use crate::ops::gemm::{KernelNames, Role, Tile, Wide, kernel_names, operands};
use crate::ops::matmul::Weight;
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Number of f32s of `logits::Partial` of kernels/common/logits.cuh: three and one of padding, so that one access reads
/// them all.
pub(in crate::ops) const PARTIAL: usize = 4;

/// Launches the tiles over the rows of x and of w, with the kernel of `names` for [`Tile::logits`]. All of these kernels
/// give the same bits for a row. `args` starts with the operands. If the device is set to use wgmma, the wgmma kernel
/// runs instead.
pub(in crate::ops) fn launch_tiles(
    gpu: &mut Gpu<'_>,
    file: &'static str,
    names: &KernelNames,
    x: Tensor,
    w: &Weight,
    args: Params,
) -> Result<()> {
    if let Some(product) = Wide::of(gpu, names.wide(file), x, w, w.n, None)? {
        return product.launch(gpu, args);
    }
    let tile = Tile::logits(x.rows());
    let launch = tile.launch(gpu.op, x.rows(), w.n)?;
    gpu.launch(file, names.tiles[tile.index], launch, args)
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
    gpu.launch("linear_logprob", "linear_logprob_fold", check::by_warps(gpu.op, hidden.rows())?, args)
}
