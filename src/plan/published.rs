//! Sizes of published models, so that a run can be planned before its model is downloaded.

use serde_json::{Value, json};

use crate::error::Result;
use crate::model::ModelConfig;

/// A model of the hub in the sizes that differ between the models of Qwen2.5-VL.
struct Published {
    /// Name of the repository on the hub, without its owner.
    name: &'static str,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    vocab_size: usize,
    tie_word_embeddings: bool,
    /// `intermediate_size` of the vision tower.
    tower: usize,
}

/// The other keys of the models, which are those of the 7B model.
const COMMON: &str = include_str!("../../configs/openmmreasoner-7b/model/config.json");

#[rustfmt::skip]
const PUBLISHED: [Published; 4] = [
    Published { name: "Qwen2.5-VL-3B-Instruct", hidden_size: 2048, intermediate_size: 11008, num_hidden_layers: 36,
        num_attention_heads: 16, num_key_value_heads: 2, vocab_size: 151_936, tie_word_embeddings: true, tower: 3420 },
    Published { name: "Qwen2.5-VL-7B-Instruct", hidden_size: 3584, intermediate_size: 18944, num_hidden_layers: 28,
        num_attention_heads: 28, num_key_value_heads: 4, vocab_size: 152_064, tie_word_embeddings: false, tower: 3420 },
    Published { name: "Qwen2.5-VL-32B-Instruct", hidden_size: 5120, intermediate_size: 27648, num_hidden_layers: 64,
        num_attention_heads: 40, num_key_value_heads: 8, vocab_size: 152_064, tie_word_embeddings: false, tower: 3456 },
    Published { name: "Qwen2.5-VL-72B-Instruct", hidden_size: 8192, intermediate_size: 29568, num_hidden_layers: 80,
        num_attention_heads: 64, num_key_value_heads: 8, vocab_size: 152_064, tie_word_embeddings: false, tower: 3456 },
];

/// Returns the configuration of the published model that `name` names: a repository of the hub, or a folder with the
/// name of one.
pub fn model_config(name: &str) -> Option<Result<ModelConfig>> {
    let last = name.rsplit('/').next()?;
    let found = PUBLISHED.iter().find(|published| published.name == last)?;
    let mut value: Value = serde_json::from_str(COMMON).ok()?;
    let Published { hidden_size, intermediate_size, tower, .. } = found;
    let own = json!({
        "hidden_size": hidden_size, "intermediate_size": intermediate_size,
        "num_hidden_layers": found.num_hidden_layers, "num_attention_heads": found.num_attention_heads,
        "num_key_value_heads": found.num_key_value_heads, "vocab_size": found.vocab_size,
        "tie_word_embeddings": found.tie_word_embeddings,
    });
    value.as_object_mut()?.extend(own.as_object()?.clone());
    value["vision_config"]["intermediate_size"] = json!(tower);
    value["vision_config"]["out_hidden_size"] = json!(hidden_size);
    Some(ModelConfig::from_json(&value, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Dtype;
    use crate::device::{Device, Target};
    use crate::model::Model;
    use crate::tensor::DType;

    /// The hub states 3.75, 8.29, 33.5 and 73.4 billion parameters.
    #[test]
    fn published_models_have_the_published_numbers_of_parameters() {
        let billions = PUBLISHED.each_ref().map(|published| {
            let config = model_config(&format!("Qwen/{}", published.name)).unwrap().unwrap();
            let mut dev = Device::count_for(Target::cpu(1));
            let model = Model::empty(&mut dev, config, DType::of(Dtype::Bf16, crate::device::Kind::Cpu)).unwrap();
            let elements: usize = model.layout.pieces().map(|(_, _, piece)| piece.num_elements()).sum();
            format!("{:.2}", elements as f64 / 1e9)
        });
        assert_eq!(billions, ["3.75", "8.29", "33.45", "73.41"]);
        assert!(model_config("Qwen/Qwen2.5-VL-5B-Instruct").is_none());
    }
}
