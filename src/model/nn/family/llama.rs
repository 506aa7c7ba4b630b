//! Llama: Llama 3.x and SmolLM2.

use super::dense::{self, Dense};
use crate::nn::config::Family;

const MODEL_TYPE: &str = "llama";
const CLASS: &str = "LlamaForCausalLM";

/// The family.
pub static FAMILY: Family = Family {
    models: "Llama 3.x, SmolLM2",
    model_types: &[MODEL_TYPE],
    classes: &[CLASS],
    read: |root| dense::read(root, Dense { max_position_embeddings: 2048, ..Dense::DEFAULT }),
    new: |base, ids| dense::new(CLASS, MODEL_TYPE, base, ids),
    ignores: &["rotary_emb.inv_freq"],
    size_checks: |config| dense::size_checks(&config.text),
    prefixes: &[],
    stores_paths: false,
};
