//! AdamW with decoupled weight decay, as `torch.optim.AdamW`, elementwise over a weight and its state.

use bytemuck::NoUninit;
use half::bf16;

use crate::device::{Address, Cpu, Device, Gpu, Launch, On, Parts, cpu_kernel};
use crate::error::Result;
use crate::ops::check;
use crate::tensor::{DType, Tensor};

/// Elements of one work item.
const ITEM: usize = 8192;

/// The settings of one update, in f64 as torch holds them: 1 - beta2 in f32 would be off by 1e-5 of itself.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Updates done with this one included: 1 for the first.
    pub step: u64,
}

/// The settings as the loop over elements wants them, worked out in f64; `adamw::Factors` of kernels/adamw.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Factors {
    keep: f32,
    one_minus_beta1: f32,
    beta2: f32,
    one_minus_beta2: f32,
    step_size: f32,
    inv_root: f32,
    eps: f32,
}

impl Factors {
    fn new(hp: &AdamW) -> Factors {
        let AdamW { lr, beta1, beta2, eps, weight_decay, .. } = *hp;
        let step = hp.step.max(1) as f64;
        let (bias1, bias2) = (1.0 - beta1.powf(step), 1.0 - beta2.powf(step));
        Factors {
            keep: (1.0 - lr * weight_decay) as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            beta2: beta2 as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            step_size: (lr / bias1) as f32,
            inv_root: (1.0 / bias2.sqrt()) as f32,
            eps: eps as f32,
        }
    }
}

/// One update. `w` is f32 (`lo` None) or bf16 with `lo` i16, the low half of an exact f32 master (see [`split`]);
/// grad, m and v are f32; all in the same element order. `clip` is f32 `[2]`: a factor for the gradient and a flag;
/// nothing changes when the flag is 0. On a GPU the weights are bf16. The weight is scaled by 1 - lr * weight_decay, then
/// moves by -lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps). Errors on other shapes.
#[allow(clippy::too_many_arguments)]
pub fn step(
    dev: &mut Device,
    w: Tensor,
    lo: Option<Tensor>,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    hp: &AdamW,
    clip: Tensor,
) -> Result<()> {
    const OP: &str = "adamw::step";
    check::compute(OP, "w", w)?;
    let len = w.len();
    check::flat(OP, "grad", grad, DType::F32, len)?;
    check::flat(OP, "m", m, DType::F32, len)?;
    check::flat(OP, "v", v, DType::F32, len)?;
    check::tensor(OP, "clip", clip, DType::F32, &[2])?;
    match (w.dtype, lo) {
        (DType::Bf16, Some(lo)) => check::flat(OP, "lo", lo, DType::I16, len)?,
        (dtype, lo) => {
            let got = format!("{dtype:?} and lo {}", if lo.is_some() { "given" } else { "absent" });
            check::that(OP, dtype == DType::F32 && lo.is_none(), "w f32 alone, or bf16 with lo", got)?;
        }
    }
    match (dev.on(), lo) {
        (On::Count, _) => Ok(()),
        (On::Cpu(cpu), _) => {
            let &[clip, flag] = cpu.memory.view(clip.span()).of::<f32>() else { unreachable!("clip has two elements") };
            if flag != 0.0 {
                update(cpu, w, lo, grad, m, v, clip, Factors::new(hp));
            }
            Ok(())
        }
        (On::Gpu(gpu), Some(lo)) => launch(gpu, w, lo, grad, m, v, hp, clip),
        (On::Gpu(_), None) => check::that(OP, false, "bf16 weights where kernels run", "f32"),
    }
}

/// `adamw::Args` of kernels/adamw.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    w: Address,
    lo: Address,
    grad: Address,
    m: Address,
    v: Address,
    clip: Address,
    len: i64,
    factors: Factors,
    pad: i32,
}

#[allow(clippy::too_many_arguments)]
fn launch(
    mut gpu: Gpu<'_>,
    w: Tensor,
    lo: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    hp: &AdamW,
    clip: Tensor,
) -> Result<()> {
    const THREADS: usize = 256;
    const EACH: usize = 4;
    let args = Args {
        w: gpu.ptr(w),
        lo: gpu.ptr(lo),
        grad: gpu.ptr(grad),
        m: gpu.ptr(m),
        v: gpu.ptr(v),
        clip: gpu.ptr(clip),
        len: w.len() as i64,
        factors: Factors::new(hp),
        pad: 0,
    };
    let grid = check::grid("adamw::step", w.len().div_ceil(THREADS * EACH))?;
    gpu.launch("adamw", "adamw_bf16", Launch::new([grid, 1, 1], THREADS as u32, 0), &args)
}

