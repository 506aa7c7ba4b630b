//! An answer depends on weights, arithmetic, request and seed, and on nothing else.

use std::path::Path;

use omr_base::philox::{Purpose, Random};
use serde_json::{Value, json};

use super::program::{Server, chat, chat_with, image, model};
use crate::cli::training::run;

/// Returns requests of all kinds, with and without images.
pub fn requests(count: usize) -> Vec<(&'static str, Value)> {
    let request = |i: usize| {
        let images: Vec<u32> = (0..i as u32 % 4).map(|k| i as u32 * 7 % 11 + k).collect();
        let text = format!("One {} two{}", i % 17, " and".repeat(i * 5 % 23));
        let mut body = chat_with(&text, &images);
        body["seed"] = json!(i * i);
        body["temperature"] = json!([1.0, 0.7, 0.0, 1.3][i % 4]);
        let extra = [
            json!({"logprobs": true, "n": 2}),
            json!({"top_p": 0.9, "logprobs": true}),
            json!({"logprobs": true, "top_logprobs": 4}),
            json!({"presence_penalty": 1.0, "repetition_penalty": 1.2, "logprobs": true}),
            json!({"top_k": 20, "min_tokens": 3, "stop": ["z", "qq"]}),
            json!({"logit_bias": {"40": 5.0}, "ignore_eos": true, "logprobs": true, "top_logprobs": 1}),
            json!({"prompt_logprobs": 2}),
        ];
        body.as_object_mut().unwrap().extend(extra[i % 7].as_object().unwrap().clone());
        body["return_token_ids"] = json!(true);
        match i % 5 {
            4 => {
                let ids: Vec<usize> = (0..20 + i % 60).map(|k| 20 + (k * i) % 200).collect();
                let sampling = json!({"seed": i, "max_tokens": 10, "logprobs": 2, "temperature": 0.8});
                ("/inference/v1/generate", json!({"token_ids": ids, "sampling_params": sampling}))
            }
            _ => ("/v1/chat/completions", body),
        }
    };
    (0..count).map(request).collect()
}

/// Returns what must not depend on the circumstances.
fn kept(mut answer: Value) -> Value {
    for key in ["id", "request_id", "created"] {
        answer.as_object_mut().unwrap().remove(key);
    }
    answer["usage"].as_object_mut().unwrap().remove("prompt_tokens_details");
    answer
}

async fn ask(server: &Server, (path, body): &(&str, Value)) -> Value {
    kept(server.ok(path, body).await)
}

/// Sends requests in a random order, `together` at a time.
pub async fn ask_all(server: &Server, requests: &[(&str, Value)], together: usize, seed: u64) -> Vec<Value> {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    let mut random = Random::new(seed, Purpose::Backoff, 0);
    for i in (1..order.len()).rev() {
        order.swap(i, random.next_u32() as usize % (i + 1));
    }
    let mut answers = vec![Value::Null; requests.len()];
    for group in order.chunks(together) {
        let asked = group.iter().map(|&i| async move { (i, ask(server, &requests[i]).await) });
        for (i, answer) in join_all(asked).await {
            answers[i] = answer;
        }
    }
    answers
}

async fn join_all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    use futures_util::stream::{FuturesUnordered, StreamExt};
    futures.into_iter().collect::<FuturesUnordered<_>>().collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_order_chunks_restarts_and_other_clients_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let requests = requests(200);
    let alone = {
        let server = Server::start(&model, &[]);
        let mut answers = Vec::new();
        for request in &requests {
            answers.push(ask(&server, request).await);
        }
        answers
    };
    let tokens: usize =
        alone.iter().map(|answer| answer["usage"]["completion_tokens"].as_u64().unwrap() as usize).sum();
    println!("  {} requests, {tokens} tokens", requests.len());
    // Chunk size, batch size, cache size and prefix caching differ.
    let circumstances: [(&[&str], usize); 3] = [
        (&["max_num_batched_tokens=37", "enable_prefix_caching=false"], 32),
        (&["--max-num-seqs", "3", "num_kv_blocks=10"], 16),
        (&["max_num_batched_tokens=500"], 64),
    ];
    for (i, (flags, together)) in circumstances.into_iter().enumerate() {
        let server = Server::start(&model, flags);
        let others: Vec<Value> =
            (0..8).map(|k| json!({"prompt": vec![30 + k; 90 + 10 * k], "max_tokens": 60, "n": 2})).collect();
        let stop = tokio::sync::Notify::new();
        let load = async {
            let one = |body: Value| {
                let server = &server;
                async move {
                    loop {
                        // The queue may be full.
                        server.post("/v1/completions", &body).await;
                    }
                }
            };
            tokio::select! {
                _ = join_all(others.into_iter().map(one)) => {}
                () = stop.notified() => {}
            }
        };
        let asked = async {
            let answers = ask_all(&server, &requests, together, i as u64).await;
            stop.notify_one();
            answers
        };
        let (answers, ()) = tokio::join!(asked, load);
        let differing: Vec<usize> = (0..requests.len()).filter(|&i| answers[i] != alone[i]).collect();
        for i in differing.iter().take(2) {
            println!("{}\n{}\n{}", requests[*i].1, alone[*i], answers[*i]);
        }
        assert!(differing.is_empty(), "{flags:?}: {differing:?}");
    }
}

