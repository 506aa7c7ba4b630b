//! Tests that sampling and training use the same arithmetic (`docs/dev/design/training.md`): the log-prob with which the
//! engine samples a token is bitwise identical to the log-prob of the trainer's packed forward pass, in which responses
//! to the same prompt share it. It does not depend
//! on the other requests that the engine handles at the same time.

use std::sync::Arc;

use omr_base::error::Error;
use omr_base::philox::{Purpose, Random};
use omr_data::image::{ImageInput, Processor};
use omr_model::engine::{
    CompletionOutput, Engine, EngineConfig, EngineCoreRequest, FinishReason, Noise, Prompt, RequestParams,
};
use omr_model::nn::{LayerPolicy, Model, ModelConfig, Policy};
use omr_model_tests::models::Rough;
use omr_runtime::device::{Device, Isa, Plan, Region, Target};
use omr_runtime::ops::sample::SamplingParams;
use omr_runtime::tensor::{DType, Tensor};
use omr_train::training::step::{self, Sequence};

use super::families::qwen3_vl;

pub const VOCAB: u32 = 300;
pub const IMAGE: u32 = 290;
pub const VIDEO: u32 = 293;
pub const VISION_START: u32 = 291;
pub const STOP: u32 = 7;

pub fn config() -> ModelConfig {
    let config = serde_json::json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "vocab_size": VOCAB,
        "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "tie_word_embeddings": false,
        "max_position_embeddings": 4096, "initializer_range": 0.25, "hidden_act": "silu",
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]}, "image_token_id": IMAGE,
        "video_token_id": VIDEO, "vision_start_token_id": VISION_START, "vision_end_token_id": 292,
        "vision_token_id": 294, "bos_token_id": 295, "eos_token_id": STOP,
        "vision_config": {
            "depth": 2, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "out_hidden_size": 48,
            "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2, "window_size": 56,
            "fullatt_block_indexes": [1], "in_chans": 3, "tokens_per_second": 2, "hidden_act": "silu"
        }
    });
    ModelConfig::from_json(&config, "test").unwrap()
}

pub fn device(threads: usize, isa: Isa) -> Device {
    Device::cpu(&Plan::uniform(2 << 30), threads, isa).unwrap()
}

/// Number of blocks that the longest sequence just fits into, so other sequences must be preempted.
const SCARCE: usize = 20;

/// Temperatures by request kind. All requests of a kind share one policy.
const TEMPERATURES: [f32; 2] = [1.0, 0.7];

/// Returns prompts that share prefixes, prompts with images and videos, and prompts of more than 2,048 tokens.
pub fn requests(config: &ModelConfig, num_prompts: usize, longest: usize, n: usize) -> Vec<EngineCoreRequest> {
    let mut random = Random::new(omr_base_tests::seed::seed(), Purpose::Test, 0);
    let mut below = move |n: u32| random.next_u32() % n;
    let side = config.media.as_ref().map_or(14, |media| 2 * media.grid.patch_size);
    let pixels = |fill: u8| -> Arc<ImageInput> {
        let pixels = (0..2 * side * side * 3).map(|i| (i as u8).wrapping_mul(fill)).collect();
        Arc::new(ImageInput::image([2, 4], pixels))
    };
    // A video of three frames. The last frame is repeated, so the video has as many tokens as an image.
    let frame = |fill: u8| ImageInput::image([2, 2], pixels(fill).pixels[..side * side * 3].to_vec());
    let video = Arc::new(Processor::default().video(&[5, 7, 9].map(frame), 0.5).unwrap());
    let all: Vec<_> = (0..4).map(|i| pixels(31 + 2 * i)).chain([video]).collect();
    let shared: Vec<u32> = (0..longest as u32).map(|i| 10 + (i * 37 + i / 11) % 200).collect();
    let mut prompt = |at: usize| {
        let mut ids = match at % 10 {
            _ if at.is_multiple_of(41) => shared[..longest - 100 + below(100) as usize].to_vec(),
            1 | 2 => shared[..(128 * below(3) as usize).min(longest)].to_vec(),
            _ => Vec::new(),
        };
        let mut images = Vec::new();
        for _ in 0..if config.media.is_some() && at.is_multiple_of(3) { 1 + below(2) } else { 0 } {
            let image = all[below(5) as usize].clone();
            let format = config.media.as_ref().unwrap().format();
            for run in format.runs(image.grid()) {
                ids.push(VISION_START);
                ids.extend(format.tokens(run));
            }
            images.push(image);
        }
        ids.extend((0..1 + below(60)).map(|_| 10 + below(200)));
        Arc::new(Prompt::new(config, &ids, &images).unwrap())
    };
    (0..num_prompts)
        .map(|at| {
            let max_tokens = if at % 10 == 2 { 150 } else { 1 + (at * 13) % 50 };
            let sampling = SamplingParams {
                temperature: TEMPERATURES[at % 2],
                top_k: if at % 7 == 3 { 20 } else { 0 },
                top_p: if at % 7 == 4 { 0.9 } else { 1.0 },
                min_p: if at % 7 == 5 { 0.02 } else { 0.0 },
            };
            let noise = Noise { seed: 3, step: 9, prompt: at as u32 };
            let stop = Arc::from([STOP, STOP + 1, STOP + 2]);
            let params = RequestParams { sampling, noise, ..RequestParams::new(max_tokens, stop) };
            EngineCoreRequest::new(prompt(at), n, params)
        })
        .collect()
}

