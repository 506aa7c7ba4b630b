//! Launches of kernels that take an array and a gradient to another gradient, eight elements of bf16 a thread.

use bytemuck::NoUninit;

use crate::device::{Address, Gpu, Launch};
use crate::error::Result;
use crate::ops::check;
use crate::tensor::Tensor;

/// `swiglu::Args` of kernels/swiglu.cu and `gelu::Args` of kernels/gelu.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    x: Address,
    dy: Address,
    dx: Address,
    len: i64,
}

/// Launches `kernel` of kernels/`file`.cu over the elements of `dy`. Errors where kernels cannot take them.
pub(in crate::ops) fn launch(
    op: &'static str,
    mut gpu: Gpu<'_>,
    [file, kernel]: [&'static str; 2],
    x: Tensor,
    dy: Tensor,
    dx: Tensor,
) -> Result<()> {
    const THREADS: usize = 256;
    const EACH: usize = 8;
    check::gpu_compute(op, dy.dtype)?;
    let args = Args { x: gpu.ptr(x), dy: gpu.ptr(dy), dx: gpu.ptr(dx), len: dy.len() as i64 };
    let grid = check::grid(op, dy.len().div_ceil(THREADS * EACH))?;
    gpu.launch(file, kernel, Launch::new([grid, 1, 1], THREADS as u32, 0), &args)
}
