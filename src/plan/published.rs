//! Sizes of published models, so that a run can be planned before its model is downloaded.

use serde_json::{Value, json};

use crate::error::Result;
use crate::model::ModelConfig;

/// A model of Qwen3-VL on the hub: name of the repository, hidden_size, intermediate_size, num_hidden_layers and
/// num_attention_heads of the text part, and number of its tower in `TOWERS`. Models with the first tower are tied.
struct Qwen3Vl(&'static str, [usize; 4], usize);

const QWEN3_VL: [Qwen3Vl; 4] = [
    Qwen3Vl("Qwen3-VL-2B-Instruct", [2048, 6144, 28, 16], 0),
    Qwen3Vl("Qwen3-VL-4B-Instruct", [2560, 9728, 36, 32], 0),
    Qwen3Vl("Qwen3-VL-8B-Instruct", [4096, 12288, 36, 32], 1),
    Qwen3Vl("Qwen3-VL-32B-Instruct", [5120, 25600, 64, 64], 1),
];

/// depth, hidden_size and intermediate_size of a vision tower of Qwen3-VL, and its `deepstack_visual_indexes`.
const TOWERS: [([usize; 3], [usize; 3]); 2] = [([24, 1024, 4096], [5, 11, 17]), ([27, 1152, 4304], [8, 16, 24])];

impl Qwen3Vl {
    /// Returns the `config.json`. The other keys have their defaults.
    fn config(&self) -> Value {
        let Qwen3Vl(_, [hidden_size, intermediate_size, layers, heads], tower) = *self;
        let ([depth, width, mlp], blocks) = TOWERS[tower];
        json!({
            "model_type": "qwen3_vl", "tie_word_embeddings": tower == 0, "torch_dtype": "bfloat16",
            "text_config": {
                "hidden_size": hidden_size, "intermediate_size": intermediate_size, "num_hidden_layers": layers,
                "num_attention_heads": heads, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
                "rope_theta": 5e6, "max_position_embeddings": 262_144,
            },
            "vision_config": {
                "depth": depth, "hidden_size": width, "intermediate_size": mlp, "out_hidden_size": hidden_size,
                "deepstack_visual_indexes": blocks,
            },
        })
    }
}

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
    if let Some(found) = QWEN3_VL.iter().find(|published| published.0 == last) {
        return Some(ModelConfig::from_json(&found.config(), name));
    }
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

    /// The hub states 3.75, 8.29, 33.5 and 73.4 billion parameters of Qwen2.5-VL, and 2.13, 4.44, 8.77 and 33.4 of Qwen3-VL.
    #[test]
    fn published_models_have_the_published_numbers_of_parameters() {
        let names =
            PUBLISHED.iter().map(|published| published.name).chain(QWEN3_VL.iter().map(|published| published.0));
        let billions = names.map(|name| {
            let config = model_config(&format!("Qwen/{name}")).unwrap().unwrap();
            let mut dev = Device::count_for(Target::cpu(1));
            let model = Model::empty(&mut dev, config, DType::of(Dtype::Bf16, crate::device::Kind::Cpu)).unwrap();
            let elements: usize = model.layout.pieces().map(|(_, _, piece)| piece.num_elements()).sum();
            format!("{:.2}", elements as f64 / 1e9)
        });
        let billions: Vec<String> = billions.collect();
        assert_eq!(billions, ["3.75", "8.29", "33.45", "73.41", "2.13", "4.44", "8.77", "33.36"]);
        assert!(model_config("Qwen/Qwen2.5-VL-5B-Instruct").is_none());
    }
}
