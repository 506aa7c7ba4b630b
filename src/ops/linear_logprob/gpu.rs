//! Launches of kernels/linear_logprob.cu, and what kernels/sample.cu has in common with them: tiles of 128 columns,
//! each one segment of the fold.

use bytemuck::NoUninit;

use super::logits::{SEGMENT, inverse_temperature, segments};
use super::{Asked, Outs};
use crate::device::{Address, Device, Gpu, Launch, Region};
use crate::error::Result;
use crate::ops::check;
use crate::ops::gemm::{Bodies, Operands, Role, Wide, wide_names};
use crate::ops::matmul::Weight;
use crate::tensor::{DType, Tensor};

/// f32s of `logits::Partial` of kernels/common/logits.cuh: three and a gap, so that they are read at once.
pub(in crate::ops) const PARTIAL: usize = 4;

/// Rows and stages of `TileM16`, `TileM64` and `TileM128` of kernels/common/logits.cuh.
const TILES: [(usize, usize); 3] = [(16, 4), (64, 3), (128, 3)];

/// Launches the tiles over the rows of x and of w: the kernel of `names` whose tile is the shortest that takes all
/// rows at once, else the largest. A row has the same bits from each. `args` begins with the operands. Where the device
/// is told to, by the second body.
pub(in crate::ops) fn launch_tiles<A: NoUninit>(
    op: &'static str,
    gpu: &mut Gpu<'_>,
    file: &'static str,
    names: &Bodies,
    (x, w): (Tensor, &Weight),
    args: &A,
) -> Result<()> {
    const THREADS: u32 = 128;
    const BLOCK_K: usize = 64;
    if let Some(product) = Wide::of(op, gpu, names.role, x, w, w.n, None)? {
        return product.launch(gpu, file, &names.wide, args);
    }
    let (t, n) = (x.rows(), w.n);
    let index = TILES.iter().position(|(rows, _)| t <= *rows).unwrap_or(TILES.len() - 1);
    let (rows, stages) = TILES[index];
    let smem = (stages * (rows + SEGMENT) * BLOCK_K * 2).max(sums_bytes(rows));
    let grid = check::grid(op, t.div_ceil(rows) * segments(n))?;
    gpu.launch(file, names.tiles[index], Launch::new([grid, 1, 1], THREADS, smem), args)
}

/// Bytes of `gemm::Sums` of a tile of `rows` rows.
pub(in crate::ops) fn sums_bytes(rows: usize) -> usize {
    rows * (SEGMENT + 8) * 4
}

/// `logits::Allowed`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(in crate::ops) struct Allowed {
    bitmap: Address,
    vocab: i32,
    pad: i32,
}

impl Allowed {
    /// Ids below `vocab` whose bit is on in `bitmap`, or all.
    pub(in crate::ops) fn new(
        op: &'static str,
        gpu: &Gpu<'_>,
        bitmap: Option<Tensor>,
        vocab: usize,
    ) -> Result<Allowed> {
        Ok(Allowed { bitmap: gpu.ptr_or_null(bitmap), vocab: check::count(op, "ids", vocab)?, pad: 0 })
    }
}

/// `linear_logprob::Args`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    operands: Operands,
    allowed: Allowed,
    targets: Address,
    logit: Address,
    partials: Address,
    scale: f32,
    segments: i32,
}

/// `linear_logprob::FoldArgs`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct FoldArgs {
    partials: Address,
    targets: Address,
    logprob: Address,
    lse: Address,
    entropy: Address,
    rows: i32,
    segments: i32,
    vocab: i32,
    pad: i32,
}

/// Scratch for the partials of `t` rows over `vocab` ids.
pub(super) fn partials(dev: &mut Device, t: usize, vocab: usize) -> Result<Tensor> {
    dev.alloc(Region::Workspace, DType::F32, &[t, segments(vocab) * PARTIAL])
}

/// The forward; shapes as checked by [`super::fwd`].
pub(super) fn fwd(op: &'static str, mut gpu: Gpu<'_>, asked: Asked<'_>, outs: Outs, partials: Tensor) -> Result<()> {
    /// A warp a row.
    const FOLD_THREADS: u32 = 128;
    const NAMES: Bodies = Bodies {
        tiles: ["linear_logprob_m16", "linear_logprob_m64", "linear_logprob_m128"],
        wide: wide_names!("linear_logprob"),
        role: Role::Logits,
    };
    let Asked { hidden, w, allowed, temperature, targets } = asked;
    let Outs { logprob, lse, entropy } = outs;
    let t = hidden.rows();
    let (rows, segments) = (check::count(op, "rows", t)?, segments(w.n) as i32);
    let args = Args {
        operands: Operands::of(op, &gpu, hidden, w)?,
        allowed: Allowed::new(op, &gpu, allowed, w.n)?,
        targets: gpu.ptr(targets),
        // The target's logit waits in `logprob` for the logsumexp.
        logit: gpu.ptr(logprob),
        partials: gpu.ptr(partials),
        scale: inverse_temperature(temperature),
        segments,
    };
    launch_tiles(op, &mut gpu, "linear_logprob", &NAMES, (hidden, w), &args)?;
    let args = FoldArgs {
        partials: gpu.ptr(partials),
        targets: gpu.ptr(targets),
        logprob: gpu.ptr(logprob),
        lse: gpu.ptr(lse),
        entropy: gpu.ptr_or_null(entropy),
        rows,
        segments,
        vocab: w.n as i32,
        pad: 0,
    };
    let grid = check::grid(op, t.div_ceil(FOLD_THREADS as usize / 32))?;
    gpu.launch("linear_logprob", "linear_logprob_fold", Launch::new([grid, 1, 1], FOLD_THREADS, 0), &args)
}
