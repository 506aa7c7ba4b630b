//! Values that all elements of an update share: the factors of the formula and the key of the random words.

use bytemuck::NoUninit;

use super::parameter::AdamW;
use crate::device::plain;
use omr_base::philox::{Purpose, key};

/// Key of the random words of one parameter's update.
#[derive(Clone, Copy)]
pub(super) struct Noise {
    pub key: [u32; 2],
    pub param: u32,
}

impl Noise {
    /// Last word of the Philox counter for words that round the second moment.
    pub const SECOND_MOMENT: u32 = 0;
    /// Last word of the Philox counter for words that round the weight.
    pub const WEIGHT: u32 = 1;

    pub fn new(hp: &AdamW) -> Noise {
        Noise { key: key(hp.seed, Purpose::Rounding, hp.step), param: hp.param }
    }
}

/// Settings in the form that the loop over elements uses, computed in f64. Same layout as `adamw::Factors` of
/// kernels/adamw.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
pub(super) struct Factors {
    pub keep: f32,
    pub one_minus_beta1: f32,
    pub beta2: f32,
    pub one_minus_beta2: f32,
    pub step_size: f32,
    pub inv_root: f32,
    pub eps: f32,
}

plain!(Factors);

impl Factors {
    pub fn new(hp: &AdamW) -> Factors {
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
