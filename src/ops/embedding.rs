//! The token table: rows out of a weight in column panels, and their gradients back into it.

use bytemuck::NoUninit;

use crate::device::{Address, Cpu, Device, Gpu, On, Parts};
use crate::error::Result;
use crate::ops::check::{self, by_dtype};
use crate::ops::matmul::{PANEL, Weight, index, panel_len, panel_stride, row_stride};
use crate::ops::rows::{self, Groups, check_indices};
use crate::tensor::{DType, Elem, Tensor};

/// Rows of one work item.
const ROWS: usize = 32;

/// `y[t]` = row `ids[t]` of `w` (n tokens, k wide): ids `[T]` u32, y `[T, k]` in w's type. Errors on other shapes and on
/// an id of n or more; on a GPU such an id gives a row of NaN.
pub fn fwd(dev: &mut Device, ids: Tensor, w: &Weight, y: Tensor) -> Result<()> {
    const OP: &str = "embedding::fwd";
    let dtype = check::weight(OP, w, w.n, w.k)?;
    check::tensor(OP, "ids", ids, DType::U32, &[y.rows()])?;
    check::tensor(OP, "y", y, dtype, &[y.rows(), w.k])?;
    match dev.on() {
        On::Count => {}
        On::Cpu(cpu) => {
            check_indices(OP, &cpu, ids, w.n)?;
            by_dtype!(dtype, read_rows(cpu, ids, w, y));
        }
        On::Gpu(gpu) => launch(OP, gpu, ids, w, y)?,
    }
    Ok(())
}

/// `embedding::Args` of kernels/embedding.cu; a row is counted in words of two bytes.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    ids: Address,
    table: Address,
    y: Address,
    rows: i32,
    words: i32,
    ld: i32,
    n: u32,
}

fn launch(op: &'static str, mut gpu: Gpu<'_>, ids: Tensor, w: &Weight, y: Tensor) -> Result<()> {
    let words = y.dtype.size() / 2;
    let args = Args {
        ids: gpu.address(ids.span()),
        table: gpu.address(w.data.span()),
        y: gpu.address(y.span()),
        rows: check::count(op, "rows", y.rows())?,
        words: check::count(op, "columns", w.k * words)?,
        ld: check::count(op, "columns", row_stride(w.k) * words)?,
        n: check::count(op, "tokens", w.n)? as u32,
    };
    gpu.launch("embedding", "embedding_fwd", rows::launch(op, y.rows())?, &args)
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

/// `dw[ids[t]]` += `dy[t]`, equal ids in ascending t: ids `[T]` u32, dy `[T, k]` f32 or bf16, dw f32 in the panel order of
/// a weight of dy's type and k columns. Errors on other shapes and on an id past dw's panels.
pub fn bwd(dev: &mut Device, ids: Tensor, dy: Tensor, dw: Tensor) -> Result<()> {
    const OP: &str = "embedding::bwd";
    check::compute(OP, "dy", dy)?;
    check::tensor(OP, "ids", ids, DType::U32, &[dy.rows()])?;
    let n = dw.len() / panel_stride(dy.dtype, dy.cols()).max(1) * PANEL;
    check::flat(OP, "dw", dw, DType::F32, panel_len(dy.dtype, n, dy.cols()))?;
    let Some(cpu) = dev.cpu_only(OP)? else { return Ok(()) };
    check_indices(OP, &cpu, ids, n)?;
    by_dtype!(dy.dtype, add_rows(cpu, ids, dy, n, dw));
    Ok(())
}

fn add_rows<T: Elem>(cpu: Cpu<'_>, ids: Tensor, dy: Tensor, n: usize, dw: Tensor) {
    let k = dy.cols();
    let ([dw], [ids, dy]) = cpu.memory.tensors([dw], [ids, dy]);
    let (ids, dy) = (ids.of::<u32>(), dy.of::<T>());
    let panels: Vec<u32> = ids.iter().map(|id| id / PANEL as u32).collect();
    let groups = Groups::new(&panels, n.div_ceil(PANEL));
    let used: Vec<usize> = (0..n.div_ceil(PANEL)).filter(|&p| !groups.of(p).is_empty()).collect();
    let dw = Parts::new(dw.of::<f32>(), panel_stride(T::DTYPE, k));
    cpu.pool.run(used.len(), |i| {
        let panel = dw.take(used[i]);
        for &t in groups.of(used[i]) {
            let lane = ids[t as usize] as usize % PANEL;
            for (column, x) in dy[t as usize * k..][..k].iter().enumerate() {
                panel[index(T::DTYPE, k, lane, column)] += x.to_f32();
            }
        }
    });
}
