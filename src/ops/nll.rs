//! The negative log-likelihood of targets: fine-tuning's loss and its gradient, left on the device.

use bytemuck::NoUninit;

use crate::device::{Address, Cpu, Device, Gpu, Launch, On, Region};
use crate::error::Result;
use crate::ops::check;
use crate::ops::cta::{THREADS, fold};
use crate::tensor::{DType, Tensor};

const OP: &str = "nll::fwd";

/// Targets of a CTA's sum in kernels/nll.cu.
const CHUNK: usize = 8192;

/// Takes `weight` times the sum of `log_prob` (f32 `[R]`) off `loss` (f64 `[1]`), and sets every element of `dlog_prob`
/// (f32 `[R]`) to -`weight`: with 1 over the targets of an update, the mean over all its micro-batches. The sum is f64 in
/// one order. Errors on other shapes.
pub fn fwd(dev: &mut Device, log_prob: Tensor, weight: f64, dlog_prob: Tensor, loss: Tensor) -> Result<()> {
    let len = log_prob.len();
    check::tensor(OP, "log_prob", log_prob, DType::F32, &[len])?;
    check::tensor(OP, "dlog_prob", dlog_prob, DType::F32, &[len])?;
    check::tensor(OP, "loss", loss, DType::F64, &[1])?;
    let mark = dev.mark(Region::Workspace);
    let chunks = if dev.kind().is_gpu() { len.div_ceil(CHUNK) } else { 0 };
    let partials = dev.alloc(Region::Workspace, DType::F64, &[chunks])?;
    let done = match dev.on() {
        On::Count => Ok(()),
        On::Cpu(cpu) => {
            on_cpu(cpu, log_prob, weight, dlog_prob, loss);
            Ok(())
        }
        On::Gpu(gpu) => launch(gpu, log_prob, weight, dlog_prob, loss, partials),
    };
    dev.release(mark);
    done
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

/// `nll::ChunksArgs` of kernels/nll.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ChunksArgs {
    log_prob: Address,
    dlog_prob: Address,
    partials: Address,
    len: i64,
    coefficient: f32,
    pad: i32,
}

/// `nll::AddArgs` of kernels/nll.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct AddArgs {
    partials: Address,
    loss: Address,
    weight: f64,
    count: i64,
}

fn launch(
    mut gpu: Gpu<'_>,
    log_prob: Tensor,
    weight: f64,
    dlog_prob: Tensor,
    loss: Tensor,
    partials: Tensor,
) -> Result<()> {
    let len = log_prob.len() as i64;
    let args = ChunksArgs {
        log_prob: gpu.ptr(log_prob),
        dlog_prob: gpu.ptr(dlog_prob),
        partials: gpu.ptr(partials),
        len,
        coefficient: -weight as f32,
        pad: 0,
    };
    let grid = [check::grid(OP, partials.len())?, 1, 1];
    gpu.launch("nll", "nll_chunks", Launch::new(grid, THREADS as u32, THREADS / 32 * 8), &args)?;
    let args = AddArgs { partials: args.partials, loss: gpu.ptr(loss), weight, count: partials.len() as i64 };
    gpu.launch("nll", "nll_add", Launch::new([1, 1, 1], 32, 0), &args)
}