#[allow(clippy::too_many_arguments)]
fn update(cpu: Cpu<'_>, w: Tensor, lo: Option<Tensor>, grad: Tensor, m: Tensor, v: Tensor, clip: f32, f: Factors) {
    match lo {
        None => {
            let ([w, m, v], [g]) = cpu.memory.tensors([w, m, v], [grad]);
            let g = g.of::<f32>();
            let (w, m, v) = (w.of::<f32>(), m.of::<f32>(), v.of::<f32>());
            let (w, m, v) = (Parts::new(w, ITEM), Parts::new(m, ITEM), Parts::new(v, ITEM));
            cpu.pool.run(w.count(), |i| {
                let w = w.take(i);
                let g = &g[i * ITEM..][..w.len()];
                update_f32(cpu.isa, w, g, m.take(i), v.take(i), clip, f);
            });
        }
        Some(lo) => {
            let ([w, lo, m, v], [g]) = cpu.memory.tensors([w, lo, m, v], [grad]);
            let g = g.of::<f32>();
            let (w, lo) = (Parts::new(w.of::<bf16>(), ITEM), Parts::new(lo.of::<i16>(), ITEM));
            let (m, v) = (Parts::new(m.of::<f32>(), ITEM), Parts::new(v.of::<f32>(), ITEM));
            cpu.pool.run(w.count(), |i| {
                let w = w.take(i);
                let g = &g[i * ITEM..][..w.len()];
                update_bf16(cpu.isa, w, lo.take(i), g, m.take(i), v.take(i), clip, f);
            });
        }
    }
}

/// The moments' update and the new weight of one element.
#[inline(always)]
fn element(w: f32, g: f32, m: &mut f32, v: &mut f32, clip: f32, f: &Factors) -> f32 {
    let g = g * clip;
    *m = (g - *m).mul_add(f.one_minus_beta1, *m);
    *v = (g * f.one_minus_beta2).mul_add(g, *v * f.beta2);
    let denom = v.sqrt().mul_add(f.inv_root, f.eps);
    (w * f.keep) - f.step_size * (*m / denom)
}

cpu_kernel! {
    fn update_f32(w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], clip: f32, f: Factors) {
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
            *w = element(*w, g, m, v, clip, &f);
        }
    }
}

cpu_kernel! {
    fn update_bf16(hi: &mut [bf16], lo: &mut [i16], g: &[f32], m: &mut [f32], v: &mut [f32], clip: f32, f: Factors) {
        for ((((hi, lo), &g), m), v) in hi.iter_mut().zip(lo).zip(g).zip(m).zip(v) {
            (*hi, *lo) = split(element(join(*hi, *lo), g, m, v, clip, &f));
        }
    }
}

/// An f32 as a bf16 weight (nearest, ties away from zero in the bit pattern) and the signed rest that makes it
/// exact again: [`join`] gives back every bit. Ties away because round-to-even cannot be inverted.
#[inline(always)]
pub fn split(master: f32) -> (bf16, i16) {
    let bits = master.to_bits();
    let hi = bits.wrapping_add(0x8000) >> 16;
    (bf16::from_bits(hi as u16), bits.wrapping_sub(hi << 16) as i16)
}

/// The f32 that [`split`] took apart.
#[inline(always)]
pub fn join(hi: bf16, lo: i16) -> f32 {
    f32::from_bits(((hi.to_bits() as u32) << 16).wrapping_add(lo as i32 as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_and_join_are_inverse_for_every_low_half() {
        for high in [0u32, 1, 0x7f, 0x80, 0x3f80, 0x3fff, 0x7f7f, 0x7fff, 0x8000, 0xbf80, 0xff7f, 0xffff] {
            for low in 0..=0xffffu32 {
                let bits = high << 16 | low;
                let (hi, lo) = split(f32::from_bits(bits));
                assert_eq!(join(hi, lo).to_bits(), bits, "{bits:#x}");
            }
        }
    }
}
