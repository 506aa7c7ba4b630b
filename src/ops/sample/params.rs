//! How tokens are drawn, and what names a draw.

use crate::error::{Error, Result};

/// How a row's token is drawn. The limits narrow the ids in this order: `min_p`, `top_k`, `top_p`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// Ids at least this fraction of the likeliest one's probability; 0 is off.
    pub min_p: f32,
    /// This many likeliest ids; 0 is off.
    pub top_k: u32,
    /// The fewest likeliest ids whose probabilities reach this sum; 1 is off.
    pub top_p: f32,
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams { temperature: 1.0, min_p: 0.0, top_k: 0, top_p: 1.0 }
    }
}

impl SamplingParams {
    /// The most likely id.
    pub fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..Default::default() }
    }

    /// True when the choice is among fewer than all allowed ids.
    pub fn narrows(&self) -> bool {
        self.min_p > 0.0 || self.top_k > 0 || self.top_p < 1.0
    }

    /// An input error at `place` unless every value is in its range.
    pub fn validate(&self, place: &str) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0 && self.temperature.is_finite(), "0 or more"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
        ];
        for (name, value, holds, expected) in checks {
            if !holds {
                return Err(Error::input(format!("{place}.{name}"), value.to_string(), expected));
            }
        }
        Ok(())
    }
}

/// Names the draw: the noise of one token depends on this, the seed and the step, and on nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoiseKey {
    /// Index of the prompt in the step.
    pub prompt: u32,
    /// Index of the rollout of that prompt.
    pub rollout: u32,
    /// Position of the token to be drawn in its response.
    pub position: u32,
}
