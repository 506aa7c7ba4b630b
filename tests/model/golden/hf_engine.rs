//! Compares the engine with Hugging Face's generate: the greedy tokens of every case of every model.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use omr_data::image::{ImageInput, Limits, Processor, decode};
use omr_model::engine::{Engine, EngineConfig, EngineCoreRequest, Prompt, RequestParams};
use omr_model::nn::Model;
use omr_runtime::device::{Device, Isa, Plan};
use omr_runtime::ops::sample::SamplingParams;
use omr_runtime::tensor::DType;
use safetensors::SafeTensors;
use serde_json::Value;

use super::hf::Golden;
use super::hf::forward::generate;

/// Tolerance of log-probs. Greedy ids must be equal: in the goldens' README, the smallest margin between the two best
/// logits is 0.0067, which is five hundred times the numerical noise.
const LOGPROB_TOLERANCE: f32 = 1e-4;

fn image(dir: &Path, file: &Value) -> omr_data::image::Rgb {
    let path = dir.join(file.as_str().unwrap());
    decode(&std::fs::read(&path).unwrap(), &Limits::default(), &path.display().to_string()).unwrap()
}

/// Returns the images and videos of an index, by name.
fn media(dir: &Path, index: &Value) -> HashMap<String, Arc<ImageInput>> {
    let mut found = HashMap::new();
    let videos = index.get("video").into_iter();
    for entry in index["images"].as_array().unwrap().iter().chain(videos) {
        let processor = Processor {
            min_pixels: entry["min_pixels"].as_u64().unwrap_or(1),
            max_pixels: entry["max_pixels"].as_u64().unwrap_or(1 << 24),
            ..Processor::default()
        };
        let input = match entry["frames"].as_array() {
            Some(frames) => {
                let frames: Vec<_> = frames.iter().map(|frame| processor.image(&image(dir, frame)).unwrap()).collect();
                processor.video(&frames, 2.0).unwrap()
            }
            None => processor.image(&image(dir, &entry["file"])).unwrap(),
        };
        let grid: Vec<u64> = entry["grid_thw"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!(input.grid_thw.map(u64::from).to_vec(), grid, "{}", entry["name"]);
        found.insert(entry["name"].as_str().unwrap().to_owned(), Arc::new(input));
    }
    found
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let bytes = file.tensor(name).unwrap().data().to_vec();
    bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data().to_vec();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

struct Case {
    name: String,
    request: EngineCoreRequest,
    generated_ids: Vec<u32>,
    generated_logprobs: Vec<f32>,
}

fn cases(dir: &Path, model: &Model, index: &Value) -> Vec<Case> {
    let media = media(dir, index);
    let of = model.config.media.as_ref().unwrap().ids;
    let pads = [of.image, of.video];
    let mut cases = Vec::new();
    for (name, case) in index["cases"].as_object().unwrap() {
        let bytes = std::fs::read(dir.join(case["file"].as_str().unwrap())).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let prompt_len = case["prompt_len"].as_u64().unwrap() as usize;
        let ids = &integers(&file, "input_ids")[..prompt_len];
        // A case's prompt may be only its first turn, with the images of that turn.
        let begins = |w: &&[u32]| w[0] == of.start && pads.contains(&w[1]);
        let places = ids.windows(2).filter(begins).count();
        let names = case["media"].as_array().unwrap().iter().take(places);
        let images: Vec<_> = names.map(|name| media[name.as_str().unwrap()].clone()).collect();
        let generated_ids = integers(&file, "generated_ids");
        let params = RequestParams {
            sampling: SamplingParams::greedy(),
            ..RequestParams::new(generated_ids.len(), Arc::from([]))
        };
        let prompt = Arc::new(Prompt::new(&model.config, ids, &images).unwrap());
        let request = EngineCoreRequest::new(prompt, 1, params);
        let generated_logprobs = floats(&file, "generated_logprobs");
        cases.push(Case { name: name.clone(), request, generated_ids, generated_logprobs });
    }
    cases
}

#[test]
fn greedy_tokens_are_hugging_faces() {
    let mut ran = 0;
    for dir in super::hf::models() {
        let index = omr_base_tests::golden::json(&dir.join("index.json"));
        let mut dev = Device::cpu(&Plan::uniform(1 << 30), 2, Isa::detect()).unwrap();
        let model = Model::load(&mut dev, &dir, DType::F32).unwrap();
        let mut cases = cases(&dir, &model, &index);
        // Text after a video has other positions in transformers 5. Its model is compared at these positions by
        // `hf::forward`, and the engine with that model at omr's positions.
        let golden = Golden::open(dir.clone());
        for case in cases.iter_mut().filter(|case| index["cases"][&case.name]["media"][0] == index["video"]["name"]) {
            let count = case.generated_ids.len();
            (case.generated_ids, case.generated_logprobs) =
                generate(&mut dev, &model, &golden.case(&case.name), count, false);
        }
        let requests: Vec<EngineCoreRequest> = cases.iter().map(|case| case.request.clone()).collect();
        // Runs all requests at once, and then one by one with prompts in chunks of seven tokens.
        for (max_num_seqs, max_num_batched_tokens) in [(64, 4096), (1, 7)] {
            let config =
                EngineConfig { max_num_seqs, max_num_batched_tokens, vision_rows: 64, ..EngineConfig::new(512) };
            let mut engine = Engine::new(&model, &mut dev, config).unwrap();
            let outputs = engine.generate(&model, &mut dev, &requests).unwrap();
            engine.release(&mut dev);
            for (case, output) in cases.iter().zip(&outputs) {
                assert_eq!(output.token_ids, case.generated_ids, "{}/{}", dir.display(), case.name);
                for (got, want) in output.logprobs.iter().zip(&case.generated_logprobs) {
                    assert!((got - want).abs() <= LOGPROB_TOLERANCE, "{}: {got} for {want}", case.name);
                }
            }
        }
        ran += cases.len();
    }
    omr_base_tests::golden::report("hf_engine", ran);
}
