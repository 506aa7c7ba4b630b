//! Tests that text models of every family sample what they train, in every way that the engine has.

use std::sync::Arc;

use omr_base::config::BaseConfig;
use omr_data::image::{ImageInput, MediaIds};
use omr_model::engine::{CompletionOutput, Engine, EngineConfig, Prompt};
use omr_model::nn::config::NewIds;
use omr_model::nn::family::FAMILIES;
use omr_model::nn::{Model, ModelConfig};
use omr_model_tests::models::Rough;
use omr_runtime::device::{Device, Isa};
use omr_runtime::tensor::DType;

use super::parity::{
    IMAGE, STOP, VIDEO, VISION_START, VOCAB, assert_same, assert_trained, device, generate, limits, partly_wrong,
    requests,
};

/// Returns small configs of every family of text models.
pub fn text_configs(base: &BaseConfig) -> impl Iterator<Item = ModelConfig> {
    let base = BaseConfig { vocab_size: VOCAB as usize, num_hidden_layers: 2, initializer_range: 0.25, ..base.clone() };
    let media = MediaIds { image: 0, video: 0, start: 0, end: 0, pad: 0 };
    let config = move |family| ModelConfig::new(family, &base, NewIds { bos: 295, eos: STOP, media }, "test").unwrap();
    FAMILIES.into_iter().filter(|family| family.prefixes.is_empty()).map(config)
}

/// Returns a small Qwen3-VL. Its tower has heads of `head_dim`, and mergers after two of three blocks.
pub fn qwen3_vl(head_dim: usize) -> ModelConfig {
    let config = serde_json::json!({
        "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl", "image_token_id": IMAGE,
        "video_token_id": VIDEO, "vision_start_token_id": VISION_START, "vision_end_token_id": 292,
        "vision_token_id": 294,
        "text_config": {
            "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "eos_token_id": STOP,
            "max_position_embeddings": 4096, "initializer_range": 0.25,
            "rope_scaling": {"mrope_interleaved": true, "mrope_section": [4, 2, 2], "rope_type": "default"},
        },
        "vision_config": {
            "depth": 3, "hidden_size": 2 * head_dim, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 48,
            "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 2]
        }
    });
    ModelConfig::from_json(&config, "test").unwrap()
}

/// Samples two prompts that share a prefix, with three rollouts each, in every way that the engine has: with cached
/// prefixes, preemption and drafts. All tokens and bits must be equal, and those of the trainer. `scarce` is a number of
/// blocks that is too small for all rollouts. With a `rank`, the model has adapters.
pub fn every_way_in_small(dev: &mut Device, config: &ModelConfig, dtype: DType, rank: Option<usize>, scarce: usize) {
    let mut model = Model::init(dev, config.clone(), dtype, 5).unwrap();
    if let Some(rank) = rank {
        model.attach(dev, rank, 1.6, &|_, _| true).unwrap();
        model.set_adapters(dev, &Rough).unwrap();
    }
    let mut requests = requests(config, 2, 200, 3);
    // Prompts begin with an image if the model has a vision tower.
    let image = config.media.as_ref().map(|media| {
        let side = media.grid.patch_size;
        Arc::new(ImageInput::image([8, 8], (0..8 * 8 * side * side * 3).map(|i| (i % 251) as u8).collect()))
    });
    for (at, request) in requests.iter_mut().enumerate() {
        let mut ids: Vec<u32> = (0..254 + at as u32).map(|i| 10 + (i * 37 + i / 11) % 200).collect();
        if let Some(image) = &image {
            ids[..1 + image.tokens(2)].fill(IMAGE);
            ids[0] = VISION_START;
        }
        request.prompt = Arc::new(Prompt::new(config, &ids, image.as_slice()).unwrap());
        // No answer ends before its last token, so that all of them need one more block.
        (request.params.max_tokens, request.params.eos_token_ids) = (8, Arc::from([]));
    }
    let what = format!("{} {dtype:?} {rank:?}", config.family.model_types[0]);
    let reference = generate(&model, dev, EngineConfig { enable_prefix_caching: false, ..limits() }, &requests);
    assert!(assert_trained(&what, &model, dev, &requests, &reference) == 48);
    // The second prompt is admitted after the first has stored its keys.
    let limits = EngineConfig { max_num_batched_tokens: 200, ..limits() };
    for (way, limits) in [
        ("cached prefix", limits),
        ("drafts, preemption", EngineConfig { draft_rows: 64, num_kv_blocks: Some(scarce), ..limits }),
    ] {
        let mut engine = Engine::new(&model, dev, limits).unwrap();
        let recorded = |of: &CompletionOutput| ((of.request, of.index), partly_wrong(of.index, &of.token_ids));
        engine.expect(reference.iter().filter(|_| limits.draft_rows > 0).map(recorded).collect());
        let outputs = engine.generate(&model, dev, &requests).unwrap();
        let stats = engine.stats();
        println!("{what}, {way}: {stats:?}");
        engine.release(dev);
        assert_same(&format!("{what}, {way}"), &reference, &outputs);
        match limits.draft_rows {
            0 => assert!(stats.cached_tokens >= 128, "{stats:?}"),
            _ => {
                assert!(stats.preemptions > 0, "{stats:?}");
                assert!(stats.accepted_tokens > 0 && stats.accepted_tokens < stats.drafted_tokens, "{stats:?}");
            }
        }
    }
}

#[test]
fn text_models_of_every_family_sample_what_they_train() {
    let base = BaseConfig { hidden_size: 48, num_attention_heads: 4, intermediate_size: 72, ..BaseConfig::default() };
    for config in text_configs(&BaseConfig { num_key_value_heads: 2, ..base }) {
        every_way_in_small(&mut device(2, Isa::detect()), &config, DType::F32, None, 4);
        every_way_in_small(&mut device(2, Isa::detect()), &config, DType::Bf16, Some(5), 4);
        every_way_in_small(&mut device(2, Isa::AmxTwin), &config, DType::Bf16, None, 4);
    }
}
