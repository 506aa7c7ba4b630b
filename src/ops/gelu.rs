//! Backward of the exact GELU. The forward is the epilogue of [`super::linear::fwd_gelu`].

use crate::device::{Cpu, Device, Gpu, On, Parts, cpu_kernel, params};
use crate::error::Result;
use crate::math;
use crate::ops::check::{self, by_dtype};
use crate::ops::cost::moved;
use crate::tensor::{Elem, Tensor};

/// Elements of one work item.
const CHUNK: usize = 4096;

/// Computes dpre = dy * gelu'(pre), all `[T, N]`.
pub fn bwd(dev: &mut Device, pre: Tensor, dy: Tensor, dpre: Tensor) -> Result<()> {
    const OP: &str = "gelu::bwd";
    let (dims, dtype) = ([dy.rows(), dy.cols()], dy.dtype);
    check::tensor(OP, "dy", dy, dtype, &dims)?;
    check::tensor(OP, "pre", pre, dtype, &dims)?;
    check::tensor(OP, "dpre", dpre, dtype, &dims)?;
    dev.note_work(OP, 0.0, moved(&[pre, dy, dpre]));
    match dev.on() {
        On::Count => {}
        On::Cpu(cpu) => by_dtype!(dtype, body(cpu, pre, dy, dpre)),
        On::Gpu(gpu) => launch(OP, gpu, pre, dy, dpre)?,
    }
    Ok(())
}

fn launch(op: &'static str, mut gpu: Gpu<'_>, pre: Tensor, dy: Tensor, dpre: Tensor) -> Result<()> {
    const THREADS: usize = 256;
    const EACH: usize = 8;
    check::gpu_compute(op, dy.dtype)?;
    let launch = check::launch(op, dy.len().div_ceil(THREADS * EACH), THREADS, 0)?;
    gpu.launch("gelu", "gelu_bwd", launch, params!(gelu::Args { pre, dy, dpre, len: dy.len() as i64 }))
}

fn body<E: Elem>(cpu: Cpu<'_>, pre: Tensor, dy: Tensor, dpre: Tensor) {
    let ([out], [pre, dy]) = cpu.memory.tensors([dpre], [pre, dy]);
    let (pre, dy) = (pre.of::<E>(), dy.of::<E>());
    let parts = Parts::new(out.of::<E>(), CHUNK);
    cpu.pool.run(parts.count(), |i| {
        let out = parts.take(i);
        let at = i * CHUNK..i * CHUNK + out.len();
        elements::<E>(cpu.isa, &pre[at.clone()], &dy[at], out);
    });
}

cpu_kernel! {
    fn elements<E: Elem>(pre: &[E], dy: &[E], out: &mut [E]) {
        for ((x, d), out) in pre.iter().zip(dy).zip(out) {
            *out = E::from_f32(d.to_f32() * math::gelu_grad(x.to_f32()));
        }
    }
}
