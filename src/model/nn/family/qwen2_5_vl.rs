//! Qwen2.5-VL, and models of the same class such as MiMo-VL. Reads both the flat layout of the released checkpoints and
//! the nested layout of newer transformers versions. New models have the flat one.

use serde_json::{Value, json};

use super::dense::{self, Dense};
use super::media;
use super::names::PREFIXES;
use super::node::Node;
use crate::nn::config::{
    Family, MediaConfig, ModelParts, NewIds, RopeAxes, RopeConfig, TextConfig, TowerConfig, TowerKind,
};
use omr_base::config::BaseConfig;
use omr_base::error::{Error, Result};

const MODEL_TYPE: &str = "qwen2_5_vl";
const CLASS: &str = "Qwen2_5_VLForConditionalGeneration";

/// The family.
pub static FAMILY: Family = Family {
    models: "Qwen2.5-VL, MiMo-VL",
    model_types: &[MODEL_TYPE],
    classes: &[CLASS],
    read,
    new,
    ignores: &["inv_freq"],
    size_checks: media::size_checks,
    prefixes: &PREFIXES,
    stores_paths: false,
};

fn read(root: &Node<'_>) -> Result<ModelParts> {
    let text = root.child("text_config")?.unwrap_or_else(|| root.clone());
    let vision = media::vision(root)?;
    let none = || Error::input(text.at("rope_scaling"), "nothing", "an object with mrope_section");
    let rope = dense::rope(&text)?.ok_or_else(none)?;
    rope.one_of("rope_type", &["default", "mrope"])?;
    rope.one_of("type", &["mrope", "default"])?;
    let rope_theta = if rope.has("rope_theta") { &rope } else { &text };
    let dim = dense::head_dim(&text, None)?;
    let section = media::section(&rope, None, dim)?;
    let rope = RopeConfig {
        theta: rope_theta.f64("rope_theta", Some(1e6))?,
        dim,
        scaling: None,
        axes: RopeAxes::Sections(section),
    };
    let dense = Dense { qkv_bias: true, rms_norm_eps: 1e-5, ..Dense::DEFAULT };
    let text = dense::text(root, &text, dense, rope)?;
    let media = images(root, &vision, &text)?;
    Ok(ModelParts { text, media: Some(media) })
}

/// Reads the settings of images and videos.
fn images(root: &Node<'_>, vision: &Node<'_>, text: &TextConfig) -> Result<MediaConfig> {
    let ids = media::ids(root, text)?;
    vision.one_of("hidden_act", &["silu"])?;
    let grid = media::grid(vision, 14)?;
    let window_size = vision.usize("window_size", Some(112))?;
    let full = vision.list("fullatt_block_indexes", Some(&[7, 15, 23, 31]))?;
    let tower = TowerConfig {
        depth: vision.usize("depth", Some(32))?,
        hidden_size: vision.usize("hidden_size", None)?,
        intermediate_size: vision.usize("intermediate_size", Some(3420))?,
        num_heads: vision.usize("num_heads", Some(16))?,
        out_hidden_size: vision.usize("out_hidden_size", Some(3584))?,
        rope_theta: media::TOWER_ROPE_THETA,
        kind: TowerKind::Windowed { window_size, fullatt_block_indexes: full.clone() },
    };
    media::check(vision, &tower, text)?;
    let unit = grid.patch_size * grid.merge_size;
    let expected = format!("a multiple of {unit}, the side of a merged patch in pixels");
    vision.require("window_size", window_size, window_size.is_multiple_of(unit), &expected)?;
    if let Some(&block) = full.iter().find(|&&block| block >= tower.depth) {
        vision.require("fullatt_block_indexes", block, false, &format!("blocks below depth {}", tower.depth))?;
    }
    let tokens_per_second = Some(vision.usize("tokens_per_second", Some(4))?);
    Ok(MediaConfig { ids, grid, tokens_per_second, tower })
}

