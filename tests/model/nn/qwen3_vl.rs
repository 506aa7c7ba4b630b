//! Tests of Qwen3-VL on tiny random weights, in addition to those that both families with images share.

use omr_model::nn::config::RopeAxes;
use omr_model::nn::weights::part::Part;
use omr_model::nn::{Grads, LayerPolicy, Model, ModelConfig};
use omr_runtime::device::{Device, Region};
use omr_runtime::tensor::DType;
use serde_json::json;

use super::{device, inputs, pass, seed};

/// Returns a Qwen3-VL with awkward sizes, and a merger after the first of its three blocks.
pub fn qwen3_vl() -> ModelConfig {
    let file = json!({
        "model_type": "qwen3_vl", "image_token_id": 80, "video_token_id": 81, "vision_start_token_id": 82,
        "vision_end_token_id": 83, "vision_token_id": 84,
        "text_config": {
            "vocab_size": 90, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.15,
            "rope_scaling": {"mrope_section": [2, 1, 1], "mrope_interleaved": true}
        },
        "vision_config": {
            "depth": 3, "hidden_size": 16, "intermediate_size": 20, "num_heads": 2, "out_hidden_size": 24,
            "num_position_embeddings": 9, "deepstack_visual_indexes": [0, 1]
        }
    });
    ModelConfig::from_json(&file, "config").unwrap()
}

/// Tests that the mergers of all levels have the same gradients with frozen blocks as with trained ones.
#[test]
fn frozen_blocks_leave_the_gradients_of_every_merger() {
    let mut dev = device(2);
    let mut model = Model::init(&mut dev, qwen3_vl(), DType::F32, seed()).unwrap();
    let inputs = inputs(&model.config, true);
    let merger = |dev: &mut Device, model: &Model| -> Vec<Vec<f32>> {
        let mark = dev.mark(Region::Overlay);
        let mut grads = Grads::new(dev, &model.layout).unwrap();
        pass(dev, model, &inputs, LayerPolicy::All, &mut grads);
        let of = |id: &usize| model.layout.params[*id].part == Part::Merger;
        let ids: Vec<usize> = (0..grads.num_params()).filter(of).collect();
        assert_eq!(ids.len(), 3 * 6);
        let found = ids.iter().map(|&id| dev.read(grads.get(id).unwrap()).unwrap()).collect();
        dev.release(mark);
        found
    };
    let all = merger(&mut dev, &model);
    model.vision.as_mut().unwrap().trains_blocks = false;
    assert!(all == merger(&mut dev, &model));
}

#[test]
fn a_file_of_qwen3_vl_without_keys_has_the_defaults_of_its_class() {
    let file = json!({
        "model_type": "qwen3_vl",
        "text_config": {
            "vocab_size": 151_936, "hidden_size": 3584, "intermediate_size": 9728, "num_hidden_layers": 4,
            "num_attention_heads": 32, "tie_word_embeddings": true
        },
        "vision_config": {}
    });
    let config = ModelConfig::from_json(&file, "config").unwrap();
    let text = &config.text;
    // The key inside of text_config is not read.
    assert!(!text.tie_word_embeddings && text.layers[0].heads.dim == 128);
    assert_eq!((text.rope.theta, text.rope.axes.clone()), (5e6, RopeAxes::Interleaved([24, 20, 20])));
    let tower = config.media.unwrap().tower;
    assert_eq!((tower.depth, tower.head_dim(), tower.rope_theta, tower.row_width()), (27, 72, 1e4, 4 * 3584));
    for (pointer, value, names) in [
        ("/vision_config/deepstack_visual_indexes", json!([8, 27]), "/vision_config/deepstack_visual_indexes"),
        ("/vision_config/deepstack_visual_indexes", json!([8, 3]), "ascending blocks"),
        ("/vision_config/deepstack_visual_indexes", json!([1, 2, 3, 4, 5]), "num_hidden_layers"),
        ("/vision_config/num_position_embeddings", json!(2300), "a square number"),
        ("/vision_config/patch_size", json!(14), "expected 16"),
        ("/vision_config/hidden_act", json!("silu"), "gelu_pytorch_tanh"),
        ("/text_config/attention_bias", json!(true), "/text_config/attention_bias"),
        ("/text_config/rope_scaling", json!({"type": "yarn", "factor": 3.0}), "/text_config/rope_scaling/type"),
    ] {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let mut wrong = file.clone();
        wrong.pointer_mut(parent).unwrap()[key] = value;
        let error = ModelConfig::from_json(&wrong, "config").unwrap_err().to_string();
        assert!(error.contains(names), "{error}");
    }
}

#[test]
fn a_saved_qwen3_vl_has_the_released_names() {
    let (mut dev, dir) = (device(2), tempfile::tempdir().unwrap());
    let model = Model::init(&mut dev, qwen3_vl(), DType::Bf16, seed()).unwrap();
    model.save(&mut dev, dir.path(), DType::Bf16).unwrap();
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let begins = ["model.language_model.", "model.visual.", "lm_head.weight"];
    assert!(file.names().iter().all(|name| begins.iter().any(|begin| name.starts_with(begin))));
    let read = |dev: &mut Device, model: &Model| -> Vec<Vec<u8>> {
        model.layout.params.iter().map(|param| dev.read_bytes(param.tensor).unwrap()).collect()
    };
    let again = Model::load(&mut dev, dir.path(), DType::Bf16).unwrap();
    assert!(read(&mut dev, &model) == read(&mut dev, &again));
}