pub fn limits() -> EngineConfig {
    EngineConfig { vision_rows: 64, ..EngineConfig::new(3000) }
}

pub fn generate(
    model: &Model,
    dev: &mut Device,
    config: EngineConfig,
    requests: &[EngineCoreRequest],
) -> Vec<CompletionOutput> {
    let mut engine = Engine::new(model, dev, config).unwrap();
    let outputs = engine.generate(model, dev, requests).unwrap();
    println!("{:?}", engine.stats());
    assert!(config.num_kv_blocks != Some(SCARCE) || engine.stats().preemptions > 0);
    engine.release(dev);
    outputs
}

/// Returns the trainer's log-probs of the sampled tokens. Responses to the same prompt share it.
fn trained(
    model: &Model,
    dev: &mut Device,
    requests: &[EngineCoreRequest],
    outputs: &[CompletionOutput],
) -> Vec<Vec<f32>> {
    let mut result = vec![Vec::new(); outputs.len()];
    for (kind, &temperature) in TEMPERATURES.iter().enumerate() {
        let mine: Vec<usize> = (0..outputs.len()).filter(|&i| outputs[i].request % 2 == kind).collect();
        for pack in mine.chunks(6) {
            let of = |&i: &usize| -> (&Prompt, Vec<u32>) {
                let prompt = &requests[outputs[i].request].prompt;
                (&**prompt, [&prompt.token_ids[..], &outputs[i].token_ids].concat())
            };
            let whole: Vec<_> = pack.iter().map(of).collect();
            let masks: Vec<Vec<bool>> = whole
                .iter()
                .map(|(prompt, ids)| (0..ids.len()).map(|at| at >= prompt.token_ids.len()).collect())
                .collect();
            let sequence = |at: usize| Sequence {
                input_ids: &whole[at].1,
                images: &whole[at].0.pixels,
                prompt_len: whole[at].0.token_ids.len(),
                loss_mask: &masks[at],
                same_prompt: at > 0 && outputs[pack[at]].request == outputs[pack[at - 1]].request,
            };
            let sequences: Vec<Sequence<'_>> = (0..pack.len()).map(sequence).collect();
            let policy = Policy { allowed: None, temperature };
            let forward = step::forward(dev, model, &sequences, policy, LayerPolicy::All, false).unwrap();
            let mut logprobs = dev.read::<f32>(forward.log_prob).unwrap().into_iter();
            for &i in pack {
                result[i] = logprobs.by_ref().take(outputs[i].token_ids.len()).collect();
            }
            forward.discard(dev);
        }
    }
    result
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

pub fn assert_same(what: &str, a: &[CompletionOutput], b: &[CompletionOutput]) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (a, b) in a.iter().zip(b) {
        let name = (a.request, a.index);
        assert_eq!(a.token_ids, b.token_ids, "{what}: tokens of {name:?}");
        assert_eq!(bits(&a.logprobs), bits(&b.logprobs), "{what}: log-probs of {name:?}");
        assert_eq!((name, a.finish_reason), ((b.request, b.index), b.finish_reason), "{what}");
    }
}

