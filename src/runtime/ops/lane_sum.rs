//! Adds the gradients of several ranks to a sum, in the order of the ranks. The bits of an update's sums therefore do not
//! depend on which rank computed which micro-batch.

use crate::device::{Cpu, Device, Gpu, Parts, params};
use crate::ops::{check, lanes};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Elements of a work item. The sum of these elements stays in the L1 cache while all gradients are added.
const ITEM: usize = 4096;

/// Computes sum `[n]` = ((sum + lane 0) + lane 1) + ..., in f32, over the first n columns of lanes `[L, stride]`, n <=
/// stride. Returns an error for other shapes and if there is no lane.
pub fn fwd(dev: &mut Device, lanes: Tensor, sum: Tensor) -> Result<()> {
    const OP: &str = "lane_sum::fwd";
    check::tensor(OP, "lanes", lanes, DType::F32, &[lanes.rows(), lanes.cols()])?;
    check::flat(OP, "sum", sum, DType::F32, sum.len())?;
    let fits = lanes.rows() > 0 && sum.len() <= lanes.cols();
    check::that(OP, fits, format!("gradients of at least {} elements", sum.len()), format!("{:?}", lanes.shape))?;
    let moved = (lanes.rows() + 2) * sum.span().bytes;
    dev.note_work("lane_sum", (lanes.rows() * sum.len()) as f64, moved as f64);
    dev.op(OP).run(|cpu| on_cpu(cpu, lanes, sum), |gpu| launch(gpu, lanes, sum))
}

fn launch(mut gpu: Gpu<'_>, lanes: Tensor, sum: Tensor) -> Result<()> {
    const EACH: usize = 4;
    let aligned = (gpu.ptr(lanes) | gpu.ptr(sum)).is_multiple_of(16);
    let args = params!(lane_sum::Args {
        lanes,
        sum,
        stride: lanes.cols() as i64,
        len: sum.len() as i64,
        count: check::count(gpu.op, "lanes", lanes.rows())?,
        wide: aligned && lanes.cols().is_multiple_of(EACH),
    });
    gpu.launch("lane_sum", "lane_sum", check::by_elements(gpu.op, sum.len(), EACH)?, args)
}

fn on_cpu(cpu: Cpu<'_>, lanes: Tensor, sum: Tensor) {
    let stride = lanes.cols().max(1);
    let ([sum], [lanes]) = cpu.memory.tensors([sum], [lanes]);
    let (lanes, parts) = (lanes.of::<f32>(), Parts::new(sum.of::<f32>(), ITEM));
    cpu.pool.run(parts.count(), |i| {
        let sum = parts.take(i);
        let at = i * ITEM..i * ITEM + sum.len();
        lanes.chunks_exact(stride).for_each(|lane| lanes::add(cpu.isa, &lane[at.clone()], sum));
    });
}
