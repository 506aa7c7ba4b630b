//! What an update changes, and its settings.

use super::code8::BLOCK;
use crate::error::Result;
use crate::ops::check;
use crate::tensor::{DType, Tensor};

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
    /// f32, one for each [`BLOCK`] elements.
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
    /// [`super::code8`]: m to nearest, v stochastically as in bf16.
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

/// A parameter, or a range of one, with its gradient and its state, all in the same element order.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The range's first element in the whole parameter, a multiple of [`BLOCK`]: what is drawn for an element is
    /// named by its place there.
    pub first: usize,
    /// The weights: f32, or bf16.
    pub w: Tensor,
    /// i16, the low half of an exact f32 master of bf16 weights (see [`super::master`]); without one they are rounded
    /// stochastically.
    pub lo: Option<Tensor>,
    /// f32.
    pub grad: Tensor,
    /// Of the gradients seen.
    pub moments: Moments,
}
