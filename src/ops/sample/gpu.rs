//! Launches of kernels/sample.cu.

use bytemuck::NoUninit;

use super::Outs;
use crate::device::{Address, Device, Gpu, Launch, On, Region};
use crate::error::Result;
use crate::ops::check;
use crate::ops::gemm::{Bodies, Operands, Role, wide_names};
use crate::ops::linear_logprob::gpu::{Allowed, PARTIAL, launch_tiles, sums_bytes};
use crate::ops::linear_logprob::logits::{SEGMENT, segments};
use crate::ops::matmul::Weight;
use crate::tensor::{DType, Tensor};

/// `sample::Segment::Args`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Epilogue {
    allowed: Allowed,
    rows: Address,
    logits: Address,
    partials: Address,
    winners: Address,
    segments: i32,
    pad: i32,
}

/// `sample::Args`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    operands: Operands,
    epilogue: Epilogue,
}

/// `sample::GivenArgs`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct GivenArgs {
    sums: Address,
    rows: i32,
    cols: i32,
    epilogue: Epilogue,
}

/// `sample::TokenArgs`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct TokenArgs {
    rows: Address,
    logits: Address,
    partials: Address,
    winners: Address,
    ids: Address,
    logprobs: Address,
    segments: i32,
    pad: i32,
}

/// What lies between a row's logits and its token.
#[derive(Clone, Copy)]
struct Scratch {
    logits: Tensor,
    partials: Tensor,
    winners: Tensor,
}

impl Scratch {
    /// For `b` rows over `vocab` ids.
    fn alloc(dev: &mut Device, b: usize, vocab: usize) -> Result<Scratch> {
        let mut take = |columns| dev.alloc(Region::Workspace, DType::F32, &[b, segments(vocab) * columns]);
        // A winner is score, logit, id and a gap.
        Ok(Scratch { logits: take(SEGMENT)?, partials: take(PARTIAL)?, winners: take(4)? })
    }

    fn epilogue(
        &self,
        op: &'static str,
        gpu: &Gpu<'_>,
        allowed: Option<Tensor>,
        vocab: usize,
        rows: Tensor,
    ) -> Result<Epilogue> {
        Ok(Epilogue {
            allowed: Allowed::new(op, gpu, allowed, vocab)?,
            rows: gpu.ptr(rows),
            logits: gpu.ptr(self.logits),
            partials: gpu.ptr(self.partials),
            winners: gpu.ptr(self.winners),
            segments: segments(vocab) as i32,
            pad: 0,
        })
    }

    /// The second kernel: tokens and log-probs.
    fn tokens(&self, op: &'static str, gpu: &mut Gpu<'_>, vocab: usize, rows: Tensor, outs: Outs) -> Result<()> {
        const THREADS: usize = 512;
        /// `sample::Smem`: four bins of sums and counts a thread and their totals; a winner a warp; the fold.
        const SMEM: usize = (4 * THREADS + 4) * (8 + 4) + THREADS / 32 * 12 + 8;
        let args = TokenArgs {
            rows: gpu.ptr(rows),
            logits: gpu.ptr(self.logits),
            partials: gpu.ptr(self.partials),
            winners: gpu.ptr(self.winners),
            ids: gpu.ptr(outs.ids),
            logprobs: gpu.ptr(outs.logprobs),
            segments: segments(vocab) as i32,
            pad: 0,
        };
        let grid = check::grid(op, rows.rows())?;
        gpu.launch("sample", "sample_tokens", Launch::new([grid, 1, 1], THREADS as u32, SMEM), &args)
    }
}

/// The draw from hidden states, on a GPU or where one is counted for.
pub(super) fn fwd(
    op: &'static str,
    dev: &mut Device,
    hidden: Tensor,
    w: &Weight,
    allowed: Option<Tensor>,
    rows: Tensor,
    outs: Outs,
) -> Result<()> {
    const NAMES: Bodies = Bodies {
        tiles: ["sample_logits_m16", "sample_logits_m64", "sample_logits_m128"],
        wide: wide_names!("sample_logits"),
        role: Role::Logits,
    };
    on_scratch(dev, hidden.rows(), w.n, |gpu, scratch| {
        let epilogue = scratch.epilogue(op, gpu, allowed, w.n, rows)?;
        let args = Args { operands: Operands::of(op, gpu, hidden, w)?, epilogue };
        launch_tiles(op, gpu, "sample", &NAMES, (hidden, w), &args)?;
        scratch.tokens(op, gpu, w.n, rows, outs)
    })
}

/// The draw from given sums [B, V].
pub(super) fn given(
    op: &'static str,
    dev: &mut Device,
    sums: Tensor,
    allowed: Option<Tensor>,
    rows: Tensor,
    outs: Outs,
) -> Result<()> {
    const THREADS: u32 = 128;
    const TILE: usize = 16;
    let (b, vocab) = (sums.rows(), sums.cols());
    on_scratch(dev, b, vocab, |gpu, scratch| {
        let args = GivenArgs {
            sums: gpu.ptr(sums),
            rows: check::count(op, "rows", b)?,
            cols: check::count(op, "ids", vocab)?,
            epilogue: scratch.epilogue(op, gpu, allowed, vocab, rows)?,
        };
        let grid = [check::grid(op, segments(vocab))?, check::grid(op, b.div_ceil(TILE))?, 1];
        gpu.launch("sample", "sample_given", Launch::new(grid, THREADS, sums_bytes(TILE)), &args)?;
        scratch.tokens(op, gpu, vocab, rows, outs)
    })
}

/// Runs `launches` where kernels run, with scratch for `b` rows over `vocab` ids.
fn on_scratch(
    dev: &mut Device,
    b: usize,
    vocab: usize,
    launches: impl FnOnce(&mut Gpu<'_>, Scratch) -> Result<()>,
) -> Result<()> {
    let mark = dev.mark(Region::Workspace);
    let scratch = Scratch::alloc(dev, b, vocab)?;
    let done = match dev.on() {
        On::Gpu(mut gpu) => launches(&mut gpu, scratch),
        On::Count | On::Cpu(_) => Ok(()),
    };
    dev.release(mark);
    done
}
