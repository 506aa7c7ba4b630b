//! Inputs of the sampler for each row, in an array that kernels also read.

use bytemuck::{Pod, Zeroable};

use super::params::{NoiseKey, SamplingParams};
use crate::device::{Device, Region};
use crate::ops::check;
use crate::ops::linear_logprob::logits::{SEGMENT, segments};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;
use omr_base::philox::{self, Purpose};

/// Sampling parameters and noise key of one row. `kernels/sample.cu` reads the same bytes.
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
    /// Philox key of the noise.
    pub(super) key: [u32; 2],
    /// 1 if the row's logits are kept and nothing is sampled. A kernel sees `top_k` instead, which makes it store them.
    kept: u32,
    /// Padding, so that rows of the array start at multiples of 16 bytes.
    padding: [u32; 2],
}

/// Number of u32 words of a row of the array.
pub(super) const WORDS: usize = size_of::<Draw>() / 4;

impl Draw {
    /// Returns the draw for step `step` of the run with `seed`.
    pub fn new(params: SamplingParams, noise: NoiseKey, seed: u64, step: u64) -> Draw {
        let SamplingParams { temperature, min_p, top_k, top_p } = params;
        let NoiseKey { prompt, rollout, position } = noise;
        let key = philox::key(seed, Purpose::Noise, step);
        Draw { temperature, min_p, top_p, top_k, prompt, rollout, position, key, kept: 0, padding: [0; 2] }
    }

    /// Returns the draw of a row whose logits at temperature 1 are kept in [`Outs::logits`]. Its id and log-prob are
    /// undefined.
    pub fn kept() -> Draw {
        let params = SamplingParams { top_k: u32::MAX, ..SamplingParams::default() };
        Draw { kept: 1, ..Draw::new(params, NoiseKey::default(), 0, 0) }
    }

    /// Returns true if the row's logits are kept and nothing is sampled.
    pub(super) fn is_kept(&self) -> bool {
        self.kept == 1
    }

    /// Returns the sampling parameters.
    pub fn params(&self) -> SamplingParams {
        SamplingParams { temperature: self.temperature, min_p: self.min_p, top_k: self.top_k, top_p: self.top_p }
    }

    /// Returns the identifiers of the draw.
    pub fn noise(&self) -> NoiseKey {
        NoiseKey { prompt: self.prompt, rollout: self.rollout, position: self.position }
    }

    /// Copies `draws` to the device as u32 `[B, 12]`.
    pub fn upload(dev: &mut Device, region: Region, draws: &[Draw]) -> Result<Tensor> {
        dev.upload::<u32>(region, bytemuck::cast_slice(draws), &[draws.len(), WORDS])
    }
}

/// Returns the number of columns of [`Outs::logits`].
pub fn logit_columns(vocab: usize) -> usize {
    segments(vocab) * SEGMENT
}

/// Outputs of the sampler.
#[derive(Clone, Copy, Debug)]
pub struct Outs {
    /// Sampled ids, u32 `[B]`.
    pub ids: Tensor,
    /// Log-probs of the ids, f32 `[B]`, under the full (unfiltered) policy at the row's temperature (1 for greedy
    /// rows).
    pub logprobs: Tensor,
    /// Memory for the logits, f32 `[B, logit_columns(V)]`, if some rows are [`Draw::kept`]. Other rows are undefined.
    pub logits: Option<Tensor>,
}

impl Outs {
    pub(super) fn check(&self, op: &'static str, b: usize, vocab: usize) -> Result<()> {
        check::optional(op, "logits", self.logits, DType::F32, &[b, logit_columns(vocab)])?;
        check::tensor(op, "ids", self.ids, DType::U32, &[b])?;
        check::tensor(op, "logprobs", self.logprobs, DType::F32, &[b])
    }
}
