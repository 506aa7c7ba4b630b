//! Learned position embeddings, resampled: a weighted sum of four rows of a table is added to each row.

use crate::device::{Cpu, Device, Gpu, Launch, Parts, cpu_kernel, params};
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::embedding::add_rows;
use crate::ops::matmul::{Order, Weight, index, row_stride};
use crate::ops::rows::{Segments, check_indices};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Rows of one work item.
const ROWS: usize = 32;

/// Table rows that are added to each row: four taps.
#[derive(Clone, Copy, Debug)]
pub struct Taps {
    /// Table row of each tap, u32 `[T, 4]`.
    pub indices: Tensor,
    /// Weight of each tap, f32 `[T, 4]`.
    pub weights: Tensor,
    /// Made from `indices`, for backward on a GPU.
    pub segments: Segments,
}

/// Adds the sum over t of `weights[n][t] * table[indices[n][t]]`, rounded to x's type, to row n of x `[T, k]`, in place.
/// `table` is `[n, k]` in x's type. Returns an error for other shapes and for an index of n or more. On a GPU such an
/// index gives a row of NaN instead.
pub fn fwd(dev: &mut Device, x: Tensor, table: &Weight, taps: &Taps) -> Result<()> {
    const OP: &str = "pos_embed::fwd";
    let dtype = check::weight(OP, table, table.n, table.k)?;
    check::tensor(OP, "x", x, dtype, &[x.rows(), table.k])?;
    check_taps(OP, taps, x)?;
    dev.note_work("pos_embed", 0.0, 6.0 * moved(&[x]));
    dev.op(OP).run(
        |cpu| check_indices(OP, &cpu, taps.indices, table.n).map(|()| by_dtype!(dtype, forward(cpu, x, table, taps))),
        |mut gpu| {
            check::gpu_compute(OP, dtype)?;
            let args = params!(pos_embed::Args {
                indices: taps.indices,
                weights: taps.weights,
                table: table.data,
                x,
                rows: check::count(OP, "rows", x.rows())?,
                k: check::count(OP, "columns", table.k)?,
                ld: check::count(OP, "columns", row_stride(table.k))?,
                n: check::count(OP, "table rows", table.n)?,
            });
            gpu.launch("pos_embed", "pos_embed_fwd", check::by_warps(OP, x.rows())?, args)
        },
    )
}

fn check_taps(op: &'static str, taps: &Taps, x: Tensor) -> Result<()> {
    check::count(op, "taps", 4 * x.rows())?;
    check::tensor(op, "indices", taps.indices, DType::U32, &[x.rows(), 4])?;
    check::tensor(op, "weights", taps.weights, DType::F32, &[x.rows(), 4])
}

fn forward<T: Elem>(cpu: Cpu<'_>, x: Tensor, table: &Weight, taps: &Taps) {
    let k = table.k;
    let ([x], [indices, weights, table]) = cpu.memory.tensors([x], [taps.indices, taps.weights, table.data]);
    let (indices, weights, table) = (indices.of::<u32>(), weights.of::<f32>(), table.of::<T>());
    let x = Parts::new(x.of::<T>(), ROWS * k);
    cpu.pool.run(x.count(), |i| {
        add_taps::<T>(cpu.isa, x.take(i), k, &indices[4 * ROWS * i..], &weights[4 * ROWS * i..], table);
    });
}

cpu_kernel! {
    /// Adds the taps to the rows of x `[rows][k]`.
    fn add_taps<T: Elem>(x: &mut [T], k: usize, indices: &[u32], weights: &[f32], table: &[T]) {
        for (x, (tap, w)) in x.chunks_exact_mut(k).zip(indices.chunks_exact(4).zip(weights.chunks_exact(4))) {
            for (column, x) in x.iter_mut().enumerate() {
                let at = |t: usize| table[index(T::DTYPE, k, tap[t] as usize, column)].to_f32();
                let sum = w[3].mul_add(at(3), w[2].mul_add(at(2), w[1].mul_add(at(1), w[0] * at(0))));
                *x = T::from_f32(x.to_f32() + T::from_f32(sum).to_f32());
            }
        }
    }
}

/// Adds `weights[n][t] * dy[n]` to row `indices[n][t]` of dtable, for equal indices in ascending (n, t). dy is `[T, k]`,
/// and dtable is f32 in the element order of a weight of dy's type with k columns. The gradient of x is dy. Returns an
/// error for other shapes and for an index past dtable's rows. On a GPU such an index adds nothing instead.
pub fn bwd(dev: &mut Device, dy: Tensor, taps: &Taps, dtable: Tensor) -> Result<()> {
    const OP: &str = "pos_embed::bwd";
    check::compute(OP, "dy", dy)?;
    check_taps(OP, taps, dy)?;
    let order = Order::of(dev);
    let (rows, stride) = order.piece(dy.dtype, dy.cols());
    let n = dtable.len() / stride.max(1) * rows;
    check::flat(OP, "dtable", dtable, DType::F32, order.len(dy.dtype, n, dy.cols()))?;
    dev.note_work(OP, 0.0, 4.0 * moved(&[dy]) + 2.0 * moved(&[dtable]));
    let checked = |cpu: &Cpu<'_>| check_indices(OP, cpu, taps.indices, n);
    dev.op(OP).run(
        |cpu| {
            checked(&cpu).map(|()| by_dtype!(dy.dtype, add_rows(cpu, taps.indices, Some(taps.weights), dy, n, dtable)))
        },
        |gpu| launch_bwd(gpu, dy, taps, dtable, n),
    )
}

fn launch_bwd(mut gpu: Gpu<'_>, dy: Tensor, taps: &Taps, dtable: Tensor, n: usize) -> Result<()> {
    const THREADS: usize = 128;
    /// Columns of a thread.
    const COLUMNS: usize = 8;
    let Taps { weights, segments, .. } = *taps;
    check::gpu_compute(gpu.op, dy.dtype)?;
    check::tensor(gpu.op, "positions", segments.positions, DType::U32, &[4 * dy.rows()])?;
    let args = params!(pos_embed::BwdArgs {
        positions: segments.positions,
        ids: segments.ids,
        weights,
        dy,
        dtable,
        taps: 4 * dy.rows() as i32,
        segments: segments.count as i32,
        k: check::count(gpu.op, "columns", dy.cols())?,
        ld: check::count(gpu.op, "columns", row_stride(dy.cols()))?,
        n: check::count(gpu.op, "table rows", n)?,
    });
    let grid = [check::grid(gpu.op, segments.count)?, dy.cols().div_ceil(THREADS * COLUMNS) as u32, 1];
    gpu.launch("pos_embed", "pos_embed_bwd", Launch::new(grid, THREADS as u32, 0), args)
}
