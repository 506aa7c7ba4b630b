//! Copies and sums of rows by index: image rows into a sequence, window order and back, last positions of a pack.

use crate::device::{Cpu, Device, Gpu, Parts, Region, cpu_kernel, params};
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::{lanes, matmul};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Approximate number of elements that a work item copies.
const ITEM: usize = 16_384;

/// Sets `dst[i] = src[idx[i]]`: src `[S, D]`, idx `[T]` u32, dst `[T, D]` of src's type. Returns an error for other
/// shapes and for an index of S or more. On a GPU, such an index gives a row of NaN instead.
pub fn gather(dev: &mut Device, src: Tensor, idx: Tensor, dst: Tensor) -> Result<()> {
    const OP: &str = "rows::gather";
    check::compute(OP, "src", src)?;
    check::tensor(OP, "idx", idx, DType::U32, &[dst.rows()])?;
    check::tensor(OP, "dst", dst, src.dtype, &[dst.rows(), src.cols()])?;
    dev.note_work(OP, 0.0, 2.0 * moved(&[dst]));
    dev.op(OP).run(
        |cpu| check_indices(OP, &cpu, idx, src.rows()).map(|()| by_dtype!(src.dtype, gather_rows(cpu, src, idx, dst))),
        |gpu| launch_kernel(gpu, "rows_gather", src, idx, dst, src.rows()),
    )
}

/// Launches `kernel`. `bound` is the number of rows that an index may select.
fn launch_kernel(
    mut gpu: Gpu<'_>,
    kernel: &'static str,
    src: Tensor,
    idx: Tensor,
    dst: Tensor,
    bound: usize,
) -> Result<()> {
    // The kernel counts a row in words of two bytes.
    let args = params!(rows::Args {
        src,
        idx,
        dst,
        rows: check::count(gpu.op, "rows", idx.rows())?,
        words: check::count(gpu.op, "columns", src.cols() * src.dtype.size() / 2)?,
        bound: check::count(gpu.op, "rows", bound)?,
        sources: check::count(gpu.op, "rows", src.rows())?,
    });
    gpu.launch("rows", kernel, check::by_warps(gpu.op, idx.rows())?, args)
}

/// Sets `dst[idx[i]] = src[i % T]`. Other rows of dst do not change. If an index occurs several times, its last row is
/// stored. Shapes: src `[T, D]`, idx u32 with a multiple of T elements, dst `[S, D]` of src's type. Returns an error
/// for other shapes and for an index of S or more. On a GPU, indices must be distinct, because otherwise any one of the
/// rows may be stored, and a row whose index is S or more is not written.
pub fn scatter(dev: &mut Device, src: Tensor, idx: Tensor, dst: Tensor) -> Result<()> {
    const OP: &str = "rows::scatter";
    let whole = idx.rows().is_multiple_of(src.rows());
    check::that(OP, whole, format!("idx of a multiple of {}", src.rows()), idx.rows().to_string())?;
    into_rows(dev, OP, src, idx, dst, false, None)
}

/// Adds `src[i]` to `dst[idx[i]]`. On the CPU, rows with equal indices are added in ascending i. Each sum is computed
/// in f32 and rounded once. idx is `[T]`. The other shapes and the errors are those of [`scatter`]. On a GPU, the rows
/// must be bf16, and a row whose index is S or more is not added. There, indices must be distinct or `segments`, made
/// from the same indices, must be given; the bits are then those of the CPU.
pub fn scatter_add(dev: &mut Device, src: Tensor, idx: Tensor, segments: Option<&Segments>, dst: Tensor) -> Result<()> {
    const OP: &str = "rows::scatter_add";
    check::tensor(OP, "idx", idx, DType::U32, &[src.rows()])?;
    into_rows(dev, OP, src, idx, dst, true, segments)
}

fn launch_segments(mut gpu: Gpu<'_>, src: Tensor, segments: &Segments, dst: Tensor) -> Result<()> {
    check::tensor(gpu.op, "positions", segments.positions, DType::U32, &[src.rows()])?;
    let args = params!(rows::SegmentArgs {
        src,
        positions: segments.positions,
        ids: segments.ids,
        dst,
        rows: check::count(gpu.op, "rows", src.rows())?,
        segments: check::count(gpu.op, "segments", segments.count)?,
        columns: check::count(gpu.op, "columns", src.cols())?,
        bound: check::count(gpu.op, "rows", dst.rows())?,
    });
    gpu.launch("rows", "rows_scatter_add_segments", check::by_warps(gpu.op, segments.count)?, args)
}

/// Copies the rows to the rows that the indices select or, if `add` is true, adds them there: by `segments` if indices
/// may repeat.
fn into_rows(
    dev: &mut Device,
    op: &'static str,
    src: Tensor,
    idx: Tensor,
    dst: Tensor,
    add: bool,
    segments: Option<&Segments>,
) -> Result<()> {
    check::compute(op, "src", src)?;
    check::tensor(op, "idx", idx, DType::U32, &[idx.len()])?;
    check::tensor(op, "dst", dst, src.dtype, &[dst.rows(), src.cols()])?;
    // Each source row is read and written once. A sum also reads its row.
    let moves = if add { 3 } else { 2 };
    dev.note_work(op, 0.0, (moves * idx.rows() * src.cols() * src.dtype.size()) as f64);
    dev.op(op).run(
        |cpu| {
            check_indices(op, &cpu, idx, dst.rows())?;
            by_dtype!(src.dtype, scatter_rows(cpu, src, idx, dst, add));
            Ok(())
        },
        |gpu| {
            if add {
                check::gpu_compute(op, src.dtype)?;
            }
            match segments {
                Some(segments) => launch_segments(gpu, src, segments, dst),
                None => {
                    launch_kernel(gpu, if add { "rows_scatter_add" } else { "rows_scatter" }, src, idx, dst, dst.rows())
                }
            }
        },
    )
}

