//! AdamW with decoupled weight decay, as `torch.optim.AdamW`, elementwise over a weight and its state. Moments are f32,
//! bf16 or 8-bit codes; weights f32, bf16 with an exact f32 master, or bf16 alone. All variants share one update of an
//! element, and differ in how they read and write.

pub mod code8;
mod update;

use bytemuck::NoUninit;
use half::bf16;

use crate::device::{Address, Device, Gpu, Launch, On};
use crate::error::Result;
use crate::ops::check;
use crate::philox::{Purpose, key};
use crate::tensor::{DType, Tensor};
use code8::BLOCK;

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
    /// The run's seed: with the step, the parameter and the element it names what stochastic rounding draws.
    pub seed: u64,
    /// The parameter's number.
    pub param: u32,
}

/// What a moment of 8 bits an element lies in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Coded {
    /// u8 `[len]`.
    pub codes: Tensor,
    /// f32, one for each [`code8::BLOCK`] elements.
    pub scales: Tensor,
}

/// The moments of a parameter, in its element order.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Moments {
    /// f32 `[len]` each.
    F32 {
        /// First moment.
        m: Tensor,
        /// Second moment.
        v: Tensor,
    },
    /// bf16 `[len]` each: m to nearest, v stochastically and never to zero when it is not zero. At beta2 = 0.999
    /// rounding v to nearest would freeze it.
    Bf16 {
        /// First moment.
        m: Tensor,
        /// Second moment.
        v: Tensor,
    },
    /// [`code8`]: m to nearest, v stochastically as in bf16.
    Code8 {
        /// First moment.
        m: Coded,
        /// Second moment.
        v: Coded,
    },
}

impl Moments {
    /// The tensors they lie in.
    pub fn tensors(&self) -> [Option<Tensor>; 4] {
        match *self {
            Moments::F32 { m, v } | Moments::Bf16 { m, v } => [Some(m), Some(v), None, None],
            Moments::Code8 { m, v } => [Some(m.codes), Some(m.scales), Some(v.codes), Some(v.scales)],
        }
    }

    /// Errors unless all are as long as they must be for `len` weights.
    fn check(&self, op: &'static str, len: usize) -> Result<()> {
        let both = |dtype, m, v| {
            check::flat(op, "m", m, dtype, len)?;
            check::flat(op, "v", v, dtype, len)
        };
        match *self {
            Moments::F32 { m, v } => both(DType::F32, m, v),
            Moments::Bf16 { m, v } => both(DType::Bf16, m, v),
            Moments::Code8 { m, v } => {
                both(DType::U8, m.codes, v.codes)?;
                check::flat(op, "scales of m", m.scales, DType::F32, len.div_ceil(BLOCK))?;
                check::flat(op, "scales of v", v.scales, DType::F32, len.div_ceil(BLOCK))
            }
        }
    }
}

/// The random words of one parameter's update.
#[derive(Clone, Copy)]
struct Noise {
    key: [u32; 2],
    param: u32,
}

impl Noise {
    /// What a word rounds: the last word of its counter.
    const SECOND_MOMENT: u32 = 0;
    const WEIGHT: u32 = 1;

    fn new(hp: &AdamW) -> Noise {
        Noise { key: key(hp.seed, Purpose::Rounding, hp.step), param: hp.param }
    }
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

/// A parameter, or a range of one, with its gradient and its state, all in the same element order.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The range's first element in the whole parameter, a multiple of [`code8::BLOCK`]: what is drawn for an element is
    /// named by its place there.
    pub first: usize,
    /// The weights: f32, or bf16.
    pub w: Tensor,
    /// i16, the low half of an exact f32 master of bf16 weights (see [`split`]); without one they are rounded
    /// stochastically.
    pub lo: Option<Tensor>,
    /// f32.
    pub grad: Tensor,
    /// Of the gradients seen.
    pub moments: Moments,
}