pub fn assert_trained(
    what: &str,
    model: &Model,
    dev: &mut Device,
    requests: &[EngineCoreRequest],
    outputs: &[CompletionOutput],
) -> usize {
    let mut tokens = 0;
    for (output, trained) in outputs.iter().zip(trained(model, dev, requests, outputs)) {
        let difference = output.logprobs.iter().zip(&trained).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let name = (output.request, output.index);
        assert_eq!(bits(&output.logprobs), bits(&trained), "{what}: {difference} in {name:?}");
        tokens += trained.len();
    }
    tokens
}

fn many_sequences(config: &ModelConfig, dtype: DType, isa: Isa, num_prompts: usize) {
    let requests = requests(config, num_prompts, 2200, 8);
    let model = |dev: &mut Device| Model::init(dev, config.clone(), dtype, 5).unwrap();
    let mut dev = device(2, isa);
    let reference_model = model(&mut dev);
    let reference = generate(&reference_model, &mut dev, limits(), &requests);
    let tokens = assert_trained("two threads", &reference_model, &mut dev, &requests, &reference);
    let longest = reference.iter().map(|o| requests[o.request].prompt.token_ids.len() + o.token_ids.len()).max();
    println!("{} sequences, {tokens} sampled tokens, longest {longest:?}, largest difference 0", reference.len());
    assert!(longest > Some(2048));
    let distinct: std::collections::HashSet<_> = reference.iter().map(|o| &o.token_ids).collect();
    assert!(distinct.len() > reference.len() / 2, "{} distinct answers", distinct.len());

    let variations = [
        ("chunks of 97, one thread", 1, requests.len(), EngineConfig { max_num_batched_tokens: 97, ..limits() }),
        ("preemption", 2, requests.len(), EngineConfig { num_kv_blocks: Some(SCARCE), ..limits() }),
        ("33 at once, no prefix cache", 5, 30, {
            EngineConfig { max_num_seqs: 33, enable_prefix_caching: false, ..limits() }
        }),
        ("few vision rows, one sequence", 2, 30, EngineConfig { vision_rows: 2, max_num_seqs: 1, ..limits() }),
    ];
    for (what, threads, count, limits) in variations {
        let mut dev = device(threads, isa);
        let model = model(&mut dev);
        let (requests, expected) = (&requests[..count], &reference[..count * 8]);
        assert_same(what, expected, &generate(&model, &mut dev, limits, requests));
        if threads != 2 {
            assert_trained(what, &model, &mut dev, requests, &expected[..240]);
        }
    }
    let odd: Vec<EngineCoreRequest> = requests.iter().skip(1).step_by(2).rev().cloned().collect();
    let mut alone = generate(&reference_model, &mut dev, limits(), &odd);
    alone.iter_mut().for_each(|o| o.request = requests.len() / 2 * 2 - 1 - 2 * o.request);
    alone.sort_by_key(|o| (o.request, o.index));
    let among: Vec<CompletionOutput> = reference.iter().filter(|o| o.request % 2 == 1).cloned().collect();
    assert_same("half the prompts, in another order", &among, &alone);
}

/// Questions about one image of 300 tokens: a cached prefix ends inside the image, with and without preemption.
#[test]
fn a_prefix_that_ends_inside_a_image_changes_no_bit() {
    a_prefix_inside_an_image(config(), None);
    a_prefix_inside_an_image(qwen3_vl(8), None);
    a_prefix_inside_an_image(qwen3_vl(8), Some(5));
}

