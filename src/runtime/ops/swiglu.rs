//! Backward of silu(gate) * up. The forward is the epilogue of [`super::linear::fwd_swiglu`].

use crate::device::{Cpu, Device, Gpu, Parts, cpu_kernel, params};
use crate::ops::check::{self, by_dtype, moved};
use crate::ops::matmul::PANEL;
use crate::tensor::{Elem, Tensor};
use omr_base::error::Result;
use omr_base::math;

/// Rows of one work item, enough to outweigh the cost of scheduling it.
const ROWS: usize = 16;

/// Computes dgate_up [T, 2F] from gate_up [T, 2F] (interleaved in blocks of 32: gate, up, gate, ...) and dy [T, F].
pub fn bwd(dev: &mut Device, gate_up: Tensor, dy: Tensor, dgate_up: Tensor) -> Result<()> {
    const OP: &str = "swiglu::bwd";
    let (t, f, dtype) = (dy.rows(), dy.cols().next_multiple_of(PANEL), dy.dtype);
    check::tensor(OP, "dy", dy, dtype, &[t, f])?;
    check::tensor(OP, "gate_up", gate_up, dtype, &[t, 2 * f])?;
    check::tensor(OP, "dgate_up", dgate_up, dtype, &[t, 2 * f])?;
    dev.note_work(OP, 0.0, moved(&[gate_up, dy, dgate_up]));
    dev.op(OP).run(|cpu| by_dtype!(dtype, body(cpu, gate_up, dy, dgate_up)), |gpu| launch(gpu, gate_up, dy, dgate_up))
}

fn launch(mut gpu: Gpu<'_>, gate_up: Tensor, dy: Tensor, dgate_up: Tensor) -> Result<()> {
    check::gpu_compute(gpu.op, dy.dtype)?;
    let launch = check::by_elements(gpu.op, dy.len(), 8)?;
    gpu.launch("swiglu", "swiglu_bwd", launch, params!(swiglu::Args { gate_up, dy, dgate_up, len: dy.len() as i64 }))
}

fn body<E: Elem>(cpu: Cpu<'_>, gate_up: Tensor, dy: Tensor, dgate_up: Tensor) {
    let ([out], [gate_up_view, dy_view]) = cpu.memory.tensors([dgate_up], [gate_up, dy]);
    let (gate_up, dy, chunk) = (gate_up_view.of::<E>(), dy_view.of::<E>(), 2 * ROWS * dy.cols());
    let parts = Parts::new(out.of::<E>(), chunk);
    cpu.pool.run(parts.count(), |i| {
        let out = parts.take(i);
        let at = i * chunk;
        rows::<E>(cpu.isa, &gate_up[at..at + out.len()], &dy[at / 2..(at + out.len()) / 2], out);
    });
}

cpu_kernel! {
    fn rows<E: Elem>(gate_up: &[E], dy: &[E], out: &mut [E]) {
        let outs = out.chunks_exact_mut(2 * PANEL);
        for ((out, pair), dy) in outs.zip(gate_up.chunks_exact(2 * PANEL)).zip(dy.chunks_exact(PANEL)) {
            let ((gate, up), (dgate, dup)) = (pair.split_at(PANEL), out.split_at_mut(PANEL));
            for j in 0..PANEL {
                let (g, u, d) = (gate[j].to_f32(), up[j].to_f32(), dy[j].to_f32());
                dgate[j] = E::from_f32(d * u * math::silu_grad(g));
                dup[j] = E::from_f32(d * math::silu(g));
            }
        }
    }
}
