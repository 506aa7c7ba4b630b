//! Parts that the norms of rows share: sizes of work items, launches, and the last sum of the weights' gradients.

use crate::device::{Gpu, Isa, Params, Parts, Pool};
use crate::ops::{check, lanes};
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Rows of one work item and of one partial sum of the weights' gradients. Changing this changes the bits of these.
pub const ROWS: usize = 64;

/// Threads of a CTA in kernels/common/norm_rows.cuh, where each warp handles one row.
const THREADS: usize = 128;

/// Elements of one access in kernels/common/norm_rows.cuh.
pub const VECTOR: usize = 8;

/// Columns of one work item of the last sum of the partial sums.
const COLS: usize = 1024;

/// Returns the numbers of rows and columns. Returns an error unless the kernels support `x`.
pub fn gpu_shape(op: &'static str, x: Tensor) -> Result<(i32, i32)> {
    check::gpu_compute(op, x.dtype)?;
    let whole = x.cols().is_multiple_of(VECTOR);
    check::that(op, whole, "a multiple of 8 columns on a GPU", x.cols().to_string())?;
    Ok((check::count(op, "rows", x.rows())?, check::count(op, "columns", 2 * x.cols())? / 2))
}

/// Launches two kernels for `weights` gradients of weights: the first sums over chunks of the rows of `x`, the second over
/// the chunks.
pub fn launch_weights(
    gpu: &mut Gpu<'_>,
    [file, chunks, last]: [&'static str; 3],
    args: Params,
    x: Tensor,
    weights: usize,
) -> Result<()> {
    let mut by_chunks = check::launch(gpu.op, x.rows().div_ceil(ROWS), THREADS, 0)?;
    by_chunks.grid[1] = check::grid(gpu.op, x.cols().div_ceil(THREADS * VECTOR))?;
    gpu.launch(file, chunks, by_chunks, args.clone())?;
    gpu.launch(file, last, check::launch(gpu.op, (weights * x.cols()).div_ceil(THREADS), THREADS, 0)?, args)
}

/// Adds the partial sums, `[blocks][width]`, from column `from` on to a weight's gradient, in ascending order of the blocks.
pub fn add_partials(isa: Isa, pool: &Pool, partials: &[f32], width: usize, from: usize, gradient: &mut [f32]) {
    let parts = Parts::new(gradient, COLS);
    pool.run(parts.count(), |i| {
        let sums = parts.take(i);
        for block in partials.chunks_exact(width) {
            lanes::add(isa, &block[from + i * COLS..][..sums.len()], sums);
        }
    });
}
