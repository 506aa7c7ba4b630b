//! Launches of kernels/sample.cu.

use super::draw::Outs;
use crate::device::{Device, Gpu, Launch, Params, Region, params};
use crate::ops::check;
use crate::ops::gemm::{KernelNames, Role, kernel_names, operands};
use crate::ops::linear_logprob::gpu::{PARTIAL, allowed, launch_tiles, sums_bytes};
use crate::ops::linear_logprob::logits::{SEGMENT, segments};
use crate::ops::matmul::Weight;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Intermediate results between a row's logits and its token.
#[derive(Clone, Copy)]
struct Scratch {
    logits: Tensor,
    partials: Tensor,
    winners: Tensor,
}

impl Scratch {
    /// Allocates the scratch for `b` rows over `vocab` ids. Logits that the caller keeps are in the caller's memory.
    fn alloc(dev: &mut Device, b: usize, vocab: usize, logits: Option<Tensor>) -> Result<Scratch> {
        let mut take = |columns| dev.alloc(Region::Workspace, DType::F32, &[b, segments(vocab) * columns]);
        let logits = logits.map_or_else(|| take(SEGMENT), Ok)?;
        // A winner is a score, a logit, an id and 4 bytes of padding.
        Ok(Scratch { logits, partials: take(PARTIAL)?, winners: take(4)? })
    }

    /// Returns the kernel arguments for the segments of a row's logits.
    fn segments(&self, op: &'static str, bitmap: Option<Tensor>, vocab: usize, rows: Tensor) -> Result<Params> {
        let &Scratch { logits, partials, winners } = self;
        let (allowed, segments) = (allowed(op, bitmap, vocab)?, segments(vocab) as i32);
        Ok(params!(Segment::Args { allowed, rows, logits, partials, winners, segments }))
    }

    /// Launches the second kernel, which computes tokens and log-probs.
    fn tokens(&self, gpu: &mut Gpu<'_>, vocab: usize, rows: Tensor, outs: Outs) -> Result<()> {
        const THREADS: usize = 512;
        /// Bytes of `sample::Smem`: four bins of sums and counts per thread and their totals, one winner per warp, and
        /// the fold.
        const SMEM: usize = (4 * THREADS + 4) * (8 + 4) + THREADS / 32 * 12 + 8;
        let (&Scratch { logits, partials, winners }, Outs { ids, logprobs, .. }) = (self, outs);
        let (launch, segments) = (check::launch(gpu.op, rows.rows(), THREADS, SMEM)?, segments(vocab) as i32);
        let args = params!(sample::TokenArgs { rows, logits, partials, winners, ids, logprobs, segments });
        gpu.launch("sample", "sample_tokens", launch, args)
    }
}

/// Samples from hidden states on a GPU, or only allocates on a device that counts memory.
pub(super) fn fwd(
    op: &'static str,
    dev: &mut Device,
    hidden: Tensor,
    w: &Weight,
    bitmap: Option<Tensor>,
    rows: Tensor,
    outs: Outs,
) -> Result<()> {
    const NAMES: KernelNames = kernel_names!("sample_logits", Role::Logits);
    on_scratch(op, dev, hidden.rows(), w.n, outs.logits, |gpu, scratch| {
        let args = operands(op, hidden, w)?.with(scratch.segments(op, bitmap, w.n, rows)?);
        launch_tiles(gpu, "sample", &NAMES, hidden, w, args)?;
        scratch.tokens(gpu, w.n, rows, outs)
    })
}

/// Samples from given sums `[B, V]`.
pub(super) fn given(
    op: &'static str,
    dev: &mut Device,
    sums: Tensor,
    bitmap: Option<Tensor>,
    table: Tensor,
    outs: Outs,
) -> Result<()> {
    const THREADS: u32 = 128;
    const TILE: usize = 16;
    let (b, vocab) = (sums.rows(), sums.cols());
    on_scratch(op, dev, b, vocab, outs.logits, |gpu, scratch| {
        let out = scratch.segments(op, bitmap, vocab, table)?;
        let (rows, cols) = (check::count(op, "rows", b)?, check::count(op, "ids", vocab)?);
        let args = params!(sample::GivenArgs { sums, rows, cols, out });
        let grid = [check::grid(op, segments(vocab))?, check::grid(op, b.div_ceil(TILE))?, 1];
        gpu.launch("sample", "sample_given", Launch::new(grid, THREADS, sums_bytes(TILE)), args)?;
        scratch.tokens(gpu, vocab, table, outs)
    })
}

/// Runs `launches` with scratch for `b` rows over `vocab` ids. On a device that only counts memory, it allocates
/// the scratch without running them.
fn on_scratch(
    op: &'static str,
    dev: &mut Device,
    b: usize,
    vocab: usize,
    logits: Option<Tensor>,
    launches: impl FnOnce(&mut Gpu<'_>, Scratch) -> Result<()>,
) -> Result<()> {
    dev.scope(Region::Workspace, |dev| {
        let scratch = Scratch::alloc(dev, b, vocab, logits)?;
        dev.op(op).run(|_| (), |mut gpu| launches(&mut gpu, scratch))
    })
}
