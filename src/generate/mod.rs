//! Text generation: converts questions to prompts and generates the answers of a model.

#![forbid(unsafe_code)]

mod answers;
mod logprobs;
mod questions;

pub use answers::{Answers, write};
pub use logprobs::{score, score_to};
pub use questions::Reader;

use crate::device::{Device, Region};
use crate::error::Result;
use crate::tensor::Tensor;

/// Copies the bitmap of the ids that may be sampled, if there is one, to the device.
fn upload_allowed(dev: &mut Device, bitmap: Option<&[u32]>) -> Result<Option<Tensor>> {
    bitmap.map(|bits| dev.upload(Region::Weights, bits, &[bits.len()])).transpose()
}
