//! The backward on a GPU, wave by wave of ids in ascending order: kernels/linear_logprob_bwd.cu makes the gradients of
//! a wave's logits, kernels/gemm_bwd.cu multiplies them by W and by hidden.

use bytemuck::NoUninit;

use super::backward::Backward;
use super::gpu::{Allowed, launch_tiles};
use super::logits::inverse_temperature;
use crate::device::{Address, Device, Gpu, On, Region};
use crate::error::Result;
use crate::ops::check;
use crate::ops::gemm::{self, Bodies, Operands, Role, Sums, wide_names};
use crate::ops::matmul::{Order, Weight, row_stride};
use crate::tensor::{DType, Tensor};

/// `linear_logprob_bwd::Args`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    operands: Operands,
    allowed: Allowed,
    targets: Address,
    lse: Address,
    dlogprob: Address,
    entropy: Address,
    dentropy: Address,
    dz: Address,
    scale: f32,
    first: i32,
    stride: i32,
    pad: i32,
}

/// Elements from row to row of dz: copies of 16 bytes need a multiple of 8.
fn stride(ids: usize) -> usize {
    ids.next_multiple_of(8)
}

impl Backward<'_> {
    /// In waves of `wave` ids, a multiple of 128: no chain then depends on where waves end.
    pub(super) fn by_waves(&self, op: &'static str, dev: &mut Device, wave: usize) -> Result<()> {
        let (t, v) = (self.asked.hidden.rows(), self.asked.w.n);
        let wave = wave.min(v);
        let dz = dev.alloc(Region::Workspace, DType::Bf16, &[t * stride(wave)])?;
        // dhidden's chains between waves.
        let sums = if wave < v {
            Some(dev.alloc(Region::Workspace, DType::F32, &[t, row_stride(self.asked.w.k)])?)
        } else {
            None
        };
        let On::Gpu(mut gpu) = dev.on() else { return Ok(()) };
        check::gpu_compute(op, self.asked.hidden.dtype)?;
        check::that(op, self.asked.w.order == Order::Rows, "a weight in rows", format!("{:?}", self.asked.w.order))?;
        for first in (0..v).step_by(wave.max(1)) {
            let ids = wave.min(v - first);
            let w = self.rows(first, ids);
            let dz = dz.slice(0, t * stride(ids)).reshape(&[t, stride(ids)]);
            self.logits(op, &mut gpu, &w, first, dz)?;
            let dw = self.call.dw.slice(first * row_stride(w.k), (first + ids) * row_stride(w.k));
            gemm::wgrad(op, &mut gpu, self.asked.hidden, dz, ids, dw, None)?;
            let chain = Sums { from: sums.filter(|_| first > 0), to: sums.filter(|_| first + ids < v) };
            gemm::dgrad_part(op, &mut gpu, dz, &w, self.call.dhidden, chain)?;
        }
        Ok(())
    }

    /// Rows of the weight.
    fn rows(&self, first: usize, count: usize) -> Weight {
        let data = self.asked.w.data.reshape(&[self.asked.w.n, row_stride(self.asked.w.k)]).slice(first, first + count);
        Weight { data, n: count, ..*self.asked.w }
    }

    /// dz `[T][stride]` of the ids from `first` on, whose weight is `w`.
    fn logits(&self, op: &'static str, gpu: &mut Gpu<'_>, w: &Weight, first: usize, dz: Tensor) -> Result<()> {
        const NAMES: Bodies = Bodies {
            tiles: ["linear_logprob_dz_m16", "linear_logprob_dz_m64", "linear_logprob_dz_m128"],
            wide: wide_names!("linear_logprob_dz"),
            role: Role::Logits,
        };
        let args = Args {
            operands: Operands::of(op, gpu, self.asked.hidden, w)?,
            allowed: Allowed::new(op, gpu, self.asked.allowed, self.asked.w.n)?,
            targets: gpu.ptr(self.asked.targets),
            lse: gpu.ptr(self.call.lse),
            dlogprob: gpu.ptr(self.call.dlogprob),
            entropy: gpu.ptr_or_null(self.call.entropy),
            dentropy: gpu.ptr_or_null(self.call.dentropy),
            dz: gpu.ptr(dz),
            scale: inverse_temperature(self.asked.temperature),
            first: check::count(op, "ids", first)?,
            stride: check::count(op, "columns", dz.cols())?,
            pad: 0,
        };
        launch_tiles(op, gpu, "linear_logprob_bwd", &NAMES, (self.asked.hidden, w), &args)
    }
}
