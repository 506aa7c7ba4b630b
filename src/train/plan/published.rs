//! Sizes of published models, so that a run can be planned before its model is downloaded.

use serde_json::{Value, json};

use omr_base::error::Result;
use omr_model::nn::ModelConfig;

/// A model on the hub: name of the repository without its owner, [`SIZES`] of the text part, and a number that gives the
/// vision tower.
struct Published(&'static str, [usize; 5], usize);

const SIZES: [&str; 5] =
    ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"];

/// The models of Qwen2.5-VL. The last number is the `intermediate_size` of the tower.
const QWEN2_5_VL: [Published; 4] = [
    Published("Qwen2.5-VL-3B-Instruct", [2048, 11008, 36, 16, 2], 3420),
    Published("Qwen2.5-VL-7B-Instruct", [3584, 18944, 28, 28, 4], 3420),
    Published("Qwen2.5-VL-32B-Instruct", [5120, 27648, 64, 40, 8], 3456),
    Published("Qwen2.5-VL-72B-Instruct", [8192, 29568, 80, 64, 8], 3456),
];

/// The 7B model of Qwen2.5-VL, whose other keys are those of all. Only the 3B model has another vocabulary and is tied.
const QWEN2_5_VL_7B: &str = include_str!("../../../configs/openmmreasoner-7b/model/config.json");

/// The models of Qwen3-VL. The last number is the place of the tower in [`TOWERS`]. Models with the first one are tied.
const QWEN3_VL: [Published; 4] = [
    Published("Qwen3-VL-2B-Instruct", [2048, 6144, 28, 16, 8], 0),
    Published("Qwen3-VL-4B-Instruct", [2560, 9728, 36, 32, 8], 0),
    Published("Qwen3-VL-8B-Instruct", [4096, 12288, 36, 32, 8], 1),
    Published("Qwen3-VL-32B-Instruct", [5120, 25600, 64, 64, 8], 1),
];

/// depth, hidden_size and intermediate_size of a vision tower of Qwen3-VL, and its `deepstack_visual_indexes`.
const TOWERS: [([usize; 3], [usize; 3]); 2] = [([24, 1024, 4096], [5, 11, 17]), ([27, 1152, 4304], [8, 16, 24])];

/// Returns the configuration of the published model that `name` names: a repository of the hub, or a folder with the
/// name of one. The other keys of Qwen3-VL have their defaults.
pub fn model_config(name: &str) -> Option<Result<ModelConfig>> {
    let last = name.rsplit('/').next()?;
    let find = |models: &'static [Published]| models.iter().find(|published| published.0 == last);
    let (mut value, &Published(_, sizes, tower)) = match find(&QWEN3_VL) {
        Some(found) => (json!({"model_type": "qwen3_vl", "torch_dtype": "bfloat16"}), found),
        None => (serde_json::from_str::<Value>(QWEN2_5_VL_7B).ok()?, find(&QWEN2_5_VL)?),
    };
    let is_qwen3 = value["model_type"] == "qwen3_vl";
    if is_qwen3 {
        let ([depth, width, mlp], blocks) = TOWERS[tower];
        value["text_config"] = json!({"head_dim": 128, "vocab_size": 151_936, "rope_theta": 5e6,
            "max_position_embeddings": 262_144});
        value["vision_config"] = json!({"depth": depth, "hidden_size": width, "intermediate_size": mlp,
            "deepstack_visual_indexes": blocks});
        value["tie_word_embeddings"] = json!(tower == 0);
    } else {
        value["vision_config"]["intermediate_size"] = json!(tower);
        if last.contains("-3B-") {
            (value["vocab_size"], value["tie_word_embeddings"]) = (json!(151_936), json!(true));
        }
    }
    value["vision_config"]["out_hidden_size"] = json!(sizes[0]);
    let text = if is_qwen3 { &mut value["text_config"] } else { &mut value };
    SIZES.iter().zip(sizes).for_each(|(key, size)| text[*key] = json!(size));
    Some(ModelConfig::from_json(&value, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_base::config::Dtype;
    use omr_model::nn::Model;
    use omr_runtime::device::{Device, Target};
    use omr_runtime::tensor::DType;

    /// The hub states 3.75, 8.29, 33.5 and 73.4 billion parameters of Qwen2.5-VL, and 2.13, 4.44, 8.77 and 33.4 of Qwen3-VL.
    #[test]
    fn published_models_have_the_published_numbers_of_parameters() {
        let names = QWEN2_5_VL.iter().chain(&QWEN3_VL).map(|published| published.0);
        let billions = names.map(|name| {
            let config = model_config(&format!("Qwen/{name}")).unwrap().unwrap();
            let mut dev = Device::count_for(Target::cpu(1));
            let model = Model::empty(&mut dev, config, DType::of(Dtype::Bf16, omr_runtime::device::Kind::Cpu)).unwrap();
            let elements: usize = model.layout.pieces().map(|(_, _, piece)| piece.num_elements()).sum();
            format!("{:.2}", elements as f64 / 1e9)
        });
        let billions: Vec<String> = billions.collect();
        assert_eq!(billions, ["3.75", "8.29", "33.45", "73.41", "2.13", "4.44", "8.77", "33.36"]);
        assert!(model_config("Qwen/Qwen2.5-VL-5B-Instruct").is_none());
    }
}