/// Asks about an image of 300 tokens. With a `rank`, the text part and the tower have adapters.
fn a_prefix_inside_an_image(config: ModelConfig, rank: Option<usize>) {
    let side = config.grid().patch_size;
    let pixels = (0..30 * 40 * side * side * 3).map(|i| (i % 251) as u8).collect();
    let image = Arc::new(ImageInput::image([30, 40], pixels));
    let base = requests(&config, 6, 200, 16);
    let question = |(at, request): (usize, &EngineCoreRequest)| {
        let mut ids = vec![12, VISION_START];
        ids.resize(ids.len() + image.tokens(2), IMAGE);
        ids.extend((0..1 + 90 * at as u32).map(|i| 10 + (i * 7 + at as u32) % 200));
        let prompt = Arc::new(Prompt::new(&config, &ids, std::slice::from_ref(&image)).unwrap());
        let params = RequestParams { max_tokens: 140, ..request.params.clone() };
        EngineCoreRequest::new(prompt, [1, 2, 16][at % 3], params)
    };
    let requests: Vec<EngineCoreRequest> = base.iter().enumerate().map(question).collect();
    for dtype in [DType::F32, DType::Bf16] {
        let mut dev = device(2, Isa::detect());
        let mut model = Model::init(&mut dev, config.clone(), dtype, 5).unwrap();
        if let Some(rank) = rank {
            model.attach(&mut dev, rank, 1.6, &|_, _| true).unwrap();
            model.set_adapters(&mut dev, &Rough).unwrap();
        }
        // A question is admitted after the one before it has stored its keys.
        let limits = EngineConfig { vision_rows: 300, max_num_batched_tokens: 200, ..limits() };
        let apart = generate(&model, &mut dev, EngineConfig { enable_prefix_caching: false, ..limits }, &requests);
        assert_trained("no prefix cache", &model, &mut dev, &requests, &apart);
        for num_kv_blocks in [None, Some(12)] {
            let mut engine = Engine::new(&model, &mut dev, EngineConfig { num_kv_blocks, ..limits }).unwrap();
            let outputs = engine.generate(&model, &mut dev, &requests).unwrap();
            let stats = engine.stats();
            println!("{stats:?}");
            engine.release(&mut dev);
            assert!(num_kv_blocks.is_none() || stats.preemptions > 0);
            assert!(stats.cached_tokens >= 256, "{stats:?}");
            assert_same("cached image", &apart, &outputs);
        }
    }
}

/// Returns recorded tokens of which every second rollout, by `index`, has others from its middle on.
pub fn partly_wrong(index: usize, token_ids: &[u32]) -> Vec<u32> {
    let right = if index.is_multiple_of(2) { token_ids.len() } else { token_ids.len() / 2 };
    token_ids.iter().enumerate().map(|(at, &id)| if at < right { id } else { 20 + (id + 1) % 4 }).collect()
}

/// Returns a bitmap that allows only a few ids.
pub fn few_ids(dev: &mut Device) -> Tensor {
    let mut bitmap = vec![0u32; VOCAB.div_ceil(32) as usize];
    (20..24).for_each(|id| bitmap[id / 32] |= 1 << (id % 32));
    dev.upload(Region::Weights, &bitmap, &[bitmap.len()]).unwrap()
}

#[test]
fn drafts_change_no_token_and_no_bit_of_400_rollouts() {
    drafts_change_nothing(config(), 50);
}

#[test]
fn drafts_change_no_token_and_no_bit_of_160_rollouts_of_qwen3_vl() {
    drafts_change_nothing(qwen3_vl(8), 20);
}

fn drafts_change_nothing(config: ModelConfig, num_prompts: usize) {
    let mut requests = requests(&config, num_prompts, 300, 8);
    requests.iter_mut().skip(1).step_by(2).for_each(|request| request.params.eos_token_ids = Arc::from([20]));
    let mut answers: Vec<Vec<CompletionOutput>> = Vec::new();
    for (what, limits) in [
        ("drafts", EngineConfig { draft_rows: 256, ..limits() }),
        ("no prefix cache", {
            EngineConfig { draft_rows: 97, max_num_batched_tokens: 97, enable_prefix_caching: false, ..limits() }
        }),
        ("preemption", EngineConfig { draft_rows: 64, num_kv_blocks: Some(8), ..limits() }),
    ] {
        let [without, with] = [0, limits.draft_rows].map(|draft_rows| {
            let mut dev = device(2, Isa::detect());
            let model = Model::init(&mut dev, config.clone(), DType::F32, 5).unwrap();
            let limits = EngineConfig { draft_rows, allowed: Some(few_ids(&mut dev)), ..limits };
            let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
            let recorded = answers.first().filter(|_| draft_rows > 0).into_iter().flatten();
            let expected = recorded.map(|of| ((of.request, of.index), partly_wrong(of.index, &of.token_ids)));
            engine.expect(expected.collect());
            answers.push(engine.generate(&model, &mut dev, &requests).unwrap());
            engine.stats()
        });
        println!("{what}: {} of {} steps, {with:?}", with.steps, without.steps);
        assert!(with.accepted_tokens > 0 && with.accepted_tokens < with.drafted_tokens, "{what}: {with:?}");
        assert!(with.steps < without.steps && with.sampled_tokens == without.sampled_tokens, "{what}: {without:?}");
        assert!(limits.num_kv_blocks.is_none() || with.preemptions > 0);
    }
    let ended = |reason| answers[0].iter().any(|output| output.finish_reason == reason);
    assert!(answers[0].len() == 8 * num_prompts && ended(FinishReason::Stop) && ended(FinishReason::Length));
    answers.iter().skip(1).for_each(|with| assert_same("drafts", &answers[0], with));
}

