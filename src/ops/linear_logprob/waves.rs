//! Backward on a GPU, in waves of ids in ascending order. kernels/linear_logprob_bwd.cu computes the gradients of a
//! wave's logits, and kernels/gemm_bwd.cu multiplies them by W and by hidden.

use super::backward::Backward;
use super::gpu::{allowed, launch_tiles};
use super::logits::inverse_temperature;
use crate::device::{Device, Gpu, On, Region, params};
use crate::error::Result;
use crate::ops::check;
use crate::ops::gemm::{self, Chains, KernelNames, Role, kernel_names, operands};
use crate::ops::matmul::{Order, Weight, row_stride};
use crate::tensor::{DType, Tensor};

/// Returns the row stride of dz in elements: 16-byte copies require a multiple of 8.
fn stride(ids: usize) -> usize {
    ids.next_multiple_of(8)
}

impl Backward<'_> {
    /// Runs the backward in waves of `wave` ids, a multiple of 128, so that no sum depends on where waves end.
    pub(super) fn by_waves(&self, op: &'static str, dev: &mut Device, wave: usize) -> Result<()> {
        let (t, v) = (self.logprob_call.hidden.rows(), self.logprob_call.w.n);
        let wave = wave.min(v);
        let dz = dev.alloc(Region::Workspace, DType::Bf16, &[t * stride(wave)])?;
        // Unfinished sums of dhidden between waves.
        let sums = if wave < v {
            Some(dev.alloc(Region::Workspace, DType::F32, &[t, row_stride(self.logprob_call.w.k)])?)
        } else {
            None
        };
        let On::Gpu(mut gpu) = dev.on() else { return Ok(()) };
        check::gpu_compute(op, self.logprob_call.hidden.dtype)?;
        check::that(
            op,
            self.logprob_call.w.order == Order::Rows,
            "a weight in row order",
            format!("{:?}", self.logprob_call.w.order),
        )?;
        for first in (0..v).step_by(wave.max(1)) {
            let ids = wave.min(v - first);
            let w = self.rows(first, ids);
            let dz = dz.slice(0, t * stride(ids)).reshape(&[t, stride(ids)]);
            self.logits(op, &mut gpu, &w, first, dz)?;
            if let Some(dw) = self.call.dw {
                let dw = dw.slice(first * row_stride(w.k), (first + ids) * row_stride(w.k));
                gemm::wgrad(op, &mut gpu, self.logprob_call.hidden, dz, ids, dw, None)?;
            }
            let chain = Chains { from: sums.filter(|_| first > 0), to: sums.filter(|_| first + ids < v) };
            gemm::dgrad_part(op, &mut gpu, dz, &w, self.call.dhidden, chain)?;
        }
        Ok(())
    }

    /// Returns `count` rows of the weight from `first` on.
    fn rows(&self, first: usize, count: usize) -> Weight {
        let data = self
            .logprob_call
            .w
            .data
            .reshape(&[self.logprob_call.w.n, row_stride(self.logprob_call.w.k)])
            .slice(first, first + count);
        Weight { data, n: count, ..*self.logprob_call.w }
    }

    /// Computes dz `[T][stride]` of the ids from `first` on, whose rows of the weight are `w`.
    fn logits(&self, op: &'static str, gpu: &mut Gpu<'_>, w: &Weight, first: usize, dz: Tensor) -> Result<()> {
        const NAMES: KernelNames = kernel_names!("linear_logprob_dz", Role::Logits);
        let out = params!(LogitGradient::Args {
            allowed: allowed(op, self.logprob_call.allowed, self.logprob_call.w.n)?,
            targets: self.logprob_call.targets,
            lse: self.call.lse,
            dlogprob: self.call.dlog_prob,
            entropy: self.call.entropy,
            dentropy: self.call.dentropy,
            dz,
            scale: inverse_temperature(self.logprob_call.temperature),
            first: check::count(op, "ids", first)?,
            stride: check::count(op, "columns", dz.cols())?,
        });
        let args = operands(op, self.logprob_call.hidden, w)?.with(out);
        launch_tiles(op, gpu, "linear_logprob_bwd", &NAMES, self.logprob_call.hidden, w, args)
    }
}
