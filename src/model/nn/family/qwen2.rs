//! Qwen2 and Qwen2.5 without images.

use super::dense::{self, Dense};
use super::llama;
use crate::nn::config::Family;

const MODEL_TYPE: &str = "qwen2";
const CLASS: &str = "Qwen2ForCausalLM";

/// The family.
pub static FAMILY: Family = Family {
    models: "Qwen2, Qwen2.5",
    model_types: &[MODEL_TYPE],
    classes: &[CLASS],
    read: |root| dense::read(root, Dense { qkv_bias: true, ..Dense::DEFAULT }),
    new: |base, ids| dense::new(CLASS, MODEL_TYPE, base, ids),
    ..llama::FAMILY
};
