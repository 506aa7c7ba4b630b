//! Entry point of one AdamW update, on the CPU or a GPU.

use super::code8::BLOCK;
use super::factors::{Factors, Noise};
use super::parameter::{AdamW, Moments, Parameter};
use super::update;
use crate::device::{Device, Gpu, Region, params};
use crate::ops::check::{self, moved};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Updates a parameter once. The weight is multiplied by 1 - lr * weight_decay, then moves by
///
/// ```text
/// -lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)
/// ```
///
/// with the new moments before they are rounded. `clip` is f32 `[2]`: a factor for the gradient and a flag; if the flag
/// is 0, nothing changes. On a GPU the weights must be bf16. Returns an error for wrong shapes or types.
pub fn step(dev: &mut Device, parameter: Parameter, hp: &AdamW, clip: Tensor) -> Result<()> {
    const OP: &str = "adamw::step";
    let Parameter { first, w, lo, grad, moments } = parameter;
    check::that(OP, first.is_multiple_of(BLOCK), format!("a range from a multiple of {BLOCK}"), first.to_string())?;
    check::compute(OP, "w", w)?;
    let len = w.len();
    check::flat(OP, "grad", grad, DType::F32, len)?;
    moments.check(OP, len)?;
    check::tensor(OP, "clip", clip, DType::F32, &[2])?;
    lo.map_or(Ok(()), |lo| check::low_half(OP, w, lo))?;
    // State on the host is not traffic of the device's memory.
    let state = moments.tensors().into_iter().flatten().chain(lo).filter(|t| t.region != Region::Host);
    let state: f64 = state.map(|t| moved(&[t])).sum();
    dev.note_work("adamw", 0.0, moved(&[grad]) + 2.0 * (moved(&[w]) + state));
    dev.op(OP).run(
        |cpu| {
            let &[clip, flag] = cpu.memory.view(clip.span()).of::<f32>() else { unreachable!("clip has two elements") };
            if flag != 0.0 {
                update::update(cpu, parameter, clip, Factors::new(hp), Noise::new(hp));
            }
        },
        |gpu| launch(gpu, parameter, hp, clip),
    )
}

fn launch(mut gpu: Gpu<'_>, parameter: Parameter, hp: &AdamW, clip: Tensor) -> Result<()> {
    /// Threads of a CTA, in which each warp handles one block of elements.
    const THREADS: usize = 256;
    let Parameter { first, w, lo, grad, moments } = parameter;
    check::gpu_compute(gpu.op, w.dtype)?;
    let kernel = match (moments, lo) {
        (Moments::F32 { .. }, Some(_)) => "adamw_f32",
        (Moments::Bf16 { .. }, Some(_)) => "adamw_bf16",
        (Moments::Code8 { .. }, Some(_)) => "adamw_8bit",
        (Moments::F32 { .. }, None) => "adamw_f32_rounded",
        (Moments::Bf16 { .. }, None) => "adamw_bf16_rounded",
        (Moments::Code8 { .. }, None) => "adamw_8bit_rounded",
    };
    let [m, m_scales, v, v_scales] = moments.tensors();
    let Noise { key, param } = Noise::new(hp);
    let (factors, len) = (Factors::new(hp), w.len() as i64);
    check::count(gpu.op, "elements of a parameter", first + w.len())?;
    let launch = check::launch(gpu.op, w.len().div_ceil(THREADS / 32 * BLOCK), THREADS, 0)?;
    let first = first as i64;
    let args = params!(adamw::Args { w, lo, grad, m, v, m_scales, v_scales, clip, len, first, factors, key, param });
    gpu.launch("adamw", kernel, launch, args)
}
