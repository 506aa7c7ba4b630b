//! A trained model with kernels: the digits model gives the same answers on the emulated device as on the CPU in bf16.

use std::path::Path;
use std::sync::Arc;

use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{load, read};
use omr_model::engine::{CompletionOutput, Engine, EngineConfig, EngineCoreRequest, RequestParams};
use omr_model::llm;
use omr_model::nn::{Inputs, Mode, Model, ModelConfig, Tape};
use omr_model::rollout::Question;
use omr_model_tests::models::encoder;
use omr_runtime::device::Device;
use omr_runtime::ops::sample::SamplingParams;
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::{emu_of, emulator, kind, skipped};
use omr_train_tests::kernels::model::{Order, TIMES, argmax, cpu, reorder};
use omr_train_tests::kernels::questions::{index, questions};
use serde_json::Value;

use crate::cli::training::run;

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/digits.yaml");
const PROMPTS: usize = 100;
const MAX_TOKENS: usize = 40;

/// Trains the digits model by SFT only. One step of RL and of continued SFT is the minimum.
fn train(out: &Path) {
    let out = out.to_str().unwrap();
    let shorter = ["rl.total_training_steps=1", "task.num_heldout_questions=400"];
    let (code, _, stderr) = run(&[&["--quiet", "recipe", CONFIG, "--out", out], &shorter[..]].concat());
    assert_eq!(code, 0, "{stderr}");
}

/// Returns the accuracy of greedy answers and its interval, from `omr eval` in bf16.
fn accuracy(device: &str, recipe: &Path, out: &Path) -> (f64, [f64; 2]) {
    let path = |p: &Path| p.to_str().unwrap().to_owned();
    let (model, data, out) = (path(&recipe.join("sft/model")), path(&recipe.join("data")), path(out));
    let args = ["--quiet", "--device", device, "eval", "--model", &model, "--data", &data, "--out", &out, "repeats=0"];
    let (code, summary, stderr) = run(&args);
    assert_eq!(code, 0, "{stderr}");
    let summary: Value = serde_json::from_slice(&std::fs::read(summary.trim()).unwrap()).unwrap();
    let digits = &summary["tasks"]["digits"];
    println!("  {device}: {digits}");
    assert_eq!(digits["n"], 400);
    let [low, high] = [0, 1].map(|i| digits["ci95"]["acc_score"][i].as_f64().unwrap());
    (digits["metrics"]["acc_score"].as_f64().unwrap(), [low, high])
}

fn answers(dev: &mut Device, model: &Model, stop: Arc<[u32]>, questions: &[Question]) -> Vec<CompletionOutput> {
    let params = RequestParams { sampling: SamplingParams::greedy(), ..RequestParams::new(MAX_TOKENS, stop) };
    let request = |q: &Question| EngineCoreRequest::new(q.prompt.clone(), 1, params.clone());
    let requests: Vec<EngineCoreRequest> = questions.iter().map(request).collect();
    let config =
        EngineConfig { vision_rows: llm::vision_rows(&model.config, &index(questions), 256), ..EngineConfig::new(256) };
    let mut engine = Engine::new(model, dev, config).unwrap();
    let outputs = engine.generate(model, dev, &requests).unwrap();
    engine.release(dev);
    outputs
}

/// Returns the logits at every sampled token, teacher-forced on `outputs`.
fn forced(dev: &mut Device, model: &Model, questions: &[Question], outputs: &[CompletionOutput]) -> Vec<Vec<f32>> {
    let mut rows_of_all = Vec::new();
    for pack in questions.iter().zip(outputs).collect::<Vec<_>>().chunks(10) {
        let mut inputs = Inputs::empty();
        let mut rows = Vec::new();
        for (question, output) in pack {
            let prompt = &question.prompt;
            let ids = [&prompt.token_ids[..], &output.token_ids].concat();
            let first = (inputs.len() + prompt.token_ids.len()) as u32;
            rows.extend((0..output.token_ids.len() as u32).map(|k| first + k - 1));
            inputs.push(&model.config, &ids, &prompt.pixels, prompt.token_ids.len()).unwrap();
        }
        let mut tape = Tape::new(dev, Mode::Infer);
        let hidden = model.forward(&mut tape, dev, &inputs).unwrap();
        let rows = tape.upload(dev, &rows, &[rows.len()]).unwrap();
        let hidden = tape.gather(dev, hidden, rows, None).unwrap();
        let logits = omr_model_tests::models::logits(model, &mut tape, dev, hidden);
        let logits: Vec<f32> = dev.read(logits).unwrap();
        rows_of_all.extend(logits.chunks(model.config.text.vocab_size).map(<[f32]>::to_vec));
        tape.finish(dev);
    }
    rows_of_all
}

