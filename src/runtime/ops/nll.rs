//! Negative log-likelihood of targets: the fine-tuning loss and its gradient, which both stay on the device.

use crate::device::{Cpu, Device, Gpu, Launch, Region, params};
use crate::ops::check;
use crate::ops::cta::{THREADS, fold};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

const OP: &str = "nll::fwd";

/// Targets that one CTA of kernels/nll.cu sums.
const CHUNK: usize = 8192;

/// Subtracts `weight` times the sum of `log_prob` (f32 `[R]`) from `loss` (f64 `[1]`), and sets every element of
/// `dlog_prob` (f32 `[R]`) to -`weight`. With `weight` = 1 / (targets of the update), the calls for all micro-batches
/// add up to the mean. The sum is in f64, in a fixed order. Returns an error for other shapes.
pub fn fwd(dev: &mut Device, log_prob: Tensor, weight: f64, dlog_prob: Tensor, loss: Tensor) -> Result<()> {
    let len = log_prob.len();
    check::tensor(OP, "log_prob", log_prob, DType::F32, &[len])?;
    check::tensor(OP, "dlog_prob", dlog_prob, DType::F32, &[len])?;
    check::tensor(OP, "loss", loss, DType::F64, &[1])?;
    dev.scope(Region::Workspace, |dev| {
        let chunks = if dev.kind().is_gpu() { len.div_ceil(CHUNK) } else { 0 };
        let partials = dev.alloc(Region::Workspace, DType::F64, &[chunks])?;
        dev.op(OP).run(
            |cpu| on_cpu(cpu, log_prob, weight, dlog_prob, loss),
            |gpu| launch(gpu, log_prob, weight, dlog_prob, loss, partials),
        )
    })
}

fn on_cpu(cpu: Cpu<'_>, log_prob: Tensor, weight: f64, dlog_prob: Tensor, loss: Tensor) {
    let ([d, loss], [lp]) = cpu.memory.tensors([dlog_prob, loss], [log_prob]);
    let mut sum = 0.0;
    for chunk in lp.of::<f32>().chunks(CHUNK) {
        let mut lanes = [0.0; THREADS];
        for (i, &lp) in chunk.iter().enumerate() {
            lanes[i % THREADS] += f64::from(lp);
        }
        sum += fold(&mut lanes, 0.0, |a, b| a + b);
    }
    d.of::<f32>().fill(-weight as f32);
    loss.of::<f64>()[0] -= sum * weight;
}

fn launch(
    mut gpu: Gpu<'_>,
    log_prob: Tensor,
    weight: f64,
    dlog_prob: Tensor,
    loss: Tensor,
    partials: Tensor,
) -> Result<()> {
    let (len, count) = (log_prob.len() as i64, partials.len() as i64);
    let launch = check::launch(OP, partials.len(), THREADS, THREADS / 32 * 8)?;
    let args = params!(nll::ChunksArgs { log_prob, dlog_prob, partials, len, coefficient: -weight as f32 });
    gpu.launch("nll", "nll_chunks", launch, args)?;
    let args = params!(nll::AddArgs { partials, loss, weight, count });
    gpu.launch("nll", "nll_add", Launch::new([1, 1, 1], 32, 0), args)
}
