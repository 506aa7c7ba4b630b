//! The engine with kernels: paged KV cache, captured decode steps, and the sampler on the device. The log-prob of a
//! sampled token equals the one of the trainer's packed forward pass bit for bit, whatever other requests the engine
//! runs.

use std::collections::HashSet;
use std::sync::Arc;

use omr_base::config::BaseConfig;
use omr_model::engine::{CompletionOutput, Engine, EngineConfig, EngineCoreRequest, Prompt};
use omr_model::nn::Model;
use omr_model::nn::ModelConfig;
use omr_runtime::device::{Device, Kind};
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::gemm_sm90a::{wide, wide_with, with_late_ctas};
use omr_runtime_tests::kernels::{Schedule, emu, emu_with, emulator, kind, no_hopper, skipped};
use serde_json::json;

use crate::engine::families::{every_way_in_small, qwen3_vl, text_configs};
use crate::engine::parity::{assert_same, assert_trained, config, few_ids, generate, limits, partly_wrong, requests};
use crate::engine::serving::{mixed, serve, serving_limits};

/// Runs the requests in an engine with as few blocks as possible. Returns the outputs and the number of preemptions.
fn with_fewest_blocks(model: &Model, dev: &mut Device, requests: &[EngineCoreRequest]) -> (Vec<CompletionOutput>, u64) {
    for blocks in 1.. {
        let mut engine = Engine::new(model, dev, EngineConfig { num_kv_blocks: Some(blocks), ..limits() }).unwrap();
        let outputs = engine.generate(model, dev, requests);
        let stats = engine.stats();
        engine.release(dev);
        if let Ok(outputs) = outputs {
            println!("{blocks} blocks: {stats:?}");
            return (outputs, stats.preemptions);
        }
    }
    unreachable!("some number of blocks is enough")
}

/// Compares eight prompts of at most `longest` tokens, with two rollouts each, under variations of the engine's limits.
/// Returns the number of preemptions.
fn every_way(longest: usize) -> u64 {
    let config = config();
    let requests: Vec<EngineCoreRequest> = requests(&config, 8, longest, 2);
    let mut dev = emu();
    let model = Model::init(&mut dev, config.clone(), DType::Bf16, 5).unwrap();
    let reference = generate(&model, &mut dev, limits(), &requests);
    let replays = match skipped("how many decode steps were replayed") {
        true => 0,
        false => emulator(&mut dev).counters().replays,
    };
    assert!(replays > 0 || kind() == Kind::Cuda, "no decode step was captured");
    let tokens = assert_trained("as it comes", &model, &mut dev, &requests, &reference);
    let distinct: HashSet<_> = reference.iter().map(|o| &o.token_ids).collect();
    assert!(distinct.len() > reference.len() / 2, "{} distinct answers", distinct.len());
    println!("{} rollouts, {tokens} sampled tokens, {replays} replayed steps: largest difference 0", reference.len());

    let variations = [
        ("chunks of 97", EngineConfig { max_num_batched_tokens: 97, ..limits() }),
        ("no prefix cache", EngineConfig { max_num_seqs: 5, enable_prefix_caching: false, ..limits() }),
        ("one at a time", EngineConfig { vision_rows: 2, max_num_seqs: 1, ..limits() }),
    ];
    for ((what, limits), schedule) in variations.into_iter().zip(Schedule::several(3)) {
        let mut dev = emu_with(schedule);
        let model = Model::init(&mut dev, config.clone(), DType::Bf16, 5).unwrap();
        assert_same(what, &reference, &generate(&model, &mut dev, limits, &requests));
    }
    let (outputs, preemptions) = with_fewest_blocks(&model, &mut dev, &requests);
    assert_same("fewest blocks", &reference, &outputs);
    let mut alone: Vec<CompletionOutput> = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        let mut outputs = generate(&model, &mut dev, limits(), std::slice::from_ref(request));
        outputs.iter_mut().for_each(|o| o.request = i);
        assert_trained_alone(&model, &mut dev, request, &outputs);
        alone.extend(outputs);
    }
    assert_same("every prompt alone", &reference, &alone);
    preemptions
}