fn second(logits: &[f32], best: usize) -> f32 {
    logits.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, z)| *z).fold(f32::MIN, f32::max)
}

#[test]
#[ignore = "slow: trains the digits model and answers 400 questions on the emulator"]
fn the_digits_model_answers_as_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("digits");
    train(&recipe);
    let model_dir = recipe.join("sft/model");

    let encoder = encoder(&model_dir, EncodingPurpose::Ask);
    let stop = encoder.chat.turn.stops.clone();
    let config = ModelConfig::load(&model_dir.join("config.json")).unwrap();
    let rows = load(&[read::entry(recipe.join("data/heldout.parquet"))], 0).unwrap().0;
    let questions = questions(&rows[..PROMPTS], &encoder, &config);
    let mut dev = cpu();
    let mut gpu = emu_of(omr_runtime::device::emu::Options { shadow: false, ..Default::default() }).unwrap();
    let load = |dev: &mut Device| Model::load(dev, &model_dir, DType::Bf16).unwrap();
    let (model, on_gpu) = (load(&mut dev), load(&mut gpu));

    let want = answers(&mut dev, &model, stop.clone(), &questions);
    let found = answers(&mut gpu, &on_gpu, stop.clone(), &questions);
    let equal = want.iter().zip(&found).filter(|(a, b)| a.token_ids == b.token_ids).count();
    println!("  {equal} of {PROMPTS} free-running answers are equal");
    if !skipped("what the driver was asked for") {
        println!("  {:?}", emulator(&mut gpu).counters());
    }

    let logits = forced(&mut dev, &model, &questions, &want);
    let by_kernels = forced(&mut gpu, &on_gpu, &questions, &want);
    let largest = |a: &[Vec<f32>], b: &[Vec<f32>]| {
        a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0f32, f32::max)
    };
    let mut tolerance = 0.0f32;
    for order in Order::ALL {
        let mut dev = cpu();
        let model = load(&mut dev);
        reorder(&model, &mut dev, order);
        tolerance = tolerance.max(TIMES as f32 * largest(&logits, &forced(&mut dev, &model, &questions, &want)));
    }
    let difference = largest(&logits, &by_kernels);
    println!("  largest difference of a logit {difference:.4}, tolerance {tolerance:.4}");
    assert!(difference <= tolerance);
    let mut clear = 0;
    for (want, found) in logits.iter().zip(&by_kernels) {
        let best = argmax(want);
        if want[best] - second(want, best) > 2.0 * tolerance {
            clear += 1;
            assert_eq!(argmax(found), best, "another token at a clear position");
        }
    }
    let share = f64::from(clear) / logits.len() as f64;
    println!("  {clear} of {} positions are clear: {share:.3}", logits.len());

    let (on_cpu, interval) = accuracy("cpu", &recipe, &dir.path().join("cpu"));
    let (on_gpu, _) = accuracy(kind().name(), &recipe, &dir.path().join("gpu"));
    assert!(
        (interval[0]..=interval[1]).contains(&on_gpu),
        "{on_gpu} on {}, {on_cpu} ({interval:?}) on the CPU",
        kind().name()
    );
    assert!(equal >= 95, "{equal} of {PROMPTS} answers are equal");
    assert!(share >= 0.9, "{share} of the positions are clear");
}