#[test]
fn what_was_recorded_is_verified_in_fewer_steps() {
    let config = config();
    let requests = requests(&config, 5, 120, 4);
    let answer = |recorded: &[CompletionOutput]| {
        let mut dev = device(1, Isa::detect());
        let model = Model::init(&mut dev, config.clone(), DType::F32, 5).unwrap();
        let limits = EngineConfig { draft_rows: 64, allowed: Some(few_ids(&mut dev)), ..limits() };
        let mut engine = Engine::new(&model, &mut dev, limits).unwrap();
        engine.expect(recorded.iter().map(|o| ((o.request, o.index), o.token_ids.clone())).collect());
        (engine.generate(&model, &mut dev, &requests).unwrap(), engine.stats())
    };
    let (alone, without) = answer(&[]);
    let (again, with) = answer(&alone);
    assert_same("the record", &alone, &again);
    assert!(with.accepted_tokens == with.drafted_tokens && 2 * with.steps < without.steps, "{without:?} {with:?}");
    // From some token on, the recorded tokens differ from the sampled ones.
    let mut changed = alone.clone();
    changed.iter_mut().for_each(|output| output.token_ids.iter_mut().skip(5).for_each(|id| *id = 20 + (*id + 1) % 4));
    let (still, wrong) = answer(&changed);
    assert_same("a record with other tokens", &alone, &still);
    assert!(wrong.accepted_tokens < wrong.drafted_tokens && wrong.steps > with.steps, "{wrong:?} {with:?}");
}

/// After a run is killed, the remaining rollouts of some prompts are requested in several parts.
#[test]
fn rollouts_asked_for_in_parts_are_those_asked_for_together() {
    let config = config();
    let requests = requests(&config, 24, 300, 5);
    let mut dev = device(2, Isa::detect());
    let model = Model::init(&mut dev, config, DType::F32, 5).unwrap();
    let together = generate(&model, &mut dev, limits(), &requests);
    let parts = [(0, 1), (1, 3), (4, 1)];
    let part = |at: usize| {
        let (first, n) = parts[at % parts.len()];
        (23 - at, EngineCoreRequest { n, first_choice: first, ..requests[23 - at].clone() })
    };
    let mut engine = Engine::new(&model, &mut dev, EngineConfig { max_num_batched_tokens: 200, ..limits() }).unwrap();
    let (mut given, mut found) = (0, Vec::new());
    let next = || {
        given += 1;
        Ok((given <= 24).then(|| part(given - 1).1))
    };
    let done = engine.stream(&model, &mut dev, 200, next, |ended| {
        for output in ended {
            let (request, first) = (part(output.request).0, part(output.request).1.first_choice as usize);
            found.push(CompletionOutput { request, index: first + output.index, ..output });
        }
        Ok(())
    });
    done.unwrap();
    engine.release(&mut dev);
    found.sort_by_key(|output| (output.request, output.index));
    let wanted = |o: &&CompletionOutput| {
        (0..24).any(|at| {
            let (request, part) = part(at);
            let first = part.first_choice as usize;
            o.request == request && (first..first + part.n).contains(&o.index)
        })
    };
    let wanted: Vec<CompletionOutput> = together.iter().filter(wanted).cloned().collect();
    assert!(wanted.len() == 40, "{}", wanted.len());
    assert_same("parts", &wanted, &found);
}

#[test]
fn sampled_and_trained_log_probs_are_equal_in_f32() {
    many_sequences(&config(), DType::F32, Isa::detect(), 125);
    many_sequences(&qwen3_vl(8), DType::F32, Isa::detect(), 42);
}

#[test]
fn sampled_and_trained_log_probs_are_equal_in_bf16() {
    many_sequences(&config(), DType::Bf16, Isa::detect(), 50);
    many_sequences(&qwen3_vl(72), DType::Bf16, Isa::detect(), 42);
}

