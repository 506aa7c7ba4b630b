//! Token embedding: reads rows of the token table, and adds gradients to its rows.

use crate::device::{Cpu, Device, Gpu, Launch, Parts, cpu_kernel, params};
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::matmul::{Order, PANEL, Weight, index, panel_stride, row_stride};
use crate::ops::rows::{Groups, Segments, check_indices};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Rows of one work item.
const ROWS: usize = 32;

/// Sets `y[t]` to row `ids[t]` of the weight `w` `[n, k]`. ids is u32 `[T]`, and y is `[T, k]` in w's type. Returns an
/// error for other shapes and for an id of n or more. On a GPU such an id gives a row of NaN instead.
pub fn fwd(dev: &mut Device, ids: Tensor, w: &Weight, y: Tensor) -> Result<()> {
    const OP: &str = "embedding::fwd";
    let dtype = check::weight(OP, w, w.n, w.k)?;
    check::tensor(OP, "ids", ids, DType::U32, &[y.rows()])?;
    check::tensor(OP, "y", y, dtype, &[y.rows(), w.k])?;
    dev.note_work("embedding", 0.0, 2.0 * moved(&[y]));
    let read = |cpu: Cpu<'_>| check_indices(OP, &cpu, ids, w.n).map(|()| by_dtype!(dtype, read_rows(cpu, ids, w, y)));
    dev.op(OP).run(read, |gpu| launch(gpu, ids, w, y))
}

fn launch(mut gpu: Gpu<'_>, ids: Tensor, w: &Weight, y: Tensor) -> Result<()> {
    // The kernel counts a row in words of two bytes.
    let words = y.dtype.size() / 2;
    let args = params!(embedding::Args {
        ids,
        table: w.data,
        y,
        rows: check::count(gpu.op, "rows", y.rows())?,
        words: check::count(gpu.op, "columns", w.k * words)?,
        ld: check::count(gpu.op, "columns", row_stride(w.k) * words)?,
        n: check::count(gpu.op, "tokens", w.n)?,
    });
    gpu.launch("embedding", "embedding_fwd", check::by_warps(gpu.op, y.rows())?, args)
}

fn read_rows<T: Elem>(cpu: Cpu<'_>, ids: Tensor, w: &Weight, y: Tensor) {
    let k = w.k;
    let ([y], [ids, table]) = cpu.memory.tensors([y], [ids, w.data]);
    let (ids, table) = (ids.of::<u32>(), table.of::<T>());
    let y = Parts::new(y.of::<T>(), ROWS * k);
    cpu.pool.run(y.count(), |i| {
        for (y, &id) in y.take(i).chunks_exact_mut(k).zip(&ids[i * ROWS..]) {
            for (column, y) in y.iter_mut().enumerate() {
                *y = table[index(T::DTYPE, k, id as usize, column)];
            }
        }
    });
}

/// Adds `dy[t]` to row `ids[t]` of dw. For equal ids, the order is ascending t. Arguments: ids `[T]` u32, `segments`
/// made from the same ids, dy `[T, k]` f32 or bf16, dw f32 in the element order of a weight of dy's type with k
/// columns. Returns an error for other shapes and for an id past dw's rows. On a GPU such an id adds nothing instead.
pub fn bwd(dev: &mut Device, ids: Tensor, segments: &Segments, dy: Tensor, dw: Tensor) -> Result<()> {
    const OP: &str = "embedding::bwd";
    check::compute(OP, "dy", dy)?;
    check::tensor(OP, "ids", ids, DType::U32, &[dy.rows()])?;
    let order = Order::of(dev);
    let (rows, stride) = order.piece(dy.dtype, dy.cols());
    let n = dw.len() / stride.max(1) * rows;
    check::flat(OP, "dw", dw, DType::F32, order.len(dy.dtype, n, dy.cols()))?;
    // Rows of the f32 gradient are read and written.
    dev.note_work(OP, 0.0, moved(&[dy]) + (2 * dy.len() * size_of::<f32>()) as f64);
    let add = |cpu: Cpu<'_>| {
        check_indices(OP, &cpu, ids, n).map(|()| by_dtype!(dy.dtype, add_rows(cpu, ids, None, dy, n, dw)))
    };
    dev.op(OP).run(add, |gpu| launch_bwd(gpu, segments, dy, dw, n))
}

fn launch_bwd(mut gpu: Gpu<'_>, segments: &Segments, dy: Tensor, dw: Tensor, n: usize) -> Result<()> {
    const THREADS: usize = 128;
    /// Columns of a thread.
    const COLUMNS: usize = 8;
    check::gpu_compute(gpu.op, dy.dtype)?;
    check::tensor(gpu.op, "positions", segments.positions, DType::U32, &[dy.rows()])?;
    let args = params!(embedding::BwdArgs {
        positions: segments.positions,
        ids: segments.ids,
        dy,
        dw,
        tokens: check::count(gpu.op, "tokens", dy.rows())?,
        segments: check::count(gpu.op, "segments", segments.count)?,
        k: check::count(gpu.op, "columns", dy.cols())?,
        ld: check::count(gpu.op, "columns", row_stride(dy.cols()))?,
        n: check::count(gpu.op, "rows", n)?,
    });
    let grid = [check::grid(gpu.op, segments.count)?, dy.cols().div_ceil(THREADS * COLUMNS) as u32, 1];
    gpu.launch("embedding", "embedding_bwd", Launch::new(grid, THREADS as u32, 0), args)
}

/// Adds row i / (number of indices / rows of dy) of dy to row `indices[i]` of dw, multiplied by `weights[i]` if there are
/// weights. For equal indices, the order is ascending i.
pub(super) fn add_rows<T: Elem>(
    cpu: Cpu<'_>,
    indices: Tensor,
    weights: Option<Tensor>,
    dy: Tensor,
    n: usize,
    dw: Tensor,
) {
    let (k, taps) = (dy.cols(), indices.len() / dy.rows().max(1));
    // All views are requested in one array, so absent weights are passed as an empty slice of dw and not used.
    let is_weighted = weights.is_some();
    let ([dw], [indices, weights, dy]) = cpu.memory.tensors([dw], [indices, weights.unwrap_or(dw.slice(0, 0)), dy]);
    let (indices, weights, dy) = (indices.of::<u32>(), weights.of::<f32>(), dy.of::<T>());
    let panels: Vec<u32> = indices.iter().map(|id| id / PANEL as u32).collect();
    let groups = Groups::new(&panels, n.div_ceil(PANEL));
    let used: Vec<usize> = (0..n.div_ceil(PANEL)).filter(|&p| !groups.of(p).is_empty()).collect();
    let dw = Parts::new(dw.of::<f32>(), panel_stride(T::DTYPE, k));
    cpu.pool.run(used.len(), |i| {
        let panel = dw.take(used[i]);
        for at in groups.of(used[i]).iter().map(|&at| at as usize) {
            let w = if is_weighted { weights[at] } else { 1.0 };
            add_row::<T>(cpu.isa, w, &dy[at / taps * k..][..k], indices[at] as usize % PANEL, panel);
        }
    });
}

cpu_kernel! {
    /// Adds dy, multiplied by `w`, to row `lane` of a panel.
    fn add_row<T: Elem>(w: f32, dy: &[T], lane: usize, panel: &mut [f32]) {
        for (column, x) in dy.iter().enumerate() {
            let sum = &mut panel[index(T::DTYPE, dy.len(), lane, column)];
            *sum = w.mul_add(x.to_f32(), *sum);
        }
    }
}
