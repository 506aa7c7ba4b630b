//! Layer normalisation: y = (x - mean) * rstd * gamma + beta, row by row.

use crate::device::{Cpu, Device, Gpu, Parts, Region, cpu_kernel, params};
use crate::ops::check::{self, added, by_dtype, moved};
use crate::ops::norm_rows::{ROWS, VECTOR, add_partials, gpu_shape, launch_weights};
use crate::tensor::{DType, Elem, Tensor};
use omr_base::error::Result;

/// Number of chains of the sum over a row: [`VECTOR`] for each thread of a warp.
const CHAINS: usize = 32 * VECTOR;

/// Computes y = (x - mean) * rstd * gamma + beta with rstd = 1 / sqrt(mean((x - mean)^2) + eps). x, y `[T, D]`, and
/// `weights`, which are gamma and beta `[D]`, have the compute type. The rows of stats `[T, 2]` f32 receive mean and rstd
/// for backward. Returns an error for other shapes and, on a GPU, for a D that is not a multiple of 8.
pub fn fwd(dev: &mut Device, x: Tensor, weights: [Tensor; 2], eps: f32, y: Tensor, stats: Tensor) -> Result<()> {
    const OP: &str = "layer_norm::fwd";
    check_all(OP, x, &weights, stats, [y; 2])?;
    dev.note_work("layer_norm", 0.0, moved(&[x, y]));
    dev.op(OP).run(
        |cpu| by_dtype!(x.dtype, forward(cpu, x, weights, eps, y, stats)),
        |mut gpu| {
            let ((rows, cols), [gamma, beta]) = (gpu_shape(OP, x)?, weights);
            let args = params!(layer_norm::Args { x, gamma, beta, y, stats, rows, cols, eps });
            gpu.launch("layer_norm", "layer_norm_fwd", check::by_warps(OP, x.rows())?, args)
        },
    )
}

fn check_all(op: &'static str, x: Tensor, weights: &[Tensor], stats: Tensor, rows: [Tensor; 2]) -> Result<()> {
    check::compute(op, "x", x)?;
    let dims = [x.rows(), x.cols()];
    weights.iter().try_for_each(|w| check::tensor(op, "gamma or beta", *w, x.dtype, &dims[1..]))?;
    check::tensor(op, "stats", stats, DType::F32, &[dims[0], 2])?;
    rows.iter().try_for_each(|t| check::tensor(op, "y, dy or dx", *t, x.dtype, &dims))
}

fn forward<T: Elem>(cpu: Cpu<'_>, x: Tensor, weights: [Tensor; 2], eps: f32, y: Tensor, stats: Tensor) {
    let d = x.cols();
    let ([y, stats], [x, gamma, beta]) = cpu.memory.tensors([y, stats], [x, weights[0], weights[1]]);
    let (x, gamma, beta) = (x.of::<T>(), gamma.of::<T>(), beta.of::<T>());
    let (y, stats) = (Parts::new(y.of::<T>(), ROWS * d), Parts::new(stats.of::<f32>(), 2 * ROWS));
    cpu.pool
        .run(stats.count(), |i| rows_fwd::<T>(cpu.isa, &x[i * ROWS * d..], gamma, beta, eps, y.take(i), stats.take(i)));
}

/// Returns the sum of `add(j, chain) - chain` over the elements j of a row. Element j is added to chain j % 256. Then
/// halves of the chains are added: first the chains of a thread of a warp, then those of its threads.
#[inline(always)]
fn sum(d: usize, mut add: impl FnMut(usize, f32) -> f32) -> f32 {
    let mut chains = [0.0; CHAINS];
    for from in (0..d).step_by(CHAINS) {
        for (i, chain) in chains[..CHAINS.min(d - from)].iter_mut().enumerate() {
            *chain = add(from + i, *chain);
        }
    }
    for half in [VECTOR / 2, VECTOR / 4, VECTOR / 8] {
        (0..CHAINS).filter(|i| i % VECTOR < half).for_each(|i| chains[i] += chains[i + half]);
    }
    for half in [16, 8, 4, 2, 1].map(|threads| threads * VECTOR) {
        (0..half).step_by(VECTOR).for_each(|i| chains[i] += chains[i + half]);
    }
    chains[0]
}

