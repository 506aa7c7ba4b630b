//! Root-mean-square normalisation: y = x / rms(x) * gamma, row by row.

use crate::device::{Cpu, Device, Gpu, Parts, Region, cpu_kernel, params};
use crate::ops::check::{self, added, by_dtype, moved};
use crate::ops::lanes;
use crate::ops::norm_rows::{ROWS, add_partials, gpu_shape, launch_weights};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Computes y = x * rstd * gamma with rstd = 1 / sqrt(mean(x^2) + eps). x, y `[T, D]` and gamma `[D]` have the compute
/// type; rstd `[T]` is f32 and is stored for backward. Returns an error for other shapes and, on a GPU, for a D that is
/// not a multiple of 8.
pub fn fwd(dev: &mut Device, x: Tensor, gamma: Tensor, eps: f32, y: Tensor, rstd: Tensor) -> Result<()> {
    const OP: &str = "rms_norm::fwd";
    check::compute(OP, "x", x)?;
    let dims = [x.rows(), x.cols()];
    check::tensor(OP, "y", y, x.dtype, &dims)?;
    check::tensor(OP, "gamma", gamma, x.dtype, &dims[1..])?;
    check::tensor(OP, "rstd", rstd, DType::F32, &dims[..1])?;
    dev.note_work("rms_norm", 0.0, moved(&[x, y]));
    dev.op(OP).run(
        |cpu| by_dtype!(x.dtype, forward(cpu, x, gamma, eps, y, rstd)),
        |mut gpu| {
            let (rows, cols) = gpu_shape(OP, x)?;
            let args = params!(rms_norm::Args { x, gamma, y, rstd, rows, cols, eps });
            gpu.launch("rms_norm", "rms_norm_fwd", check::by_warps(OP, x.rows())?, args)
        },
    )
}

fn forward<T: Elem>(cpu: Cpu<'_>, x: Tensor, gamma: Tensor, eps: f32, y: Tensor, rstd: Tensor) {
    let d = x.cols();
    let ([y, rstd], [x, gamma]) = cpu.memory.tensors([y, rstd], [x, gamma]);
    let (x, gamma) = (x.of::<T>(), gamma.of::<T>());
    let (y, rstd) = (Parts::new(y.of::<T>(), ROWS * d), Parts::new(rstd.of::<f32>(), ROWS));
    cpu.pool.run(rstd.count(), |i| {
        let rstd = rstd.take(i);
        rows_fwd::<T>(cpu.isa, &x[i * ROWS * d..][..rstd.len() * d], gamma, eps, y.take(i), rstd);
    });
}

cpu_kernel! {
    /// Normalises a block of rows: x and y `[rows][D]`.
    fn rows_fwd<T: Elem>(x: &[T], gamma: &[T], eps: f32, y: &mut [T], rstd: &mut [f32]) {
        let d = gamma.len();
        for ((x, y), rstd) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(rstd) {
            let r = 1.0 / (lanes::dot(x, x) / d as f32 + eps).sqrt();
            *rstd = r;
            for ((y, x), g) in y.iter_mut().zip(x).zip(gamma) {
                *y = T::from_f32(x.to_f32() * r * g.to_f32());
            }
        }
    }
}

/// Inputs and outputs of [`bwd`].
#[derive(Clone, Copy, Debug)]
pub struct Bwd {
    /// Input of [`fwd`], `[T, D]` in the compute type.
    pub x: Tensor,
    /// Weight `[D]` in the compute type.
    pub gamma: Tensor,
    /// Reciprocal root mean squares `[T]` f32, as computed by [`fwd`].
    pub rstd: Tensor,
    /// Gradient of y, `[T, D]` in the compute type.
    pub dy: Tensor,
    /// Gradient of x, `[T, D]` in the compute type. The computed gradient is written or, if `accumulate`, added to the
    /// present values.
    pub dx: Tensor,
    /// True if the gradient is added to dx.
    pub accumulate: bool,
    /// Gradient of gamma, `[D]` f32. The computed gradient is added to the present values.
    pub dgamma: Tensor,
}

