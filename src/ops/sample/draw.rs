//! What the sampler reads of each row, as one array that a kernel can read too.

use bytemuck::{Pod, Zeroable};

use super::params::{NoiseKey, SamplingParams};
use crate::device::{Device, Region};
use crate::error::Result;
use crate::ops::check;
use crate::philox::{self, Purpose};
use crate::tensor::{DType, Tensor};

/// How one row's token is drawn, and what names its noise. `kernels/sample.cu` reads the same bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Debug, Pod, Zeroable)]
pub struct Draw {
    temperature: f32,
    min_p: f32,
    top_p: f32,
    top_k: u32,
    prompt: u32,
    rollout: u32,
    position: u32,
    key: [u32; 2],
    /// Rows of the array start on 16 bytes.
    padding: [u32; 3],
}

/// Words of a row of the array.
const WORDS: usize = size_of::<Draw>() / 4;

impl Draw {
    /// A draw of step `step` of the run with `seed`.
    pub fn new(params: SamplingParams, noise: NoiseKey, seed: u64, step: u64) -> Draw {
        let SamplingParams { temperature, min_p, top_k, top_p } = params;
        let NoiseKey { prompt, rollout, position } = noise;
        let key = philox::key(seed, Purpose::Noise, step);
        Draw { temperature, min_p, top_p, top_k, prompt, rollout, position, key, padding: [0; 3] }
    }

    /// How the token is drawn.
    pub fn params(&self) -> SamplingParams {
        SamplingParams { temperature: self.temperature, min_p: self.min_p, top_k: self.top_k, top_p: self.top_p }
    }

    /// What names the noise.
    pub fn noise(&self) -> NoiseKey {
        NoiseKey { prompt: self.prompt, rollout: self.rollout, position: self.position }
    }

    /// The noise's key.
    pub fn key(&self) -> [u32; 2] {
        self.key
    }

    /// `draws` on the device, u32 `[B, 12]`.
    pub fn upload(dev: &mut Device, region: Region, draws: &[Draw]) -> Result<Tensor> {
        dev.upload::<u32>(region, bytemuck::cast_slice(draws), &[draws.len(), WORDS])
    }

    /// The shape of [`Draw::upload`]'s array for `b` rows, and its type.
    pub fn table(b: usize) -> (DType, [usize; 2]) {
        (DType::U32, [b, WORDS])
    }
}

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Outs {
    /// u32 `[B]`.
    pub ids: Tensor,
    /// f32 `[B]`, of the whole policy at the row's temperature (1 for greedy rows).
    pub logprobs: Tensor,
}

impl Outs {
    pub(super) fn check(&self, op: &'static str, b: usize) -> Result<()> {
        check::tensor(op, "ids", self.ids, DType::U32, &[b])?;
        check::tensor(op, "logprobs", self.logprobs, DType::F32, &[b])
    }
}