cpu_kernel! {
    /// Normalises a block of rows: y `[rows][D]`, stats `[rows][2]`.
    fn rows_fwd<T: Elem>(x: &[T], gamma: &[T], beta: &[T], eps: f32, y: &mut [T], stats: &mut [f32]) {
        let d = gamma.len();
        for ((x, y), stats) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).zip(stats.chunks_exact_mut(2)) {
            let mean = sum(d, |j, chain| chain + x[j].to_f32()) / d as f32;
            let squares = sum(d, |j, chain| (x[j].to_f32() - mean).mul_add(x[j].to_f32() - mean, chain));
            let r = 1.0 / (squares / d as f32 + eps).sqrt();
            stats.copy_from_slice(&[mean, r]);
            for j in 0..d {
                y[j] = T::from_f32(((x[j].to_f32() - mean) * r).mul_add(gamma[j].to_f32(), beta[j].to_f32()));
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
    /// Mean and reciprocal standard deviation of each row, `[T, 2]` f32, as computed by [`fwd`].
    pub stats: Tensor,
    /// Gradient of y, `[T, D]` in the compute type.
    pub dy: Tensor,
    /// Gradient of x, `[T, D]` in the compute type. The computed gradient is written or, if `accumulate`, added to the
    /// present values.
    pub dx: Tensor,
    /// True if the gradient is added to dx.
    pub accumulate: bool,
    /// Gradients of gamma and beta, `[D]` f32, to which those of the rows are added; `None` if they are frozen.
    pub dweights: Option<[Tensor; 2]>,
}

/// Computes the gradients of [`fwd`], with xhat = (x - mean) * rstd:
///
/// - dx = rstd * (dy*gamma - mean(dy*gamma) - xhat * mean(dy*gamma*xhat)), written to dx or, if `accumulate`, added to dx;
/// - dgamma += sum over rows of dy * xhat, dbeta += sum over rows of dy. Rows are summed in blocks of 64, and the blocks
///   are added in order.
///
/// Returns an error for shapes other than those of [`Bwd`].
pub fn bwd(dev: &mut Device, call: Bwd) -> Result<()> {
    const OP: &str = "layer_norm::bwd";
    let Bwd { x, gamma, stats, dy, dx, dweights, .. } = call;
    check_all(OP, x, &[gamma], stats, [dy, dx])?;
    dweights
        .into_iter()
        .flatten()
        .try_for_each(|dw| check::tensor(OP, "dgamma or dbeta", dw, DType::F32, &[x.cols()]))?;
    dev.note_work(OP, 0.0, moved(&[x, dy, dx]) + added(dx, call.accumulate));
    dev.scope(Region::Workspace, |dev| {
        let partials = dev.alloc(Region::Workspace, DType::F32, &[x.rows().div_ceil(ROWS), 2 * x.cols()])?;
        dev.op(OP).run(|cpu| by_dtype!(x.dtype, backward(cpu, call, partials)), |gpu| launch_bwd(gpu, call, partials))
    })
}

fn launch_bwd(mut gpu: Gpu<'_>, call: Bwd, partials: Tensor) -> Result<()> {
    let Bwd { x, gamma, stats, dy, dx, accumulate, dweights } = call;
    let (rows, cols) = gpu_shape(gpu.op, x)?;
    let (dgamma, dbeta) = dweights.map(|[dgamma, dbeta]| (dgamma, dbeta)).unzip();
    let args =
        params!(layer_norm::BwdArgs { x, gamma, stats, dy, dx, dgamma, dbeta, partials, rows, cols, accumulate });
    gpu.launch("layer_norm", "layer_norm_bwd", check::by_warps(gpu.op, x.rows())?, args.clone())?;
    match dweights {
        Some(_) => launch_weights(&mut gpu, ["layer_norm", "layer_norm_dw", "layer_norm_dw_sum"], args, x, 2),
        None => Ok(()),
    }
}

fn backward<T: Elem>(cpu: Cpu<'_>, call: Bwd, partials: Tensor) {
    let Bwd { x, gamma, stats, dy, dx, accumulate, dweights } = call;
    let (t, d) = (x.rows(), x.cols());
    let [dgamma, dbeta] = dweights.unwrap_or([partials.slice(0, 0); 2]);
    let ([dx, dgamma, dbeta, partials], [x, gamma, stats, dy]) =
        cpu.memory.tensors([dx, dgamma, dbeta, partials], [x, gamma, stats, dy]);
    let (x, gamma, stats, dy) = (x.of::<T>(), gamma.of::<T>(), stats.of::<f32>(), dy.of::<T>());
    let partials = partials.of::<f32>();
    let (dx, parts) = (Parts::new(dx.of::<T>(), ROWS * d), Parts::new(partials, 2 * d));
    cpu.pool.run(t.div_ceil(ROWS), |i| {
        let (from, to) = (i * ROWS, ((i + 1) * ROWS).min(t));
        let (x, dy, stats) = (&x[from * d..to * d], &dy[from * d..to * d], &stats[2 * from..2 * to]);
        rows_bwd::<T>(cpu.isa, x, gamma, stats, dy, dx.take(i), accumulate, parts.take(i));
    });
    if dweights.is_some() {
        add_partials(cpu.isa, cpu.pool, partials, 2 * d, 0, dgamma.of::<f32>());
        add_partials(cpu.isa, cpu.pool, partials, 2 * d, d, dbeta.of::<f32>());
    }
}

cpu_kernel! {
    /// Computes dx of a block of rows, and the block's part `dw` `[2][D]` of dgamma and dbeta.
    fn rows_bwd<T: Elem>(
        x: &[T],
        gamma: &[T],
        stats: &[f32],
        dy: &[T],
        dx: &mut [T],
        accumulate: bool,
        dw: &mut [f32],
    ) {
        let d = gamma.len();
        dw.fill(0.0);
        let (dgamma, dbeta) = dw.split_at_mut(d);
        for (i, stats) in stats.chunks_exact(2).enumerate() {
            let (x, dy, dx) = (&x[i * d..][..d], &dy[i * d..][..d], &mut dx[i * d..][..d]);
            let (mean, r) = (stats[0], stats[1]);
            let xhat = |j: usize| (x[j].to_f32() - mean) * r;
            let direct = |j: usize| dy[j].to_f32() * gamma[j].to_f32();
            let along_1 = sum(d, |j, chain| chain + direct(j)) / d as f32;
            let along_x = sum(d, |j, chain| xhat(j).mul_add(direct(j), chain)) / d as f32;
            for j in 0..d {
                let v = (direct(j) - along_1 - xhat(j) * along_x) * r;
                dx[j] = T::from_f32(if accumulate { dx[j].to_f32() + v } else { v });
                dgamma[j] = dy[j].to_f32().mul_add(xhat(j), dgamma[j]);
                dbeta[j] += dy[j].to_f32();
            }
        }
    }
}