/// Returns an error if an element of `idx` is not below `rows`.
pub(crate) fn check_indices(op: &'static str, cpu: &Cpu<'_>, idx: Tensor, rows: usize) -> Result<()> {
    let idx = cpu.memory.view(idx.span()).of::<u32>();
    match idx.iter().find(|&&i| i as usize >= rows) {
        None => Ok(()),
        Some(i) => check::fail(op, format!("indices below {rows}"), i.to_string()),
    }
}

fn gather_rows<T: Elem>(cpu: Cpu<'_>, src: Tensor, idx: Tensor, dst: Tensor) {
    let d = src.cols();
    let rows = ITEM.div_ceil(d.max(1));
    let ([dst], [src, idx]) = cpu.memory.tensors([dst], [src, idx]);
    let (src, idx) = (src.of::<T>(), idx.of::<u32>());
    let dst = Parts::new(dst.of::<T>(), rows * d);
    cpu.pool.run(dst.count(), |i| {
        for (dst, &row) in dst.take(i).chunks_exact_mut(d).zip(&idx[i * rows..]) {
            dst.copy_from_slice(&src[row as usize * d..][..d]);
        }
    });
}

fn scatter_rows<T: Elem>(cpu: Cpu<'_>, src: Tensor, idx: Tensor, dst: Tensor, add: bool) {
    let (d, num_rows, sources) = (src.cols(), dst.rows(), src.rows());
    let rows = ITEM.div_ceil(d.max(1));
    let ([dst], [src, idx]) = cpu.memory.tensors([dst], [src, idx]);
    let src = src.of::<T>();
    let groups = Groups::new(idx.of::<u32>(), num_rows);
    let dst = Parts::new(dst.of::<T>(), rows * d);
    cpu.pool.run(dst.count(), |i| {
        for (j, dst) in dst.take(i).chunks_exact_mut(d).enumerate() {
            let from = groups.of(i * rows + j);
            match (add, from) {
                (true, from) => add_rows::<T>(cpu.isa, src, from, dst),
                (false, [.., last]) => dst.copy_from_slice(&src[*last as usize % sources * d..][..d]),
                (false, []) => {}
            }
        }
    });
}

/// Positions of an index list, grouped by value with a counting sort. The positions of a value are ascending.
pub(crate) struct Groups {
    starts: Vec<u32>,
    positions: Vec<u32>,
}

impl Groups {
    /// Groups the positions of `idx` by value; every value is below `values`.
    pub(crate) fn new(idx: &[u32], values: usize) -> Groups {
        let mut starts = vec![0u32; values + 1];
        for &i in idx {
            starts[i as usize + 1] += 1;
        }
        for i in 0..values {
            starts[i + 1] += starts[i];
        }
        let mut next = starts.clone();
        let mut positions = vec![0; idx.len()];
        for (at, &i) in idx.iter().enumerate() {
            positions[next[i as usize] as usize] = at as u32;
            next[i as usize] += 1;
        }
        Groups { starts, positions }
    }

    /// Returns the positions that hold `value`.
    pub(crate) fn of(&self, value: usize) -> &[u32] {
        &self.positions[self.starts[value] as usize..self.starts[value + 1] as usize]
    }
}

cpu_kernel! {
    /// Adds the rows of src at `from` to dst in order, each element by one sequence of f32 additions.
    fn add_rows<T: Elem>(src: &[T], from: &[u32], dst: &mut [T]) {
        const BLOCK: usize = 64;
        if from.is_empty() {
            return;
        }
        let d = dst.len();
        for (b, dst) in dst.chunks_mut(BLOCK).enumerate() {
            let mut sums = [0.0f32; BLOCK];
            lanes::widen(dst, &mut sums[..dst.len()]);
            for &row in from {
                let x = &src[row as usize * d + b * BLOCK..][..dst.len()];
                matmul::add(&mut sums, x);
            }
            matmul::store(&sums, dst);
        }
    }
}

/// Positions of each index in a list. `embedding::bwd` and `rows::scatter_add` on a GPU use them to compute every row as
/// one sum in a fixed order. The CPU groups the indices itself and leaves this empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segments {
    /// Positions `[T]` u32, sorted by id, equal ids ascending; empty on the CPU.
    pub(super) positions: Tensor,
    /// Distinct ids and the index in `positions` where each id's positions begin: `[T, 2]` u32, of which `count` rows
    /// are used.
    pub(super) ids: Tensor,
    pub(super) count: usize,
}

impl Segments {
    /// Sorts `ids` and copies the result to the device. The memory use depends only on the number of ids.
    pub fn upload(dev: &mut Device, region: Region, ids: &[u32]) -> Result<Segments> {
        let ids = if dev.kind().is_gpu() { ids } else { &[] };
        let mut positions: Vec<u32> = (0..ids.len() as u32).collect();
        positions.sort_by_key(|&t| ids[t as usize]);
        let mut starts: Vec<u32> = Vec::new();
        for (at, &t) in positions.iter().enumerate() {
            let id = ids[t as usize];
            if at == 0 || id != ids[positions[at - 1] as usize] {
                starts.extend([id, at as u32]);
            }
        }
        let count = starts.len() / 2;
        starts.resize(2 * ids.len(), 0);
        Ok(Segments {
            positions: dev.upload(region, &positions, &[ids.len()])?,
            ids: dev.upload(region, &starts, &[ids.len(), 2])?,
            count,
        })
    }
}