/// One update. `clip` is f32 `[2]`: a factor for the
/// gradient and a flag; nothing changes when the flag is 0. On a GPU the weights are bf16. The weight is scaled by
/// 1 - lr * weight_decay, then moves by -lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps), from the
/// moments as they are before they are rounded. Errors on other shapes.
pub fn step(dev: &mut Device, parameter: Parameter, hp: &AdamW, clip: Tensor) -> Result<()> {
    const OP: &str = "adamw::step";
    let Parameter { first, w, lo, grad, moments } = parameter;
    check::that(OP, first.is_multiple_of(BLOCK), format!("a range from a multiple of {BLOCK}"), first.to_string())?;
    check::compute(OP, "w", w)?;
    let len = w.len();
    check::flat(OP, "grad", grad, DType::F32, len)?;
    moments.check(OP, len)?;
    check::tensor(OP, "clip", clip, DType::F32, &[2])?;
    if let Some(lo) = lo {
        check::that(OP, w.dtype == DType::Bf16, "a low half of bf16 weights", format!("one of {:?}", w.dtype))?;
        check::flat(OP, "lo", lo, DType::I16, len)?;
    }
    match dev.on() {
        On::Count => Ok(()),
        On::Cpu(cpu) => {
            let &[clip, flag] = cpu.memory.view(clip.span()).of::<f32>() else { unreachable!("clip has two elements") };
            if flag != 0.0 {
                update::update(cpu, parameter, clip, Factors::new(hp), Noise::new(hp));
            }
            Ok(())
        }
        On::Gpu(gpu) => launch(OP, gpu, parameter, hp, clip),
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
    m_scales: Address,
    v_scales: Address,
    clip: Address,
    len: i64,
    first: i64,
    factors: Factors,
    key: [u32; 2],
    param: u32,
}

fn launch(op: &'static str, mut gpu: Gpu<'_>, parameter: Parameter, hp: &AdamW, clip: Tensor) -> Result<()> {
    /// A warp a block of elements.
    const THREADS: usize = 256;
    let Parameter { first, w, lo, grad, moments } = parameter;
    check::gpu_compute(op, w.dtype)?;
    let kernel = match (moments, lo) {
        (Moments::F32 { .. }, Some(_)) => "adamw_f32",
        (Moments::Bf16 { .. }, Some(_)) => "adamw_bf16",
        (Moments::Code8 { .. }, Some(_)) => "adamw_8bit",
        (Moments::F32 { .. }, None) => "adamw_f32_rounded",
        (Moments::Bf16 { .. }, None) => "adamw_bf16_rounded",
        (Moments::Code8 { .. }, None) => "adamw_8bit_rounded",
    };
    let (m, v, scales) = match moments {
        Moments::F32 { m, v } | Moments::Bf16 { m, v } => (m, v, None),
        Moments::Code8 { m, v } => (m.codes, v.codes, Some([m.scales, v.scales])),
    };
    let [m_scales, v_scales] = scales.map_or([0; 2], |scales| scales.map(|t| gpu.ptr(t)));
    let noise = Noise::new(hp);
    let args = Args {
        w: gpu.ptr(w),
        lo: lo.map_or(0, |lo| gpu.ptr(lo)),
        grad: gpu.ptr(grad),
        m: gpu.ptr(m),
        v: gpu.ptr(v),
        m_scales,
        v_scales,
        clip: gpu.ptr(clip),
        len: w.len() as i64,
        first: first as i64,
        factors: Factors::new(hp),
        key: noise.key,
        param: noise.param,
    };
    check::count(op, "elements of a parameter", first + w.len())?;
    let grid = check::grid(op, w.len().div_ceil(THREADS / 32 * BLOCK))?;
    gpu.launch("adamw", kernel, Launch::new([grid, 1, 1], THREADS as u32, 0), &args)
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

    fn comes_back(bits: u32) {
        let (hi, lo) = split(f32::from_bits(bits));
        assert_eq!(join(hi, lo).to_bits(), bits, "{bits:#x}");
    }

    #[test]
    fn split_and_join_are_inverse_for_every_low_half() {
        for high in [0u32, 1, 0x7f, 0x80, 0x3f80, 0x3fff, 0x7f7f, 0x7fff, 0x8000, 0xbf80, 0xff7f, 0xffff] {
            (0..=0xffff).for_each(|low| comes_back(high << 16 | low));
        }
    }

    #[test]
    #[ignore = "all 2^32 floats: seconds in release, minutes without optimisation"]
    fn split_and_join_are_inverse_for_every_float() {
        (0..=u32::MAX).for_each(comes_back);
    }
}
