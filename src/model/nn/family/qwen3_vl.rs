//! Qwen3-VL of 2B, 4B, 8B and 32B parameters (not the mixtures of experts). Reads the files of the hub and those of newer
//! transformers versions. New models have the form of the hub.

use serde_json::{Value, json};

use super::dense::{self, Dense};
use super::node::Node;
use super::{media, qwen2_5_vl};
use crate::nn::config::{
    Family, MediaConfig, ModelParts, NewIds, RopeAxes, RopeConfig, TextConfig, TowerConfig, TowerKind,
};
use omr_base::config::BaseConfig;
use omr_base::error::Result;

const MODEL_TYPE: &str = "qwen3_vl";
const CLASS: &str = "Qwen3VLForConditionalGeneration";

/// The family.
pub static FAMILY: Family = Family {
    models: "Qwen3-VL 2B, 4B, 8B, 32B",
    model_types: &[MODEL_TYPE],
    classes: &[CLASS],
    read,
    new,
    stores_paths: true,
    ..qwen2_5_vl::FAMILY
};

/// Reads the file. Missing keys have the defaults of the Hugging Face classes.
fn read(root: &Node<'_>) -> Result<ModelParts> {
    let text = root.child("text_config")?.unwrap_or_else(|| root.clone());
    dense::refuse(&text, &["attention_bias"])?;
    let rope = dense::rope(&text)?;
    let theta = rope.as_ref().filter(|rope| rope.has("rope_theta")).unwrap_or(&text).f64("rope_theta", Some(5e6))?;
    let dense = Dense { qk_norm: true, head_dim: Some(128), max_position_embeddings: 128_000, ..Dense::DEFAULT };
    let dim = dense::head_dim(&text, dense.head_dim)?;
    const SECTION: [usize; 3] = [24, 20, 20];
    let section = match &rope {
        Some(rope) => {
            rope.one_of("rope_type", &["default"])?;
            rope.one_of("type", &["default", "mrope"])?;
            media::section(rope, Some(SECTION), dim)?
        }
        None => SECTION,
    };
    let rope = RopeConfig { theta, dim, scaling: None, axes: RopeAxes::Interleaved(section) };
    let text = TextConfig {
        // transformers ignores the key inside of text_config.
        tie_word_embeddings: root.bool("tie_word_embeddings", false)?,
        ..dense::text(root, &text, dense, rope)?
    };
    let vision = media::vision(root)?;
    let ids = media::ids(root, &text)?;
    let grid = media::grid(&vision, 16)?;
    let tower = tower(&vision, &text)?;
    Ok(ModelParts { text, media: Some(MediaConfig { ids, grid, tokens_per_second: None, tower }) })
}

fn tower(vision: &Node<'_>, text: &TextConfig) -> Result<TowerConfig> {
    vision.one_of("hidden_act", &["gelu_pytorch_tanh"])?;
    let positions = vision.usize("num_position_embeddings", Some(2304))?;
    let grid_side = positions.isqrt();
    vision.require("num_position_embeddings", positions, grid_side * grid_side == positions, "a square number")?;
    let blocks = vision.list("deepstack_visual_indexes", Some(&[8, 16, 24]))?;
    let tower = TowerConfig {
        depth: vision.usize("depth", Some(27))?,
        hidden_size: vision.usize("hidden_size", Some(1152))?,
        intermediate_size: vision.usize("intermediate_size", Some(4304))?,
        num_heads: vision.usize("num_heads", Some(16))?,
        out_hidden_size: vision.usize("out_hidden_size", Some(3584))?,
        rope_theta: media::TOWER_ROPE_THETA,
        kind: TowerKind::DeepStack { grid_side, deepstack_visual_indexes: blocks.clone() },
    };
    media::check(vision, &tower, text)?;
    const BLOCKS: &str = "deepstack_visual_indexes";
    let limit = format!("at most num_hidden_layers, which is {}", text.layers.len());
    vision.require(BLOCKS, blocks.len(), blocks.len() <= text.layers.len(), &limit)?;
    let valid = |i: usize| blocks[i] < tower.depth && (i == 0 || blocks[i - 1] < blocks[i]);
    if let Some(i) = (0..blocks.len()).find(|&i| !valid(i)) {
        vision.require(BLOCKS, blocks[i], false, &format!("ascending blocks below depth {}", tower.depth))?;
    }
    Ok(tower)
}

/// Returns the file of a new model in the form of the hub.
fn new(base: &BaseConfig, ids: NewIds) -> Value {
    let mut text = dense::new(CLASS, "qwen3_vl_text", base, ids);
    text["head_dim"] = (base.hidden_size / base.num_attention_heads).into();
    text["attention_bias"] = false.into();
    text["rope_scaling"] =
        json!({"mrope_interleaved": true, "mrope_section": base.mrope_section, "rope_type": "default"});
    let class = text.as_object_mut().and_then(|text| text.remove("architectures"));
    let tower = &base.vision;
    json!({
        "architectures": class,
        "model_type": MODEL_TYPE,
        "image_token_id": ids.media.image,
        "video_token_id": ids.media.video,
        "vision_start_token_id": ids.media.start,
        "vision_end_token_id": ids.media.end,
        "vision_token_id": ids.media.pad,
        "tie_word_embeddings": base.tie_word_embeddings,
        "torch_dtype": "float32",
        "text_config": text,
        "vision_config": {
            "deepstack_visual_indexes": tower.deepstack_visual_indexes,
            "depth": tower.depth,
            "hidden_act": "gelu_pytorch_tanh",
            "hidden_size": tower.hidden_size,
            "in_channels": 3,
            "initializer_range": base.initializer_range,
            "intermediate_size": tower.intermediate_size,
            "model_type": MODEL_TYPE,
            "num_heads": tower.num_heads,
            "num_position_embeddings": tower.num_position_embeddings,
            "out_hidden_size": base.hidden_size,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    })
}
