//! Sampling parameters of a token, and the identifiers of its noise.

use omr_base::error::{Error, Result};

/// Sampling parameters of one row. The filters are applied in this order: `min_p`, `top_k`, `top_p`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SamplingParams {
    /// Sampling temperature; 0 means greedy decoding.
    pub temperature: f32,
    /// Keeps ids with at least this fraction of the most likely id's probability; 0 disables the filter.
    pub min_p: f32,
    /// Keeps this number of most likely ids; 0 disables the filter.
    pub top_k: u32,
    /// Keeps the smallest set of most likely ids whose probabilities sum to at least this value; 1 disables the filter.
    pub top_p: f32,
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams { temperature: 1.0, min_p: 0.0, top_k: 0, top_p: 1.0 }
    }
}

impl SamplingParams {
    /// Returns parameters that select the most likely id.
    pub fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..Default::default() }
    }

    /// Returns true if a filter is active, so that not every allowed id may be drawn.
    pub fn narrows(&self) -> bool {
        self.min_p > 0.0 || self.top_k > 0 || self.top_p < 1.0
    }

    /// Returns an input error at `place` unless every value is in its range. The place of the error is the name of the
    /// value if `place` is empty.
    pub fn validate(&self, place: &str) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0 && self.temperature.is_finite(), "0 or more"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
        ];
        for (name, value, holds, expected) in checks {
            if !holds {
                let place = if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
                return Err(Error::input(place, value.to_string(), expected));
            }
        }
        Ok(())
    }
}

/// Identifiers of one draw. The noise of a token depends only on these, the seed and the step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoiseKey {
    /// Index of the prompt in the step.
    pub prompt: u32,
    /// Index of the rollout of that prompt.
    pub rollout: u32,
    /// Position of the drawn token in the response.
    pub position: u32,
}
