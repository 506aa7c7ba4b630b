//! The global gradient norm, the clip factor and whether all is finite, left on the device for the update.

use bytemuck::NoUninit;

use crate::device::{Address, Cpu, Device, Gpu, Launch, On, Parts, Region, cpu_kernel};
use crate::error::Result;
use crate::ops::{check, lanes};
use crate::tensor::{DType, Tensor};

/// Elements summed in sixteen f32 lanes before the sum goes on in f64: 256 terms a lane, so a relative error below
/// 256 * 2^-24 = 1.5e-5 in the worst case.
const BLOCK: usize = 4096;

/// Blocks of one work item.
const BLOCKS: usize = 16;

/// out `[3]` f32 = norm over all of `grads` (f32, any shapes); the factor min(1, max_norm / (norm + 1e-6)) of
/// `torch.nn.utils.clip_grad_norm_`; 1 when the norm is finite, else 0 (the factor is then 0 too). The order of
/// summation depends on the shapes alone. `out.slice(1, 3)` is what `adamw::step` takes. Errors on other shapes.
pub fn fwd(dev: &mut Device, grads: &[Tensor], max_norm: f32, out: Tensor) -> Result<()> {
    guarded(dev, grads, max_norm, None, out)
}

/// [`fwd`], and the flag and the factor are 0 also where one of `guard` (f64, any number: a loss) is not finite.
pub fn guarded(dev: &mut Device, grads: &[Tensor], max_norm: f32, guard: Option<Tensor>, out: Tensor) -> Result<()> {
    const OP: &str = "grad_norm::fwd";
    check::tensor(OP, "out", out, DType::F32, &[3])?;
    if let Some(guard) = guard {
        check::flat(OP, "guard", guard, DType::F64, guard.len())?;
    }
    for g in grads {
        check::flat(OP, "grads", *g, DType::F32, g.len())?;
    }
    let mark = dev.mark(Region::Workspace);
    // f64 sums, on a GPU: one a chunk.
    let chunks: usize = if dev.kind().is_gpu() { grads.iter().map(|g| g.len().div_ceil(CHUNK)).sum() } else { 0 };
    let partials = dev.alloc(Region::Workspace, DType::U32, &[2 * chunks])?;
    let done = match dev.on() {
        On::Count => Ok(()),
        On::Cpu(cpu) => {
            on_cpu(cpu, grads, max_norm, guard, out);
            Ok(())
        }
        On::Gpu(gpu) => launch(OP, gpu, grads, max_norm, guard, partials, out),
    };
    dev.release(mark);
    done
}

/// Elements of a CTA's sum in kernels/grad_norm.cu.
const CHUNK: usize = 65_536;

/// `grad_norm::SquaresArgs` of kernels/grad_norm.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct SquaresArgs {
    x: Address,
    partials: Address,
    len: i64,
}

/// `grad_norm::FinishArgs` of kernels/grad_norm.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct FinishArgs {
    partials: Address,
    guard: Address,
    out: Address,
    count: i64,
    max_norm: f32,
    guards: i32,
}

fn launch(
    op: &'static str,
    mut gpu: Gpu<'_>,
    grads: &[Tensor],
    max_norm: f32,
    guard: Option<Tensor>,
    partials: Tensor,
    out: Tensor,
) -> Result<()> {
    const THREADS: u32 = 256;
    const SMEM: usize = THREADS as usize / 32 * 8;
    let mut count = 0;
    for grad in grads {
        let chunks = grad.len().div_ceil(CHUNK);
        let to = gpu.ptr(partials) + 8 * count as Address;
        let args = SquaresArgs { x: gpu.ptr(*grad), partials: to, len: grad.len() as i64 };
        let grid = check::grid(op, chunks)?;
        gpu.launch("grad_norm", "grad_norm_squares", Launch::new([grid, 1, 1], THREADS, SMEM), &args)?;
        count += chunks;
    }
    let (partials, out) = (gpu.ptr(partials), gpu.ptr(out));
    let guards = check::count(op, "guards", guard.map_or(0, |g| g.len()))?;
    let guard = gpu.ptr_or_null(guard);
    let args = FinishArgs { partials, guard, out, count: count as i64, max_norm, guards };
    gpu.launch("grad_norm", "grad_norm_finish", Launch::new([1, 1, 1], THREADS, SMEM), &args)
}

fn on_cpu(cpu: Cpu<'_>, grads: &[Tensor], max_norm: f32, guard: Option<Tensor>, out: Tensor) {
    let views: Vec<&[f32]> = grads.iter().map(|g| cpu.memory.view(g.span()).of::<f32>()).collect();
    let items: Vec<&[f32]> = views.iter().flat_map(|g| g.chunks(BLOCK * BLOCKS)).collect();
    let mut sums = vec![0.0f64; items.len()];
    let parts = Parts::new(&mut sums, 1);
    cpu.pool.run(items.len(), |i| {
        parts.take(i)[0] = items[i].chunks(BLOCK).map(|b| f64::from(square_sum(cpu.isa, b))).sum();
    });
    let norm = sums.iter().sum::<f64>().sqrt() as f32;
    let guard = guard.map_or(&[][..], |g| cpu.memory.view(g.span()).of::<f64>());
    let finite = norm.is_finite() && guard.iter().all(|x| x.is_finite());
    let factor = if finite { (max_norm / (norm + 1e-6)).min(1.0) } else { 0.0 };
    let flag = if finite { 1.0 } else { 0.0 };
    cpu.memory.view_mut(out.span()).of::<f32>().copy_from_slice(&[norm, factor, flag]);
}

cpu_kernel! {
    fn square_sum(x: &[f32]) -> f32 {
        lanes::dot(x, x)
    }
}
