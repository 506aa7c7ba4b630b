//! The configuration of a tiny model, for unit tests.

use serde_json::{Value, json};

/// Returns the contents of a tiny model's `config.json`. Most of its sizes are deliberately not powers of
/// two.
pub(crate) fn tiny() -> Value {
    json!({
        "model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"], "auto_map": null, "vocab_size": 90, "hidden_size": 24, "intermediate_size": 36,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
        "tie_word_embeddings": false, "image_token_id": 80, "video_token_id": 81,
        "vision_start_token_id": 82, "vision_end_token_id": 83, "vision_token_id": 84,
        "vision_config": {
            "depth": 2, "hidden_size": 16, "intermediate_size": 20, "num_heads": 2, "out_hidden_size": 24,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
            "fullatt_block_indexes": [1], "tokens_per_second": 2
        }
    })
}
