//! Global gradient norm, clip factor and a flag that all values are finite. These three values stay on the device,
//! where the optimizer reads them.

use crate::device::{Address, Cpu, Device, Parts, cpu_kernel, params};
use crate::ops::check::{self, moved};
use crate::ops::lanes;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Elements that the CPU sums in sixteen f32 lanes before it continues in f64. Each lane has 256 terms, so its relative
/// error is at most about 256 * 2^-24 = 1.5e-5.
const BLOCK: usize = 4096;

/// Blocks of one partial sum.
const BLOCKS: usize = 16;

/// Elements of one partial sum, which one CTA computes in kernels/grad_norm.cu.
pub const CHUNK: usize = BLOCK * BLOCKS;

/// Writes the sums of squares of `grads` (f32, any shapes) to out (f64): one sum for each [`CHUNK`] elements of each
/// gradient, one gradient after the other. A sum depends only on its own elements, so splitting a gradient at multiples
/// of [`CHUNK`] changes no sum. Returns an error for another shape of `out`.
pub fn partials(dev: &mut Device, grads: &[Tensor], out: Tensor) -> Result<()> {
    const OP: &str = "grad_norm::partials";
    for g in grads {
        check::flat(OP, "grads", *g, DType::F32, g.len())?;
    }
    check::tensor(OP, "out", out, DType::F64, &[grads.iter().map(|g| g.len().div_ceil(CHUNK)).sum()])?;
    dev.note_work("grad_norm", 0.0, moved(grads));
    dev.op(OP).run(
        |cpu| {
            let sums = square_sums(&cpu, grads);
            cpu.memory.view_mut(out.span()).of::<f64>().copy_from_slice(&sums);
        },
        |mut gpu| {
            let mut to = gpu.ptr(out);
            for grad in grads {
                let chunks = grad.len().div_ceil(CHUNK);
                let args = params!(grad_norm::SquaresArgs { x: *grad, partials: to, len: grad.len() as i64 });
                gpu.launch("grad_norm", "grad_norm_squares", check::launch(OP, chunks, THREADS, SMEM)?, args)?;
                to += 8 * chunks as Address;
            }
            Ok(())
        },
    )
}

/// Writes three f32 values to out `[3]`:
///
/// 1. the norm, the square root of the sum of `partials` (f64);
/// 2. the clip factor min(1, max_norm / (norm + 1e-6)) of `torch.nn.utils.clip_grad_norm_`, or 0 if the flag is 0;
/// 3. the flag: 1 if the norm and all elements of `guard` (f64, any number of them, e.g. a loss) are finite, else 0.
///
/// The order of summation depends only on the number of partials. `adamw::step` takes `out.slice(1, 3)`. Returns an
/// error for other shapes.
pub fn finish(dev: &mut Device, partials: Tensor, max_norm: f32, guard: Option<Tensor>, out: Tensor) -> Result<()> {
    const OP: &str = "grad_norm::finish";
    check::tensor(OP, "out", out, DType::F32, &[3])?;
    for (name, t) in [("partials", Some(partials)), ("guard", guard)] {
        t.map_or(Ok(()), |t| check::flat(OP, name, t, DType::F64, t.len()))?;
    }
    dev.op(OP).run(
        |cpu| {
            let norm = cpu.memory.view(partials.span()).of::<f64>().iter().sum::<f64>().sqrt() as f32;
            let guard = guard.map_or(&[][..], |g| cpu.memory.view(g.span()).of::<f64>());
            let finite = norm.is_finite() && guard.iter().all(|x| x.is_finite());
            let factor = if finite { (max_norm / (norm + 1e-6)).min(1.0) } else { 0.0 };
            let flag = if finite { 1.0 } else { 0.0 };
            cpu.memory.view_mut(out.span()).of::<f32>().copy_from_slice(&[norm, factor, flag]);
        },
        |mut gpu| {
            let guards = check::count(OP, "guards", guard.map_or(0, |g| g.len()))?;
            let count = partials.len() as i64;
            let args = params!(grad_norm::FinishArgs { partials, guard, out, count, max_norm, guards });
            gpu.launch("grad_norm", "grad_norm_finish", check::launch(OP, 1, THREADS, SMEM)?, args)
        },
    )
}

/// Threads of a CTA.
const THREADS: usize = 256;
/// Bytes of shared memory of a CTA.
const SMEM: usize = THREADS / 32 * 8;

fn square_sums(cpu: &Cpu<'_>, grads: &[Tensor]) -> Vec<f64> {
    let views = grads.iter().map(|g| cpu.memory.view(g.span()).of::<f32>());
    let items: Vec<&[f32]> = views.flat_map(|g| g.chunks(CHUNK)).collect();
    let mut sums = vec![0.0f64; items.len()];
    let parts = Parts::new(&mut sums, 1);
    cpu.pool.run(items.len(), |i| {
        parts.take(i)[0] = items[i].chunks(BLOCK).map(|b| f64::from(square_sum(cpu.isa, b))).sum();
    });
    sums
}

cpu_kernel! {
    fn square_sum(x: &[f32]) -> f32 {
        lanes::dot(x, x)
    }
}