/// Computes the gradients of [`fwd`], with xhat = x * rstd:
///
/// - dx = rstd * (dy*gamma - xhat * mean(dy*gamma*xhat)), written to dx or, if `accumulate`, added to dx;
/// - dgamma += sum over rows of dy * xhat. Rows are summed in blocks of 64, and the blocks are added in order.
///
/// Returns an error for shapes other than those of [`Bwd`].
pub fn bwd(dev: &mut Device, call: Bwd) -> Result<()> {
    const OP: &str = "rms_norm::bwd";
    let Bwd { x, gamma, rstd, dy, dx, dgamma, .. } = call;
    check::compute(OP, "x", x)?;
    let dims = [x.rows(), x.cols()];
    check::tensor(OP, "gamma", gamma, x.dtype, &dims[1..])?;
    check::tensor(OP, "rstd", rstd, DType::F32, &dims[..1])?;
    check::tensor(OP, "dy", dy, x.dtype, &dims)?;
    check::tensor(OP, "dx", dx, x.dtype, &dims)?;
    check::tensor(OP, "dgamma", dgamma, DType::F32, &dims[1..])?;
    dev.note_work(OP, 0.0, moved(&[x, dy, dx]) + added(dx, call.accumulate));
    dev.scope(Region::Workspace, |dev| {
        let partial = dev.alloc(Region::Workspace, DType::F32, &[dims[0].div_ceil(ROWS), dims[1]])?;
        dev.op(OP).run(|cpu| by_dtype!(x.dtype, backward(cpu, call, partial)), |gpu| launch_bwd(gpu, call, partial))
    })
}

fn launch_bwd(mut gpu: Gpu<'_>, call: Bwd, partials: Tensor) -> Result<()> {
    let Bwd { x, gamma, rstd, dy, dx, accumulate, dgamma } = call;
    let (rows, cols) = gpu_shape(gpu.op, x)?;
    let args = params!(rms_norm::BwdArgs { x, gamma, rstd, dy, dx, dgamma, partials, rows, cols, accumulate });
    gpu.launch("rms_norm", "rms_norm_bwd", check::by_warps(gpu.op, x.rows())?, args.clone())?;
    launch_weights(&mut gpu, ["rms_norm", "rms_norm_dgamma", "rms_norm_dgamma_sum"], args, x, 1)
}

fn backward<T: Elem>(cpu: Cpu<'_>, call: Bwd, partial: Tensor) {
    let Bwd { x, gamma, rstd, dy, dx, accumulate, dgamma } = call;
    let (t, d) = (x.rows(), x.cols());
    let ([dx, dgamma, partial], [x, gamma, rstd, dy]) = cpu.memory.tensors([dx, dgamma, partial], [x, gamma, rstd, dy]);
    let (x, gamma, rstd, dy) = (x.of::<T>(), gamma.of::<T>(), rstd.of::<f32>(), dy.of::<T>());
    let partial = partial.of::<f32>();
    let (dx, parts) = (Parts::new(dx.of::<T>(), ROWS * d), Parts::new(partial, d));
    cpu.pool.run(t.div_ceil(ROWS), |i| {
        let (from, to) = (i * ROWS, ((i + 1) * ROWS).min(t));
        let (x, dy) = (&x[from * d..to * d], &dy[from * d..to * d]);
        rows_bwd::<T>(cpu.isa, x, gamma, &rstd[from..to], dy, dx.take(i), accumulate, parts.take(i));
    });
    add_partials(cpu.isa, cpu.pool, partial, d, 0, dgamma.of::<f32>());
}

cpu_kernel! {
    fn rows_bwd<T: Elem>(
        x: &[T],
        gamma: &[T],
        rstd: &[f32],
        dy: &[T],
        dx: &mut [T],
        accumulate: bool,
        dgamma: &mut [f32],
    ) {
        let d = gamma.len();
        dgamma.fill(0.0);
        for (i, &r) in rstd.iter().enumerate() {
            let (x, dy, dx) = (&x[i * d..][..d], &dy[i * d..][..d], &mut dx[i * d..][..d]);
            let mean = product_sum(x, dy, gamma) * r / d as f32;
            for j in 0..d {
                let xhat = x[j].to_f32() * r;
                let v = (dy[j].to_f32() * gamma[j].to_f32() - xhat * mean) * r;
                dx[j] = T::from_f32(if accumulate { dx[j].to_f32() + v } else { v });
            }
            for j in 0..d {
                dgamma[j] = dy[j].to_f32().mul_add(x[j].to_f32() * r, dgamma[j]);
            }
        }
    }
}

/// Returns the sum of x * dy * gamma: accumulated in sixteen lanes, which `lanes::sum` then adds up.
#[inline(always)]
fn product_sum<T: Elem>(x: &[T], dy: &[T], gamma: &[T]) -> f32 {
    let mut acc = [0.0; lanes::LANES];
    let whole = x.len() / lanes::LANES * lanes::LANES;
    let mut term = |x: lanes::Lanes, dy: lanes::Lanes, g: lanes::Lanes| {
        for i in 0..lanes::LANES {
            acc[i] = x[i].mul_add(dy[i] * g[i], acc[i]);
        }
    };
    for j in (0..whole).step_by(lanes::LANES) {
        term(lanes::load(&x[j..]), lanes::load(&dy[j..]), lanes::load(&gamma[j..]));
    }
    if whole < x.len() {
        term(lanes::load_tail(&x[whole..]), lanes::load_tail(&dy[whole..]), lanes::load_tail(&gamma[whole..]));
    }
    lanes::sum(&acc)
}