#[test]
fn sampled_and_trained_log_probs_are_equal_by_tiles() {
    many_sequences(&config(), DType::Bf16, Isa::AmxTwin, 50);
}

#[test]
fn all_bodies_give_the_same_bits_in_f32() {
    let config = config();
    let short = requests(&config, 25, 150, 4);
    let long = requests(&config, 50, 2200, 2);
    let run = |isa: Isa, requests: &[EngineCoreRequest]| {
        let mut dev = device(2, isa);
        let model = Model::init(&mut dev, config.clone(), DType::F32, 5).unwrap();
        let outputs = generate(&model, &mut dev, limits(), requests);
        assert_trained(isa.name(), &model, &mut dev, requests, &outputs);
        outputs
    };
    let best = run(Isa::detect(), &short);
    assert_same("portable", &best, &run(Isa::Portable, &short));
    if Isa::Avx2.available() {
        assert_same("AVX2", &run(Isa::detect(), &long), &run(Isa::Avx2, &long));
    }
    println!("portable: {} sequences; AVX2: {}", short.len() * 4, long.len() * 2);
}

#[test]
fn ids_that_are_not_allowed_are_never_sampled_and_bear_no_probability() {
    let config = config();
    let mut dev = device(2, Isa::detect());
    let model = Model::init(&mut dev, config.clone(), DType::F32, 5).unwrap();
    let mut bitmap = vec![0u32; VOCAB.div_ceil(32) as usize];
    (20..60).for_each(|id| bitmap[id / 32] |= 1 << (id % 32));
    let allowed = Some(dev.upload(Region::Weights, &bitmap, &[bitmap.len()]).unwrap());
    let requests = requests(&config, 20, 150, 2);
    let outputs = generate(&model, &mut dev, EngineConfig { allowed, ..limits() }, &requests);
    assert!(outputs.iter().flat_map(|o| &o.token_ids).all(|id| (20..60).contains(id)));
    let free = generate(&model, &mut dev, limits(), &requests);
    assert!(free.iter().flat_map(|o| &o.token_ids).any(|id| !(20..60).contains(id)));
}

#[test]
fn a_run_fits_the_memory_that_was_counted() {
    let config = config();
    let requests = requests(&config, 40, 600, 3);
    let limits = EngineConfig { max_num_batched_tokens: 300, max_num_seqs: 50, num_kv_blocks: Some(40), ..limits() };
    let limits = EngineConfig { draft_rows: 64, ..limits };
    for threads in [1, 5] {
        let mut counted = Device::count_for(Target::cpu(threads));
        let model = Model::empty(&mut counted, config.clone(), DType::F32).unwrap();
        let mut engine = Engine::new(&model, &mut counted, limits).unwrap();
        engine.plan(&model, &mut counted, &requests).unwrap();
        let plan = counted.high_water();
        let mut dev = Device::cpu(&plan, threads, Isa::detect()).unwrap();
        let model = Model::init(&mut dev, config.clone(), DType::F32, 5).unwrap();
        generate(&model, &mut dev, limits, &requests);
    }
}

#[test]
fn a_caller_that_stops_midway_leaves_an_engine_that_works() {
    let config = config();
    let mut requests = requests(&config, 12, 300, 2);
    let mut dev = device(2, Isa::detect());
    let model = Model::init(&mut dev, config, DType::F32, 5).unwrap();
    let expected = generate(&model, &mut dev, limits(), &requests);
    let mut engine = Engine::new(&model, &mut dev, EngineConfig { max_num_batched_tokens: 50, ..limits() }).unwrap();
    for patience in [0, 1, 20, 100] {
        let mut heard = 0;
        let mut rest = requests.iter().cloned();
        let stopped = engine.stream(
            &model,
            &mut dev,
            usize::MAX,
            || Ok(rest.next()),
            |_| {
                heard += 1;
                if heard > patience { Err(Error::Stopped) } else { Ok(()) }
            },
        );
        assert!(matches!(stopped, Err(Error::Stopped)));
    }
    let outputs = engine.generate(&model, &mut dev, &requests).unwrap();
    assert_same("after stops", &expected, &outputs);
    requests.iter_mut().for_each(|request| request.params.noise.step += 1);
    let other = engine.generate(&model, &mut dev, &requests).unwrap();
    assert!(expected.iter().zip(&other).any(|(a, b)| a.token_ids != b.token_ids));
}
