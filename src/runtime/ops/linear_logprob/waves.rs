//! Backward on a GPU, in waves of ids in ascending order. kernels/linear_logprob_bwd.cu computes the gradients of a
//! wave's logits, and kernels/gemm_bwd.cu multiplies them by W and by hidden.

use super::backward::Backward;
use super::call::LogProbCall;
use super::gpu::{allowed, launch_tiles};
use super::logits::inverse_temperature;
use crate::device::{Device, Gpu, On, Region, params};
use crate::ops::check;
use crate::ops::gemm::{self, Chains, KernelNames, Role, kernel_names, operands};
use crate::ops::gradient::Gradient;
use crate::ops::matmul::{Order, Weight, row_stride};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Returns the row stride of dz in elements: 16-byte copies require a multiple of 8.
fn stride(ids: usize) -> usize {
    ids.next_multiple_of(8)
}

impl Backward<'_> {
    /// Runs the backward in waves of `wave` ids, a multiple of 128, so that no sum depends on where waves end.
    pub(super) fn by_waves(&self, op: &'static str, dev: &mut Device, wave: usize) -> Result<()> {
        let LogProbCall { hidden, w: &all, .. } = self.logprob_call;
        let (t, v, stride_of_w) = (hidden.rows(), all.n, row_stride(all.k));
        let wave = wave.min(v);
        let dz = dev.alloc(Region::Workspace, DType::Bf16, &[t * stride(wave)])?;
        // Unfinished sums of dhidden between waves.
        let sums = (wave < v).then(|| dev.alloc(Region::Workspace, DType::F32, &[t, stride_of_w])).transpose()?;
        let On::Gpu(mut gpu) = dev.op(op) else { return Ok(()) };
        check::gpu_compute(op, hidden.dtype)?;
        check::that(op, all.order == Order::Rows, "a weight in row order", format!("{:?}", all.order))?;
        for first in (0..v).step_by(wave.max(1)) {
            let ids = wave.min(v - first);
            let data = all.data.reshape(&[v, stride_of_w]).slice(first, first + ids);
            let w = Weight { data, n: ids, ..all };
            let dz = dz.slice(0, t * stride(ids)).reshape(&[t, stride(ids)]);
            self.logits(&mut gpu, &w, first, dz)?;
            if let Some(dw) = self.call.dw {
                let tensor = dw.tensor.slice(first * stride_of_w, (first + ids) * stride_of_w);
                let dw = Gradient { tensor, ..dw };
                gemm::wgrad(&mut gpu, hidden, dz, ids, dw, None)?;
            }
            let chain = Chains { from: sums.filter(|_| first > 0), to: sums.filter(|_| first + ids < v) };
            gemm::dgrad_part(&mut gpu, dz, &w, self.call.dhidden, chain)?;
        }
        Ok(())
    }

    /// Computes dz `[T][stride]` of the ids from `first` on, whose rows of the weight are `w`.
    fn logits(&self, gpu: &mut Gpu<'_>, w: &Weight, first: usize, dz: Tensor) -> Result<()> {
        const NAMES: KernelNames = kernel_names!("linear_logprob_dz", Role::Logits);
        let LogProbCall { hidden, targets, temperature, .. } = self.logprob_call;
        let out = params!(LogitGradient::Args {
            allowed: allowed(gpu.op, self.logprob_call.allowed, self.logprob_call.w.n)?,
            targets,
            lse: self.call.lse,
            dlogprob: self.call.dlog_prob,
            entropy: self.call.entropy,
            dentropy: self.call.dentropy,
            dz,
            scale: inverse_temperature(temperature),
            first: check::count(gpu.op, "ids", first)?,
            stride: check::count(gpu.op, "columns", dz.cols())?,
        });
        let args = operands(gpu.op, hidden, w)?.with(out);
        launch_tiles(gpu, "linear_logprob_bwd", &NAMES, hidden, w, args)
    }
}
