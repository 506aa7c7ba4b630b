//! Sum of the gradient lanes in lane order. The result is bitwise identical whichever rank computed which lane.

use crate::device::{Cpu, Device, Gpu, On, Parts, cpu_kernel, params};
use crate::error::Result;
use crate::ops::check;
use crate::tensor::{DType, Tensor};

/// Elements of a work item. The sum of these elements stays in the L1 cache while all lanes are added.
const ITEM: usize = 4096;

/// Computes out `[n]` = ((lane 0 + lane 1) + lane 2) + ..., in f32, over the first n columns of lanes `[L, stride]`, n
/// <= stride. `out` may start where lane 0 starts. Moves (L + 1) * 4 * n bytes. Returns an error for other shapes and
/// if there is no lane.
pub fn fwd(dev: &mut Device, lanes: Tensor, out: Tensor) -> Result<()> {
    const OP: &str = "lane_sum::fwd";
    check::tensor(OP, "lanes", lanes, DType::F32, &[lanes.rows(), lanes.cols()])?;
    check::flat(OP, "out", out, DType::F32, out.len())?;
    let fits = lanes.rows() > 0 && out.len() <= lanes.cols();
    check::that(OP, fits, format!("gradient lanes of at least {} elements", out.len()), format!("{:?}", lanes.shape))?;
    match dev.on() {
        On::Count => Ok(()),
        On::Cpu(cpu) => {
            on_cpu(cpu, lanes, out);
            Ok(())
        }
        On::Gpu(gpu) => launch(OP, gpu, lanes, out),
    }
}

fn launch(op: &'static str, mut gpu: Gpu<'_>, lanes: Tensor, out: Tensor) -> Result<()> {
    const THREADS: usize = 256;
    const EACH: usize = 4;
    let aligned = (gpu.ptr(lanes) | gpu.ptr(out)).is_multiple_of(16);
    let args = params!(lane_sum::Args {
        lanes,
        out,
        stride: lanes.cols() as i64,
        len: out.len() as i64,
        count: check::count(op, "lanes", lanes.rows())?,
        wide: aligned && lanes.cols().is_multiple_of(EACH),
    });
    gpu.launch("lane_sum", "lane_sum", check::launch(op, out.len().div_ceil(THREADS * EACH), THREADS, 0)?, args)
}

fn on_cpu(cpu: Cpu<'_>, lanes: Tensor, out: Tensor) {
    let stride = lanes.cols().max(1);
    let in_place = (lanes.region, lanes.offset) == (out.region, out.offset);
    let read = lanes.slice(in_place.into(), lanes.rows());
    let ([out], [read]) = cpu.memory.tensors([out], [read]);
    let (first, rest) = read.of::<f32>().split_at(if in_place { 0 } else { stride });
    let parts = Parts::new(out.of::<f32>(), ITEM);
    cpu.pool.run(parts.count(), |i| {
        let out = parts.take(i);
        let at = i * ITEM..i * ITEM + out.len();
        if !in_place {
            out.copy_from_slice(&first[at.clone()]);
        }
        rest.chunks_exact(stride).for_each(|lane| add(cpu.isa, &lane[at.clone()], out));
    });
}

cpu_kernel! {
    fn add(lane: &[f32], sum: &mut [f32]) {
        sum.iter_mut().zip(lane).for_each(|(sum, x)| *sum += x);
    }
}
