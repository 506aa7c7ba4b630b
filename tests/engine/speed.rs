//! How fast the engine is on the digits model's shape: run with `--ignored`. One thread and its time on the
//! processor, so that a busy machine gives the same figures.

use std::sync::Arc;

use omr::device::{Device, Isa, Plan};
use omr::engine::{Engine, EngineConfig, Prompt, Request};
use omr::image::ImageInput;
use omr::model::{Model, ModelConfig};
use omr::ops::sample::SamplingParams;
use omr::tensor::DType;

fn config() -> ModelConfig {
    let config = serde_json::json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "vocab_size": 512,
        "hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 3,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": true,
        "max_position_embeddings": 512, "initializer_range": 0.05, "hidden_act": "silu",
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]}, "image_token_id": 500,
        "video_token_id": 501, "vision_start_token_id": 502, "vision_end_token_id": 503,
        "vision_token_id": 504, "bos_token_id": 505, "eos_token_id": 506,
        "vision_config": {
            "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 96,
            "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2, "window_size": 112,
            "fullatt_block_indexes": [0, 1], "in_chans": 3, "tokens_per_second": 2, "hidden_act": "silu"
        }
    });
    ModelConfig::from_json(&config, "test").unwrap()
}

/// Seconds this thread has computed.
fn thread_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[test]
#[ignore = "measures time"]
fn rollouts_of_the_digits_model() {
    let config = config();
    let prompt = |at: u32| {
        let pixels = (0..28 * 56 * 3).map(|i| (i as u32 * (at + 3) >> 3) as u8).collect();
        let image = Arc::new(ImageInput { grid_thw: [1, 2, 4], frames: 1, pixels });
        let mut ids: Vec<u32> = (0..12).collect();
        ids.extend([502, 500, 500, 503]);
        ids.extend((0..14).map(|i| 20 + (i * at) % 100));
        Arc::new(Prompt::new(&config, &ids, &[image]).unwrap())
    };
    for (dtype, prompts, n) in [(DType::F32, 64, 8), (DType::F32, 1, 1), (DType::Bf16, 64, 8)] {
        let mut dev = Device::cpu(&Plan::uniform(1 << 30), 1, Isa::detect()).unwrap();
        let model = Model::init(&mut dev, config.clone(), dtype, 1).unwrap();
        let requests: Vec<Request> = (0..prompts)
            .map(|at| Request {
                prompt: prompt(at),
                n,
                sampling: SamplingParams::default(),
                max_tokens: 40,
                stop_token_ids: Arc::from([]),
                noise: at,
            })
            .collect();
        let mut best = f64::INFINITY;
        let mut tokens = 0;
        for step in 0..5 {
            let begun = thread_seconds();
            let limits = EngineConfig { vision_rows: 256, max_num_seqs: 512, step, ..EngineConfig::new(128) };
            let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
            let outputs = engine.generate(&model, &mut dev, &requests, |_| Ok(())).unwrap();
            engine.release(&mut dev);
            tokens = outputs.iter().map(|o| o.token_ids.len()).sum();
            best = best.min(thread_seconds() - begun);
        }
        let rate = tokens as f64 / best;
        println!("{dtype:?} {prompts} x {n}: {tokens} tokens in {best:.3} s, {rate:.0} tok/s");
    }
}
