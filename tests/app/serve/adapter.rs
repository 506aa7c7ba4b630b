//! Tests `omr serve --lora-modules`: requests for an adapter and for its base in the same batches.

use std::path::Path;
use std::sync::Arc;

use omr_base::config::OptimConfig;
use omr_base::philox::{Purpose, Random};
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_model::engine::allowed_ids;
use omr_model::nn::{GradientSink, Grads, LayerPolicy, Model, Policy};
use omr_model::optim::Optimizer;
use omr_model_tests::models::Rough;
use omr_model_tests::models::encoder;
use omr_runtime::device::Region;
use omr_runtime::tensor::DType;
use omr_train::training::step::{self, Sequence};
use serde_json::{Value, json};

use super::exact::{ask_all, requests};
use super::program::{Server, chat, model};
use crate::cli::adapter::{device, settings, write};
use crate::cli::training::{failure, run};

/// Removes what distinguishes answers of a server with and without an adapter.
fn kept(answers: Vec<Value>) -> Vec<Value> {
    let kept = |mut answer: Value| {
        ["model", "system_fingerprint"].iter().for_each(|key| drop(answer.as_object_mut().unwrap().remove(*key)));
        answer
    };
    answers.into_iter().map(kept).collect()
}

/// Asks for answers of the base, of its adapter and of both in the same batches, and compares their bits. Starts one server
/// for both with each of `flags`.
async fn compare_mixed(on: &str, dir: &Path, count: usize, flags: &[&[&str]]) -> String {
    let (base, adapter) = (model(dir), dir.join("adapter"));
    write(&base, &adapter, "../model");
    let requests = requests(count);
    let mut alone = Vec::new();
    for served in [&base, &adapter] {
        let server = Server::start_on(on, served, &[]);
        alone.push(kept(ask_all(&server, &requests, 16, 0).await));
    }
    let same = alone[0].iter().zip(&alone[1]).filter(|(a, b)| a == b).count();
    assert_eq!(same, 0, "of {}", requests.len());
    // Each request for both models, one after the other, so that caches could mix them.
    let named = |name| requests.iter().map(move |(path, body)| (*path, with_model(body, name)));
    let both: Vec<(&str, Value)> = named("m").zip(named("tuned")).flat_map(|(a, b)| [a, b]).collect();
    let modules = format!("tuned={}", adapter.display());
    for flags in flags {
        let mut server = Server::start_on(on, &base, &[&["--lora-modules", &modules], *flags].concat());
        for together in [1, 24] {
            let answers = ask_all(&server, &both, together, 1).await;
            assert!(answers.iter().zip(&both).all(|(answer, (_, body))| answer["model"] == body["model"]));
            let (of_base, of_adapter): (Vec<_>, Vec<_>) =
                kept(answers).chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
            assert!(of_base == alone[0], "{flags:?} {together}: base");
            assert!(of_adapter == alone[1], "{flags:?} {together}: adapter");
        }
        server.signal("TERM");
        assert_eq!(server.wait(), Some(0));
    }
    modules
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_batch_has_the_bits_of_each_model_alone() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("record.jsonl").display().to_string();
    let flags: [&[&str]; 3] = [
        &["--record-requests", &record],
        &["max_num_batched_tokens=37", "enable_prefix_caching=false"],
        &["max_num_batched_tokens=300", "num_kv_blocks=12"],
    ];
    let modules = compare_mixed("cpu", dir.path(), 45, &flags).await;
    let base = dir.path().join("model").display().to_string();
    let replay = ["--device", "cpu", "--quiet", "replay", "--requests", &record, "--model", &base];
    let (code, out, err) = run(&[&replay[..], &["--lora-modules", &modules]].concat());
    assert!(code == 0 && out.starts_with("180 requests: all"), "{out} {err}");
    // Without the adapter, its requests differ.
    assert_eq!(run(&replay).0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_emulator_a_mixed_batch_has_the_bits_of_each_model_alone() {
    let dir = tempfile::tempdir().unwrap();
    compare_mixed("emu", dir.path(), 6, &[&[]]).await;
}

fn with_model(body: &Value, name: &str) -> Value {
    let mut body = body.clone();
    body["model"] = json!(name);
    body
}

/// Returns the bits of a list of numbers.
fn bits(values: &Value) -> Vec<u32> {
    values.as_array().unwrap().iter().map(|x| (x.as_f64().unwrap() as f32).to_bits()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trained_adapter_that_is_written_and_served_has_the_trainers_bits() {
    for (dtype, name) in [(DType::F32, "dtype=f32"), (DType::Bf16, "dtype=bf16")] {
        let dir = tempfile::tempdir().unwrap();
        let (base, adapter) = (model(dir.path()), dir.path().join("adapter"));
        let mut dev = device();
        let mut trained = Model::load(&mut dev, &base, dtype).unwrap();
        let config = settings(&base.display().to_string());
        trained.attach(&mut dev, config.rank, config.scale(), &|_, _| true).unwrap();
        let layout = Arc::new(trained.layout.clone());
        let mut optimizer = Optimizer::new(&mut dev, &layout, OptimConfig::default(), 1).unwrap();
        trained.set_adapters(&mut dev, &Rough).unwrap();
        optimizer.set_adapters(&mut dev, &layout, &Rough).unwrap();
        for step in 0..3 {
            let mark = dev.mark(Region::Overlay);
            let mut grads = Grads::new(&mut dev, &layout).unwrap();
            for id in 0..layout.params.len() {
                let Some(grad) = grads.param(&mut dev, id).unwrap() else { continue };
                let mut random = Random::new(step, Purpose::Test, id as u64);
                dev.write(grad.tensor, &(0..grad.tensor.len()).map(|_| random.normal()).collect::<Vec<f32>>()).unwrap();
            }
            grads.finish(&mut dev).unwrap();
            let before: Vec<u8> = dev.read_bytes(layout.adapters[0].s.data).unwrap();
            optimizer.step(&mut dev, &layout, &grads, 1e-2).unwrap();
            assert!(dev.read_bytes(layout.adapters[0].s.data).unwrap() != before, "S has not changed");
            dev.release(mark);
        }
        let files = trained.outgoing_adapters(&layout, &config, |id| optimizer.low_halves(id), optimizer.own());
        std::fs::create_dir(&adapter).unwrap();
        files.write(&adapter, &mut dev).unwrap();

        let flag = format!("tuned={}", adapter.display());
        let server = Server::start(&base, &["--lora-modules", &flag, name]);
        let allowed = allowed_ids(&trained.config, &encoder(&base, EncodingPurpose::Ask).chat);
        let allowed = dev.upload(Region::Weights, &allowed, &[allowed.len()]).unwrap();
        for (served, model) in [("tuned", &trained), ("m", &trained.base())] {
            for seed in 0..6u32 {
                let prompt: Vec<u32> = (0..20 + 9 * seed).map(|k| 20 + k * (seed + 3) % 200).collect();
                let sampling = json!({"seed": seed, "max_tokens": 20, "ignore_eos": true});
                let body = json!({"model": served, "token_ids": prompt, "sampling_params": sampling});
                let choice = server.ok("/inference/v1/generate", &body).await["choices"][0].clone();
                let sampled = choice["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32);
                let input_ids: Vec<u32> = prompt.iter().copied().chain(sampled).collect();
                let loss_mask: Vec<bool> = (0..input_ids.len()).map(|t| t >= prompt.len()).collect();
                let sequence = Sequence {
                    input_ids: &input_ids,
                    images: &[],
                    prompt_len: prompt.len(),
                    loss_mask: &loss_mask,
                    same_prompt: false,
                };
                let policy = Policy { allowed: Some(allowed), temperature: 1.0 };
                let pass = step::forward(&mut dev, model, &[sequence], policy, LayerPolicy::Inputs, false).unwrap();
                let want: Vec<u32> = dev.read::<f32>(pass.log_prob).unwrap().iter().map(|x| x.to_bits()).collect();
                pass.discard(&mut dev);
                assert_eq!(bits(&choice["rollout_logprobs"]), want, "{name} {served} {seed}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_names_of_adapter_and_base_are_listed_and_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (base, adapter) = (model(dir.path()), dir.path().join("adapter"));
    write(&base, &adapter, "../model");
    let flag = format!("tuned={}", adapter.display());
    let mut server = Server::start(&base, &["--lora-modules", &flag, "--admin-api-key", "k"]);
    let (_, list) = server.get("/v1/models").await;
    let ids: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|entry| &entry["id"]).collect();
    assert_eq!(ids, ["m", "tuned"]);
    assert_eq!(list["data"][1]["parent"], "m");
    let error = server.refused("/v1/chat/completions", &with_model(&chat("One"), "other"), 404).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    assert!(error["message"].as_str().unwrap().contains("m, tuned"), "{error}");
    // Without a name, the base answers.
    let mut unnamed = chat("One");
    unnamed.as_object_mut().unwrap().remove("model");
    let of_base = server.chat(&with_model(&chat("One"), "m")).await;
    assert_eq!(kept(vec![server.chat(&unnamed).await])[0]["choices"], of_base["choices"]);
    let rendered = server.ok("/v1/chat/completions/render", &with_model(&chat("One"), "tuned")).await;
    assert_eq!(rendered["model"], "tuned");
    server.key = Some("k".to_owned());
    server.refused("/update_weights_from_disk", &json!({"model_path": base}), 400).await;

    let serve = |model: &Path, flag: &str, parts: &[&str]| {
        let model = model.display().to_string();
        failure(&["serve", &model, "--port", "0", "--served-model-name", "m", "--lora-modules", flag], 2, parts);
    };
    let at = adapter.display();
    serve(&base, "tuned", &["--lora-modules", "NAME=DIR"]);
    serve(&base, &format!("m={at}"), &["--lora-modules", "another name"]);
    serve(&adapter, &flag, &["--lora-modules", "a base model"]);
    serve(&base, &format!("tuned={}", dir.path().join("gone").display()), &["gone"]);
}
