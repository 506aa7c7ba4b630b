//! Compares the mrope positions of whole sequences with transformers 5, and those of videos with transformers 4.

use std::sync::Arc;

use omr_base_tests::golden::{dir, json, report};
use omr_data::image::{Backend, ImageInput};
use omr_model::nn::positions::{Medium, sequence};
use omr_model::nn::{Inputs, ModelConfig};
use serde_json::{Value, json};

fn ints<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// Returns a model config with the released ids. The position rules use these ids, the merge size and the time step,
/// and no other value.
fn config(tokens_per_second: &Value) -> ModelConfig {
    let file = json!({
        "model_type": "qwen2_5_vl", "vocab_size": 152064, "hidden_size": 64, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "vision_config": {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 64,
            "fullatt_block_indexes": [0], "tokens_per_second": tokens_per_second}
    });
    ModelConfig::from_json(&file, "config").unwrap()
}

/// Returns the positions of a batch with these images and videos, as rows provide them.
fn of_inputs(config: &ModelConfig, ids: &[u32], media: &[Medium]) -> [Vec<i32>; 3] {
    let input = |medium: &Medium| {
        let Medium { grid_thw, video, second_per_grid_ts } = *medium;
        let frames = if video { 2 * grid_thw[0] } else { 1 };
        Arc::new(ImageInput { grid_thw, frames, pixels: Vec::new(), second_per_grid_ts, backend: Backend::Pil })
    };
    let images: Vec<Arc<ImageInput>> = media.iter().map(input).collect();
    let mut inputs = Inputs::empty();
    inputs.push(config, ids, &images, ids.len()).unwrap();
    inputs.position_ids
}

#[test]
fn positions_equal_those_of_transformers() {
    let file = json(&dir().join("hf/rope_cases.json"));
    let config = config(&file["tokens_per_second"]);
    let cases = file["cases"].as_array().unwrap();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mask: Vec<u32> = ints(&case["attention_mask"]);
        let kept = |values: Vec<i64>| -> Vec<i64> {
            values.into_iter().zip(&mask).filter(|(_, m)| **m == 1).map(|(v, _)| v).collect()
        };
        let ids: Vec<u32> = kept(ints(&case["input_ids"])).into_iter().map(|id| id as u32).collect();
        let images: Vec<[u32; 3]> = ints(&case["image_grid_thw"]);
        let videos: Vec<[u32; 3]> = ints(&case["video_grid_thw"]);
        let seconds: Vec<f64> = ints(&case["second_per_grid_ts"]);
        let mut images = images.into_iter().map(|grid_thw| Medium { grid_thw, video: false, second_per_grid_ts: 1.0 });
        let mut videos = videos.into_iter().enumerate().map(|(i, grid_thw)| Medium {
            grid_thw,
            video: true,
            // The recorded version truncates the seconds. Fractions are in tests/train/rows/video.rs.
            second_per_grid_ts: seconds[i].trunc(),
        });
        // The media in the order of their first placeholder ids.
        let of = config.media.as_ref().unwrap().ids;
        let starts = ids.iter().zip(&ids[1..]).filter(|(a, _)| **a == of.start);
        let media: Vec<Medium> =
            starts.map(|(_, next)| if *next == of.video { videos.next() } else { images.next() }.unwrap()).collect();
        let found = sequence(&config, &ids, &media, ids.len()).unwrap();
        // A sampled answer continues at the largest position plus one. Text after a video has to do the same.
        let sampled = sequence(&config, &ids, &media, ids.len() - 1).unwrap();
        assert_eq!(found.position_ids, sampled.position_ids, "{name}, with a last token that is sampled");
        let version = if media.iter().any(|medium| medium.video) { "4x" } else { "v5" };
        assert_eq!(of_inputs(&config, &ids, &media), found.position_ids, "{name}, of a batch");
        let want: [Vec<i64>; 3] = ints(&case[&format!("position_ids_{version}")]);
        for (axis, want) in want.into_iter().enumerate() {
            let found: Vec<i64> = found.position_ids[axis].iter().map(|&p| i64::from(p)).collect();
            assert_eq!(found, kept(want), "{name} axis {axis}");
        }
        assert_eq!(i64::from(found.rope_delta), ints::<i64>(&case[&format!("rope_delta_{version}")]), "{name} delta");
    }
    report("rope", cases.len());
}