#[test]
fn tiles_from_a_counter_add_no_node_to_a_decode_graph() {
    if skipped("the nodes of a graph") {
        return;
    }
    // With one CTA most products of the model have more than two waves, with eight fewer have.
    let [counted, fixed] = [1, 8].map(|ctas| {
        let mut dev = with_late_ctas(8, ctas, 6);
        let (model, requests) = wide_model(130, &mut dev);
        generate(&model, &mut dev, limits(), &requests);
        emulator(&mut dev).counters().nodes
    });
    println!("{counted} nodes");
    assert!(counted > 0 && counted == fixed, "{counted} nodes, {fixed} without a counter");
}

/// Checks the first rollout like [`assert_trained`], but as the only sequence of the trainer's pack.
fn assert_trained_alone(model: &Model, dev: &mut Device, request: &EngineCoreRequest, outputs: &[CompletionOutput]) {
    for output in outputs.iter().take(1) {
        // The parity of the request's number decides its temperature.
        let at = output.request % 2;
        let pair = [request.clone(), request.clone()];
        let one = [CompletionOutput { request: at, ..output.clone() }];
        assert_trained("a pack of one", model, dev, &pair, &one);
    }
}

/// Returns a model of two layers with heads of 80, whose attention uses wgmma, and prompts of up to `longest` tokens, at
/// least 128, with three rollouts each.
fn wide_model(longest: usize, dev: &mut Device) -> (Model, Vec<EngineCoreRequest>) {
    let mut file = config().to_json(DType::F32);
    for (key, value) in [("hidden_size", 160), ("num_attention_heads", 2), ("num_key_value_heads", 1)] {
        file[key] = value.into();
    }
    file["rope_scaling"]["mrope_section"] = json!([8, 16, 16]);
    file["vision_config"]["out_hidden_size"] = json!(160);
    let config = ModelConfig::from_json(&file, "wide").unwrap();
    let mut requests = requests(&config, 3, longest, 3);
    requests.iter_mut().for_each(|r| r.params.max_tokens = 4);
    // The answers to this prompt need one more block each.
    let ids: Vec<u32> = (0..longest as u32 / 128 * 128 - 2).map(|i| 10 + (i * 37 + i / 11) % 200).collect();
    requests[0].prompt = Arc::new(Prompt::new(&config, &ids, &[]).unwrap());
    (Model::init(dev, config, DType::Bf16, 5).unwrap(), requests)
}

/// Checks training, prefill, the pass over shared prefixes, and decode on one device. Their results must be equal,
/// because one kernel variant computes all of them.
fn one_variant(longest: usize) {
    let dev = &mut wide();
    let (model, requests) = wide_model(longest, dev);
    let reference = generate(&model, dev, limits(), &requests);
    assert_trained("by wgmma", &model, dev, &requests, &reference);
    // Fewer blocks than three rollouts of the first prompt need.
    let scarce = EngineConfig { num_kv_blocks: Some(longest / 128 + 3), ..limits() };
    let mut engine = Engine::new(&model, dev, scarce).unwrap();
    let outputs = engine.generate(&model, dev, &requests).unwrap();
    println!("{:?}", engine.stats());
    assert!(engine.stats().preemptions > 0);
    engine.release(dev);
    assert_same("scarce blocks", &reference, &outputs);
    let alone = EngineConfig { vision_rows: 2, max_num_seqs: 1, ..limits() };
    assert_same("nothing shared", &reference, &generate(&model, dev, alone, &requests));
    if skipped("which kernels ran") {
        return;
    }
    let ran = |file: &str| emulator(dev).sites().iter().any(|(passed, _)| passed.site.file == file);
    let variants = ["kernels/common/attend_sm90a.cuh", "kernels/common/attend_tile.cuh"].map(ran);
    assert_eq!(variants, [true, false], "attention by wgmma alone");
}

