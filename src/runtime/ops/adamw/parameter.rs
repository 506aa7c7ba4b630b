//! Arguments of an AdamW update: the parameter with its state, and the settings.

use super::code8::BLOCK;
use crate::ops::check;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Settings of one update, in f64 as in torch: in f32, 1 - beta2 would have a relative error of 1e-5.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Constant added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay coefficient.
    pub weight_decay: f64,
    /// Number of updates including this one, 1 for the first.
    pub step: u64,
    /// Seed of the run. Together with the step, the parameter and the element, it determines the random words of
    /// stochastic rounding.
    pub seed: u64,
    /// Index of the parameter.
    pub param: u32,
}

/// Storage of a moment with 8 bits per element.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Coded {
    /// Codes, u8 `[len]`.
    pub codes: Tensor,
    /// Scales, f32, one for each [`BLOCK`] elements.
    pub scales: Tensor,
}

/// Moments of a parameter, in the element order of the parameter.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Moments {
    /// Moments in f32 `[len]`.
    F32 {
        /// First moment.
        m: Tensor,
        /// Second moment.
        v: Tensor,
    },
    /// Moments in bf16 `[len]`. m is rounded to nearest. v is rounded stochastically, because with beta2 = 0.999,
    /// rounding to nearest would stop v from changing. v is rounded to zero only if its exact value is zero.
    Bf16 {
        /// First moment.
        m: Tensor,
        /// Second moment.
        v: Tensor,
    },
    /// Moments with 8 bits per element (see [`super::code8`]). m is rounded to nearest, v stochastically as in bf16.
    Code8 {
        /// First moment.
        m: Coded,
        /// Second moment.
        v: Coded,
    },
}

impl Moments {
    /// Returns the tensors that hold the moments: of the first moment the values or codes and the scales, then those of
    /// the second.
    pub fn tensors(&self) -> [Option<Tensor>; 4] {
        match *self {
            Moments::F32 { m, v } | Moments::Bf16 { m, v } => [Some(m), None, Some(v), None],
            Moments::Code8 { m, v } => [Some(m.codes), Some(m.scales), Some(v.codes), Some(v.scales)],
        }
    }

    /// Returns an error unless every tensor has the length required for `len` weights.
    pub(super) fn check(&self, op: &'static str, len: usize) -> Result<()> {
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

/// A parameter, or a range of its elements, with the gradient and the state. All tensors have the same element order.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Index of the range's first element in the whole parameter, a multiple of [`BLOCK`]. The random words of an
    /// element depend on its index in the whole parameter.
    pub first: usize,
    /// Weights, f32 or bf16.
    pub w: Tensor,
    /// Low halves of the exact f32 masters of bf16 weights, i16 (see [`super::master`]). Without them, bf16 weights are
    /// rounded stochastically.
    pub lo: Option<Tensor>,
    /// Gradient, f32.
    pub grad: Tensor,
    /// Moments of the gradients.
    pub moments: Moments,
}
