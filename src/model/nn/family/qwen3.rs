//! Qwen3 without images, of 0.6B to 32B parameters (not the mixtures of experts).

use super::dense::{self, Dense};
use super::llama;
use crate::nn::config::Family;

const MODEL_TYPE: &str = "qwen3";
const CLASS: &str = "Qwen3ForCausalLM";

/// The family.
pub static FAMILY: Family = Family {
    models: "Qwen3 (dense)",
    model_types: &[MODEL_TYPE],
    classes: &[CLASS],
    read: |root| dense::read(root, Dense { qk_norm: true, head_dim: Some(128), ..Dense::DEFAULT }),
    new: |base, ids| {
        let mut file = dense::new(CLASS, MODEL_TYPE, base, ids);
        file["head_dim"] = (base.hidden_size / base.num_attention_heads).into();
        file
    },
    ..llama::FAMILY
};