/// Checks rollouts that cross a block border, with right and wrong draft tokens.
fn drafts(mut dev: Device) {
    let (model, mut requests) = wide_model(300, &mut dev);
    requests.truncate(2);
    requests.iter_mut().for_each(|r| r.params.max_tokens = 24);
    let limits = EngineConfig { allowed: Some(few_ids(&mut dev)), ..limits() };
    let reference = generate(&model, &mut dev, limits, &requests);
    let mut engine = Engine::new(&model, &mut dev, EngineConfig { draft_rows: 64, ..limits }).unwrap();
    let recorded = |of: &CompletionOutput| ((of.request, of.index), partly_wrong(of.index, &of.token_ids));
    engine.expect(reference.iter().map(recorded).collect());
    let outputs = engine.generate(&model, &mut dev, &requests).unwrap();
    let stats = engine.stats();
    println!("{stats:?}");
    engine.release(&mut dev);
    assert_same("drafts", &reference, &outputs);
    assert!(requests[0].prompt.token_ids.len() % 128 + outputs[0].token_ids.len() > 128, "no border was passed");
    assert!(stats.accepted_tokens > 0 && stats.accepted_tokens < stats.drafted_tokens);
}

/// Answers requests with penalties, restrictions and log-probs, which use kept logits, in any company.
fn served(device: impl Fn(Schedule) -> Device) {
    let mut requests = mixed(10, 200);
    requests.iter_mut().for_each(|request| request.params.max_tokens = request.params.max_tokens.clamp(6, 9));
    let run = |schedule: Schedule, limits: EngineConfig, order: &[usize], together: usize| {
        let mut dev = device(schedule);
        let model = Model::init(&mut dev, config(), DType::Bf16, 5).unwrap();
        let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
        let answers = serve(&model, &mut dev, &mut engine, &requests, order, together);
        assert_eq!(engine.load().num_used_blocks, 0);
        engine.release(&mut dev);
        answers
    };
    let order: Vec<usize> = (0..requests.len()).collect();
    let want = run(Schedule::FIXED, serving_limits(), &order, requests.len());
    let other = EngineConfig { max_num_batched_tokens: 97, ..serving_limits() };
    let reversed: Vec<usize> = order.iter().rev().copied().collect();
    assert_eq!(want, run(Schedule::several(2)[1], other, &reversed, 2));
}

#[test]
fn a_server_on_a_gpu_gives_the_same_answers_in_any_company() {
    served(emu_with);
    if !no_hopper("wgmma") {
        served(wide_with);
    }
}

#[test]
fn drafts_change_no_bit_of_either_variant() {
    drafts(emu());
    if !no_hopper("wgmma") {
        drafts(wide());
    }
}

/// Returns small configs of every family of text models, with heads of 80, whose attention uses wgmma.
fn wide_text_configs() -> Vec<ModelConfig> {
    let base = BaseConfig { hidden_size: 160, num_attention_heads: 2, num_key_value_heads: 1, ..BaseConfig::default() };
    text_configs(&BaseConfig { intermediate_size: 96, ..base }).collect()
}

#[test]
fn a_text_model_whose_heads_are_normalized_samples_what_it_trains() {
    let config = wide_text_configs().into_iter().find(|config| config.family.model_types == ["qwen3"]).unwrap();
    every_way_in_small(&mut emu(), &config, DType::Bf16, None, 4);
}

#[test]
#[ignore = "slow: a minute"]
fn text_models_of_every_family_sample_what_they_train_by_each_kernel_variant() {
    for config in wide_text_configs() {
        every_way_in_small(&mut emu(), &config, DType::Bf16, None, 4);
        if !no_hopper("wgmma") {
            every_way_in_small(&mut wide(), &config, DType::Bf16, Some(16), 4);
        }
    }
}

#[test]
#[ignore = "slow: a minute"]
fn qwen3_vl_samples_what_it_trains_by_each_kernel_variant() {
    every_way_in_small(&mut emu(), &qwen3_vl(72), DType::Bf16, None, 4);
    if !no_hopper("wgmma") {
        every_way_in_small(&mut wide(), &qwen3_vl(64), DType::Bf16, Some(16), 4);
    }
}

#[test]
fn sampling_and_training_attend_by_one_variant() {
    if !no_hopper("wgmma") {
        one_variant(300);
    }
}

#[test]
#[ignore = "slow: minutes"]
fn sampling_and_training_attend_by_one_variant_past_a_chunk() {
    if !no_hopper("wgmma") {
        one_variant(2200);
    }
}

#[test]
fn sampled_and_trained_log_probs_are_equal() {
    assert!(every_way(300) > 0);
}

/// Tests contexts of more than one chunk of keys.
#[test]
#[ignore = "slow: minutes"]
fn sampled_and_trained_log_probs_are_equal_past_a_chunk() {
    every_way(2200);
}
