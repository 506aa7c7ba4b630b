//! Backward of GELU. The forward is the epilogue of [`super::linear::fwd_gelu`].

use crate::device::{Cpu, Device, Gpu, Parts, cpu_kernel, params};
use crate::ops::check::{self, by_dtype, moved};
use crate::tensor::{Elem, Tensor};
use omr_base::error::Result;
use omr_base::math;

/// Elements of one work item.
const CHUNK: usize = 4096;

/// Formula of GELU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GeluKind {
    /// x (1 + erf(x / sqrt 2)) / 2.
    Exact,
    /// The approximation with tanh: [`math::gelu_tanh`].
    Tanh,
}

/// Computes dpre = dy * gelu'(pre), all `[T, N]`.
pub fn bwd(dev: &mut Device, kind: GeluKind, pre: Tensor, dy: Tensor, dpre: Tensor) -> Result<()> {
    const OP: &str = "gelu::bwd";
    let (dims, dtype) = ([dy.rows(), dy.cols()], dy.dtype);
    check::tensor(OP, "dy", dy, dtype, &dims)?;
    check::tensor(OP, "pre", pre, dtype, &dims)?;
    check::tensor(OP, "dpre", dpre, dtype, &dims)?;
    dev.note_work(OP, 0.0, moved(&[pre, dy, dpre]));
    dev.op(OP).run(|cpu| by_dtype!(dtype, body(cpu, kind, pre, dy, dpre)), |gpu| launch(gpu, kind, pre, dy, dpre))
}

fn launch(mut gpu: Gpu<'_>, kind: GeluKind, pre: Tensor, dy: Tensor, dpre: Tensor) -> Result<()> {
    check::gpu_compute(gpu.op, dy.dtype)?;
    let launch = check::by_elements(gpu.op, dy.len(), 8)?;
    let kernel = if kind == GeluKind::Exact { "gelu_bwd" } else { "gelu_tanh_bwd" };
    gpu.launch("gelu", kernel, launch, params!(gelu::Args { pre, dy, dpre, len: dy.len() as i64 }))
}

fn body<E: Elem>(cpu: Cpu<'_>, kind: GeluKind, pre: Tensor, dy: Tensor, dpre: Tensor) {
    let ([out], [pre, dy]) = cpu.memory.tensors([dpre], [pre, dy]);
    let (pre, dy) = (pre.of::<E>(), dy.of::<E>());
    let parts = Parts::new(out.of::<E>(), CHUNK);
    cpu.pool.run(parts.count(), |i| {
        let out = parts.take(i);
        let at = i * CHUNK..i * CHUNK + out.len();
        elements::<E>(cpu.isa, kind, &pre[at.clone()], &dy[at], out);
    });
}

cpu_kernel! {
    fn elements<E: Elem>(kind: GeluKind, pre: &[E], dy: &[E], out: &mut [E]) {
        match kind {
            GeluKind::Exact => products(pre, dy, out, math::gelu_grad),
            GeluKind::Tanh => products(pre, dy, out, math::gelu_tanh_grad),
        }
    }
}

#[inline(always)]
fn products<E: Elem>(pre: &[E], dy: &[E], out: &mut [E], slope: impl Fn(f32) -> f32) {
    for ((x, d), out) in pre.iter().zip(dy).zip(out) {
        *out = E::from_f32(d.to_f32() * slope(x.to_f32()));
    }
}