/// Returns the file of a new model in the released layout.
fn new(base: &BaseConfig, ids: NewIds) -> Value {
    let tower = &base.vision;
    let media = json!({
        "max_window_layers": base.num_hidden_layers,
        "sliding_window": dense::NEW_LENGTH,
        "use_sliding_window": false,
        "vision_start_token_id": ids.media.start,
        "vision_end_token_id": ids.media.end,
        "vision_token_id": ids.media.pad,
        "image_token_id": ids.media.image,
        "video_token_id": ids.media.video,
        "rope_scaling": {"type": "mrope", "mrope_section": base.mrope_section},
        "vision_config": {
            "depth": tower.depth,
            "hidden_act": "silu",
            "hidden_size": tower.hidden_size,
            "intermediate_size": tower.intermediate_size,
            "model_type": MODEL_TYPE,
            "num_heads": tower.num_heads,
            "in_chans": 3,
            "out_hidden_size": base.hidden_size,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": tower.window_size,
            "fullatt_block_indexes": tower.fullatt_block_indexes,
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    });
    let mut file = dense::new(CLASS, MODEL_TYPE, base, ids);
    for (key, value) in media.as_object().into_iter().flatten() {
        file[key] = value.clone();
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ModelConfig;
    use crate::nn::tiny::tiny;
    use omr_runtime::tensor::DType;

    #[test]
    fn written_and_read_again_is_the_same() {
        let config = ModelConfig::from_json(&tiny(), "config.json").unwrap();
        let written = config.to_json(DType::Bf16);
        assert_eq!(ModelConfig::from_json(&written, "config.json").unwrap(), config);
        let mut read = tiny();
        read["torch_dtype"] = json!("bfloat16");
        assert_eq!(written, read, "only the type of the weights changes");
    }

    #[test]
    fn faults_name_the_pointer() {
        let faults: [(&str, Value, &str); 23] = [
            ("/num_hidden_layers", json!(1_000_000_000), "/num_hidden_layers"),
            ("/architectures", json!(["LlavaForConditionalGeneration"]), "/architectures"),
            ("/auto_map", json!({"AutoModel": "modeling_x.X"}), "/auto_map"),
            ("/hidden_size", json!(25), "/num_attention_heads"),
            ("/hidden_size", json!("24"), "/hidden_size"),
            ("/vocab_size", json!(50), "/image_token_id"),
            ("/vision_config", json!(3), "/vision_config"),
            ("/vision_config/window_size", json!(60), "/vision_config/window_size"),
            ("/vision_config/fullatt_block_indexes", json!([7]), "/vision_config/fullatt_block_indexes"),
            ("/vision_config/out_hidden_size", json!(12), "/vision_config/out_hidden_size"),
            ("/rope_scaling/type", json!("yarn"), "/rope_scaling/type"),
            ("/rope_scaling/mrope_section", json!([2, 2]), "/rope_scaling/mrope_section"),
            ("/rope_scaling/full_attention", json!({"rope_type": "default"}), "/rope_scaling/full_attention"),
            ("/architectures", json!("Qwen2_5_VLForConditionalGeneration"), "/architectures"),
            ("/eos_token_id", json!("2"), "/eos_token_id"),
            ("/eos_token_id", json!(-1), "/eos_token_id"),
            ("/eos_token_id", json!([1, [1]]), "/eos_token_id"),
            ("/eos_token_id", json!(1e3), "/eos_token_id"),
            ("/eos_token_id", json!(999_999), "/eos_token_id"),
            ("/video_token_id", json!(80), "/video_token_id"),
            ("/layer_types", json!("full_attention"), "/layer_types"),
            ("/layer_types", json!(["full_attention"]), "/layer_types"),
            ("/vision_config/in_channels", json!(4), "/vision_config/in_channels"),
        ];
        for (pointer, value, names) in faults {
            let mut file = tiny();
            let (node, key) = pointer.rsplit_once('/').unwrap();
            file.pointer_mut(node).unwrap()[key] = value;
            let error = ModelConfig::from_json(&file, "m/config.json").unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with(&format!("m/config.json {names}:")), "{pointer}: {text}");
            assert_eq!(error.exit_code(), 2);
        }
        let mut file = tiny();
        file["quantization_config"] = json!({"quant_method": "awq", "bits": 4});
        let text = ModelConfig::from_json(&file, "m/config.json").unwrap_err().to_string();
        assert!(text.starts_with("m/config.json /quantization_config:") && text.contains("not supported"), "{text}");
        let mut file = tiny();
        file.as_object_mut().unwrap().remove("num_hidden_layers");
        let text = ModelConfig::from_json(&file, "m/config.json").unwrap_err().to_string();
        assert_eq!(text, "m/config.json /num_hidden_layers: found nothing, expected a number");
    }
}
