//! Benchmarks of the ops of an optimizer update.

use super::case::{Case, op};
use super::inputs::{Sizes, bytes, random, zeros};
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::adamw::{self, AdamW, Coded, Moments, code8};
use omr_runtime::ops::{grad_norm, lane_sum};
use omr_runtime::tensor::{DType, Tensor};

pub fn adamw_step(dev: &mut Device, s: Sizes, eight_bit: bool) -> Result<Case> {
    let n = s.parameters;
    let w = random(dev, s.dtype, &[n], 0.02 * s.scale)?;
    let lo = (s.dtype == DType::Bf16).then(|| dev.zeros(Region::State, DType::I16, &[n])).transpose()?;
    let grad = random(dev, DType::F32, &[n], 1e-3 * s.scale)?;
    let moments = if eight_bit {
        let scales = n.div_ceil(code8::BLOCK);
        let [m, v] = [(); 2].map(|()| -> Result<Coded> {
            Ok(Coded { codes: zeros(dev, DType::U8, &[n])?, scales: zeros(dev, DType::F32, &[scales])? })
        });
        Moments::Code8 { m: m?, v: v? }
    } else {
        Moments::F32 { m: zeros(dev, DType::F32, &[n])?, v: zeros(dev, DType::F32, &[n])? }
    };
    let clip = dev.upload(Region::Overlay, &[1.0_f32, 1.0], &[2])?;
    let hp = AdamW { lr: 1e-5, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01, step: 1, seed: 1, param: 0 };
    let stored: Vec<Tensor> = moments.tensors().into_iter().flatten().chain(lo).chain([w]).collect();
    let moved = 2.0 * bytes(&stored) + bytes(&[grad]);
    let name = if eight_bit { "adamw step, 8 bits" } else { "adamw step" };
    op(name, s.dtype, format!("{n} parameters"), 0.0, moved, move |dev| {
        adamw::step(dev, adamw::Parameter { first: 0, w, lo, grad, moments }, &hp, clip)
    })
}

pub fn grad_norm_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    let grad = random(dev, DType::F32, &[s.parameters], 1e-3 * s.scale)?;
    let partials = zeros(dev, DType::F64, &[s.parameters.div_ceil(grad_norm::CHUNK)])?;
    let out = zeros(dev, DType::F32, &[3])?;
    op("grad_norm fwd", s.dtype, format!("{} parameters", s.parameters), 0.0, bytes(&[grad]), move |dev| {
        grad_norm::partials(dev, &[grad], partials)?;
        grad_norm::finish(dev, partials, 1.0, None, out)
    })
}

pub fn lane_sum_fwd(dev: &mut Device, s: Sizes) -> Result<Case> {
    const LANES: usize = 8;
    let len = s.parameters / LANES;
    let lanes = random(dev, DType::F32, &[LANES, len], 1e-3 * s.scale)?;
    let out = zeros(dev, DType::F32, &[len])?;
    let (shape, moved) = (format!("{LANES} lanes of {len} elements"), bytes(&[lanes, out]));
    op("lane_sum fwd", s.dtype, shape, 0.0, moved, move |dev| lane_sum::fwd(dev, lanes, out))
}

/// Makes the case of a copy of the optimizer's gradients on the device, which is as fast as its memory. It launches no
/// kernel of omr.
pub fn copy(dev: &mut Device, s: Sizes) -> Result<Case> {
    let (from, to) = (random(dev, DType::F32, &[s.parameters], s.scale)?, zeros(dev, DType::F32, &[s.parameters])?);
    op("copy", DType::F32, format!("{} bytes", from.span().bytes), 0.0, bytes(&[from, to]), move |dev| {
        dev.copy(from, to)
    })
}