/// Returns `count` chat requests with different numbers of images and parameters.
fn sampled(count: u32, temperature: f64) -> impl Iterator<Item = Value> {
    (0..count).map(move |i| {
        let mut body = chat_with(&format!("One {i}"), &(0..i % 3).collect::<Vec<u32>>());
        body["temperature"] = json!(temperature);
        body["max_tokens"] = json!(20);
        if i % 2 == 1 {
            body["top_p"] = json!(0.8);
            body["frequency_penalty"] = json!(0.5);
        }
        body
    })
}

/// Compares `rollout_logprobs` with the log-probs of the trainer's forward pass on the same device.
async fn compare_with_trainer(device: &str, count: u32) {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let server = Server::start_on(device, &model, &[]);
    let bits = |values: &Value| -> Vec<u32> {
        values.as_array().unwrap().iter().map(|x| (x.as_f64().unwrap() as f32).to_bits()).collect()
    };
    for temperature in [1.0, 0.7] {
        let (mut lines, mut found) = (String::new(), Vec::new());
        for body in sampled(count, temperature) {
            let rendered = server.ok("/v1/chat/completions/render", &body).await;
            let answer = server.ok("/inference/v1/generate", &rendered).await;
            let choice = &answer["choices"][0];
            found.push(bits(&choice["rollout_logprobs"]));
            let content = body["messages"][0]["content"].clone();
            let line = json!({"messages": [{"role": "user", "content": content}], "token_ids": choice["token_ids"]});
            lines += &format!("{line}\n");
        }
        let file = dir.path().join("rows.jsonl");
        std::fs::write(&file, lines).unwrap();
        let (file, model) = (file.display().to_string(), model.display().to_string());
        let setting = format!("temperature={temperature}");
        let args = ["--device", device, "--quiet", "score", "--logprobs", &file, "--model", &model, &setting];
        let (code, stdout, stderr) = run(&args);
        assert_eq!(code, 0, "{stderr}");
        let trained = stdout.lines().map(|line| bits(&serde_json::from_str::<Value>(line).unwrap()["logprobs"]));
        assert_eq!(found, trained.collect::<Vec<_>>(), "{temperature}");
        println!("  {} log-probs equal the trainer's", found.iter().map(Vec::len).sum::<usize>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollout_logprobs_are_the_trainers() {
    compare_with_trainer("cpu", 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_emulator_rollout_logprobs_are_the_trainers() {
    compare_with_trainer("emu", 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_emulator_batches_and_chunks_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let requests = requests(14);
    let (mut alone, server) = (Vec::new(), Server::start_on("emu", &model, &["max_num_batched_tokens=37"]));
    for request in &requests {
        alone.push(ask(&server, request).await);
    }
    let server = Server::start_on("emu", &model, &["enable_prefix_caching=false"]);
    assert_eq!(ask_all(&server, &requests, 14, 0).await, alone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drawn_seed_is_returned_and_gives_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let server = Server::start(&model, &[]);
    let mut body = chat("One and two");
    body["max_tokens"] = json!(40);
    body.as_object_mut().unwrap().remove("seed");
    let request =
        server.request(reqwest::Method::POST, "/v1/chat/completions").header("content-type", "application/json");
    let reply = request.body(body.to_string()).send().await.unwrap();
    let header: u64 = reply.headers()["x-omr-seed"].to_str().unwrap().parse().unwrap();
    let first: Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
    assert_eq!(first["seed"], header);
    let second = server.chat(&body).await;
    assert!(second["seed"] != first["seed"] && header < 1 << 53);
    body["seed"] = first["seed"].clone();
    assert_eq!(kept(server.chat(&body).await), kept(first.clone()));
    // All 64 bits of a seed count, and negative numbers stand for their bits.
    let mut text = Vec::new();
    for seed in [json!(u64::MAX - 1), json!(-2), json!(7u64), json!((1u64 << 32) + 7)] {
        body["seed"] = seed;
        text.push(server.chat(&body).await["choices"][0]["message"]["content"].clone());
    }
    assert!(text[0] == text[1] && text[2] != text[3] && text[0] != text[2], "{text:?}");
    // As in vLLM, -1 asks for a drawn seed.
    let mut drawn = body.clone();
    drawn["seed"] = json!(-1);
    assert_ne!(server.chat(&drawn).await["seed"], server.chat(&drawn).await["seed"]);
    // Choice i of several has the noise of choice i.
    body["n"] = json!(3);
    let several = server.chat(&body).await;
    assert_eq!(several["choices"][0]["message"]["content"], text[3]);
    assert_ne!(several["choices"][1]["message"]["content"], text[3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_requests_are_answered_again_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let file = dir.path().join("requests.jsonl").display().to_string();
    let mut server = Server::start(&model, &["--record-requests", &file]);
    let requests = requests(40);
    ask_all(&server, &requests, 8, 1).await;
    server.stream("/v1/chat/completions", &chat_with("One", &[1, 2])).await;
    let mut without_seed = chat("One");
    without_seed.as_object_mut().unwrap().remove("seed");
    server.chat(&without_seed).await;
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 42);
    let replay = |file: &str, model: &Path| {
        let model = model.display().to_string();
        run(&[
            "--device",
            "cpu",
            "--quiet",
            "replay",
            "--requests",
            file,
            "--model",
            &model,
            "max_num_batched_tokens=50",
        ])
    };
    let (code, stdout, stderr) = replay(&file, &model);
    assert_eq!((code, stdout.as_str()), (0, "42 requests: all tokens and log-probs equal the record\n"), "{stderr}");
    // One changed token is found.
    let text = std::fs::read_to_string(&file).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let token = &mut lines[5]["choices"][0]["token_ids"][1];
    *token = json!(token.as_u64().unwrap() + 1);
    let hash = &mut lines[9]["choices"][0]["logprobs"];
    *hash = json!(hash.as_str().unwrap().chars().rev().collect::<String>());
    std::fs::write(&file, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let (code, stdout, _) = replay(&file, &model);
    assert_eq!(code, 1);
    assert!(
        stdout.contains("line 6: choice 0: token 1 differs") && stdout.contains("line 10: choice 0: equal tokens"),
        "{stdout}"
    );
    assert_eq!(stdout.lines().count(), 2);
    // The record names the distribution of its log-probs.
    let file = dir.path().join("processed.jsonl").display().to_string();
    let server = Server::start(&model, &["--record-requests", &file, "--logprobs-mode", "processed_logprobs"]);
    let mut with_logprobs = chat("One");
    with_logprobs["temperature"] = json!(0.5);
    with_logprobs["logprobs"] = json!(true);
    server.chat(&with_logprobs).await;
    drop(server);
    let (code, stdout, stderr) = replay(&file, &model);
    assert_eq!(code, 0, "{stdout} {stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_prompts_of_a_request_get_different_noise() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    let mut body = json!({"prompt": ["One", "One", "One"], "seed": 3, "max_tokens": 12, "ignore_eos": true});
    let texts = |answer: &Value| (0..3).map(|i| answer["choices"][i]["text"].to_string()).collect::<Vec<_>>();
    let listed = texts(&server.ok("/v1/completions", &body).await);
    (body["prompt"], body["n"]) = (json!("One"), json!(3));
    assert_eq!(listed, texts(&server.ok("/v1/completions", &body).await));
    assert!(listed[0] != listed[1] && listed[1] != listed[2], "{listed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_images_pass_the_tower_once_and_prefixes_are_cached() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    let url = image(4);
    let long = "One and two. ".repeat(30);
    let body = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": long}]}], "max_tokens": 4, "seed": 1});
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let first = server.chat(&body).await;
    let second = server.chat(&body).await;
    assert!(cached(&first) == 0 && cached(&second) >= 128, "{second}");
    assert_eq!(kept(first), kept(second));
}
