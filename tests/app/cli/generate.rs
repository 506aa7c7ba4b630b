//! Tests `omr generate` on a small random model. A streamed answer equals the answer that is written to a file.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use omr_app::serve::Batch;
use omr_base::config::GenerateConfig;
use omr_base::observe::Silent;
use omr_data::text::{CHAT_TEMPLATE, SPECIAL_TOKENS, train_tokenizer, write_tokenizer_dir};
use omr_model::nn::{Model, ModelConfig};
use omr_runtime::device::{Device, Isa, Plan, Target};
use omr_runtime::machine::Machine;
use omr_runtime::tensor::DType;
use serde_json::{Value, json};

use super::help::omr;

/// Writes a model directory as users have it, with random weights.
pub fn model_dir(dir: &Path) {
    let tokenizer = train_tokenizer(["What is this? One and two."], &SPECIAL_TOKENS, &[], 300).unwrap();
    write_tokenizer_dir(dir, &tokenizer, CHAT_TEMPLATE).unwrap();
    let id = |token: &str| tokenizer.id(token).unwrap();
    let config = json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "vocab_size": 320,
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "tie_word_embeddings": true,
        "max_position_embeddings": 256, "initializer_range": 0.3, "hidden_act": "silu",
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}, "image_token_id": id("<|image_pad|>"),
        "video_token_id": id("<|video_pad|>"), "vision_start_token_id": id("<|vision_start|>"),
        "vision_end_token_id": id("<|vision_end|>"), "vision_token_id": id("<|vision_pad|>"),
        "eos_token_id": id("<|im_end|>"),
        "vision_config": {
            "depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 1, "out_hidden_size": 32,
            "patch_size": 14, "temporal_patch_size": 2, "spatial_merge_size": 2, "window_size": 56,
            "fullatt_block_indexes": [0], "in_chans": 3, "tokens_per_second": 2, "hidden_act": "silu"
        }
    });
    let config = ModelConfig::from_json(&config, "test").unwrap();
    let mut dev = Device::cpu(&Plan::uniform(1 << 26), 1, Isa::detect()).unwrap();
    Model::init(&mut dev, config, DType::F32, 1).unwrap().save(&mut dev, dir, DType::F32).unwrap();
    fs::write(dir.join("preprocessor_config.json"), r#"{"min_pixels": 784}"#).unwrap();
    fs::write(dir.join("generation_config.json"), json!({"eos_token_id": [id("<|im_end|>")]}).to_string()).unwrap();
}

pub fn png(path: &Path) {
    let pixels: Vec<u8> = (0..28 * 56 * 3).map(|i| (i % 251) as u8).collect();
    image::save_buffer(path, &pixels, 56, 28, image::ExtendedColorType::Rgb8).unwrap();
}

/// Runs `omr generate`. Returns its exit status, stdout and stderr.
fn run(args: &[&str]) -> (i32, String, String) {
    let output = omr().arg("generate").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn one_answer_streamed_is_the_one_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let model = at("model");
    fs::create_dir(&model).unwrap();
    model_dir(Path::new(&model));
    png(Path::new(&at("seen.png")));
    let settings = ["temperature=0", "max_tokens=12", "ignore_eos=true"];

    let ask = |image: Option<&str>, settings: &[&str]| {
        let image = image.map(|image| vec!["--image", image]).unwrap_or_default();
        let args = [&["--model", &model, "--prompt", "What is this?"], &image[..], settings].concat();
        let (code, out, err) = run(&args);
        assert_eq!(code, 0, "{err}");
        out.strip_suffix('\n').unwrap().to_owned()
    };
    let seen = at("seen.png");
    let (blind, with_image) = (ask(None, &settings), ask(Some(&seen), &settings));
    assert_ne!(blind, with_image);

    let lines = [
        json!({"id": 1, "prompt": "What is this?"}),
        json!({"id": 2, "prompt": "What is this?", "images": ["seen.png"], "kept": [1, 2]}),
        json!({"id": 3, "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "seen.png"}}, {"type": "text", "text": "What is this?"}]}]}),
        json!({"id": 4, "messages": [{"role": "user", "content": [
            {"type": "video", "video": ["seen.png", "seen.png", "seen.png", "seen.png"], "fps": 0.5}, {"type": "text", "text": "What is this?"}]}]}),
    ];
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(at("questions.jsonl"), text).unwrap();
    let (questions, answers) = (at("questions.jsonl"), at("answers.jsonl"));
    let mut watched = None;
    for more in [&["max_num_seqs=1", "max_num_batched_tokens=7"][..], &["enable_prefix_caching=false"], &[]] {
        let args = ["--model", &model, "--jsonl", &questions, "--out", &answers, "--fresh"];
        let (code, out, err) = run(&[&args, &settings[..], more].concat());
        assert_eq!((code, &*out), (0, ""), "{err}");
        let text = fs::read_to_string(&answers).unwrap();
        let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(found.len(), 4);
        let watched = watched.get_or_insert_with(|| found[3]["response"].as_str().unwrap().to_owned()).clone();
        assert!(watched != blind && watched != with_image);
        for ((line, found), response) in lines.iter().zip(&found).zip([&blind, &with_image, &with_image, &watched]) {
            assert!(line.as_object().unwrap().iter().all(|(key, value)| found[key] == *value), "{found}");
            assert_eq!(found["response"], **response);
            assert_eq!((found["token_ids"].as_array().unwrap().len(), &found["finish_reason"]), (12, &json!("length")));
        }
    }
    let hot = ["temperature=1.5", "max_tokens=12", "ignore_eos=true"];
    assert_eq!(ask(None, &hot), ask(None, &hot));
    assert_ne!(ask(None, &hot), ask(None, &[&hot[..], &["seed=43"]].concat()));
}

#[test]
fn wrong_input_is_named_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let model = at("model");
    fs::create_dir(&model).unwrap();
    model_dir(Path::new(&model));
    let (questions, answers) = (at("questions.jsonl"), at("answers.jsonl"));
    let file = |text: &str| {
        fs::write(&questions, text).unwrap();
        run(&["--model", &model, "--jsonl", &questions, "--out", &answers])
    };
    let cases = [
        (file("\n{\"prompt\": \"<image> two\"}\n"), "line 2"),
        (file("{\"prompt\": \"one\", \"images\": [\"gone.png\"]}\n"), "gone.png"),
        (file("{\"prompt\": \"one\"\n"), "line 1"),
        (file("{\"id\": 1}\n"), "line 1"),
        (file("\n"), "no questions"),
        (file(&format!("\n{{\"prompt\": \"{}\"}}\n", "one ".repeat(400))), "line 2: messages: found"),
        (run(&["--model", &model, "--prompt", "x", "--image", &questions]), "image "),
        (run(&["--model", &model, "--jsonl", &questions, "--out", &model]), "a folder"),
        (run(&["--model", &at("nowhere"), "--prompt", "x"]), "nowhere"),
        (run(&["--model", &model, "--prompt", "x", "temprature=0"]), "temperature"),
        (run(&["--model", &model, "--prompt", "x", "top_p=0"]), "top_p"),
        (run(&["--model", &model, "--prompt", "x", "max_model_len=4"]), "max_model_len"),
        (run(&["--model", &model, "--prompt", "x", "--image", &at("gone.png")]), "gone.png"),
    ];
    for ((code, out, err), named) in cases {
        assert_eq!((code, &*out), (2, ""), "{named}: {err}");
        assert!(err.contains(named), "{named} is not in: {err}");
    }
    assert!(!Path::new(&answers).exists());
    let weights = Path::new(&model).join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() - 8]).unwrap();
    let (code, _, err) = run(&["--model", &model, "--prompt", "x"]);
    assert!(code == 2 && err.contains("model.safetensors"), "{err}");
}

/// Passes a machine with at most `memory` bytes for a plan to `act`.
fn with_machine<T>(memory: Option<usize>, act: impl FnOnce(&Machine) -> T) -> T {
    let device = |plan: &Plan| {
        assert!(memory.is_none_or(|memory| plan.total() <= memory), "a device is made beyond the memory");
        Device::cpu(plan, 2, Isa::detect())
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    act(&Machine {
        target: Target::cpu(2).within(memory),
        threads: 2,
        place: "the test".to_owned(),
        device: &device,
        runtime: &|| Ok(runtime.handle().clone()),
        observer: &Silent,
    })
}

#[test]
fn too_little_memory_shrinks_the_cache_first_and_is_then_refused_with_the_saving_of_bf16() {
    let dir = tempfile::tempdir().unwrap();
    model_dir(dir.path());
    let config = GenerateConfig { max_tokens: 150, ignore_eos: true, ..GenerateConfig::default() };
    let (jsonl, out) = (dir.path().join("questions.jsonl"), dir.path().join("answers.jsonl"));
    fs::write(&jsonl, (0..6).map(|i| format!("{}\n", json!({"prompt": format!("What is {i}?")}))).collect::<String>())
        .unwrap();
    let texts = |memory: Option<usize>, config: &GenerateConfig| -> omr_base::error::Result<Vec<String>> {
        let batch = Batch { model: dir.path().to_owned(), root: "model".to_owned(), config: config.clone() };
        let _ = fs::remove_file(&out);
        with_machine(memory, |machine| batch.answer(&jsonl, &out, false, false, machine))?;
        let text = |line: &str| serde_json::from_str::<Value>(line).unwrap()["response"].as_str().unwrap().to_owned();
        Ok(fs::read_to_string(&out).unwrap().lines().map(text).collect())
    };
    // The smallest memory that is accepted, found by bisection: a cache of one sequence.
    let (mut low, mut high) = (0, 64 << 20);
    assert!(texts(Some(high), &config).is_ok());
    while low + 4096 < high {
        let middle = usize::midpoint(low, high);
        if texts(Some(middle), &config).is_ok() { high = middle } else { low = middle }
    }
    let all = texts(None, &config).unwrap();
    assert_eq!(texts(Some(high), &config).unwrap(), all);
    // A fixed cache of the wanted size does not fit there.
    let fixed = GenerateConfig { num_kv_blocks: Some(12), ..config.clone() };
    assert_eq!(texts(None, &fixed).unwrap(), all);
    assert!(texts(Some(high), &fixed).is_err());
    let error = texts(Some(low), &config).unwrap_err();
    let text = error.to_string();
    println!("{text}");
    assert_eq!(error.exit_code(), 2);
    for part in [
        "memory: found a run that needs at least",
        "weights",
        "expected at most",
        "dtype to bf16, which needs",
        "saves",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_model_beyond_this_machine_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    model_dir(dir.path());
    // About 3 TiB of weights in f32, which do not exist.
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in [("hidden_size", 8192), ("intermediate_size", 65536), ("num_hidden_layers", 400)] {
        config[key] = value.into();
    }
    config["num_attention_heads"] = 512.into();
    config["vision_config"]["out_hidden_size"] = 8192.into();
    fs::write(&path, config.to_string()).unwrap();
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let (code, _, err) = run(&["--model", dir.path().to_str().unwrap(), "--prompt", "What is this?"]);
    assert!(code == 2 && err.contains("memory: found a run that needs at least"), "{err}");
    assert!(err.contains("lower dtype to bf16, which needs") && err.contains("saves"), "{err}");
}

#[test]
fn log_probs_of_given_answers_are_those_of_the_engine() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    model_dir(dir.path());
    png(Path::new(&at("seen.png")));
    let url = format!("data:image/png;base64,{}", STANDARD.encode(fs::read(at("seen.png")).unwrap()));
    let content = |text: &str, images: usize| {
        let image = json!({"type": "image_url", "image_url": {"url": &url}});
        let parts = std::iter::repeat_n(image, images).chain([json!({"type": "text", "text": text})]);
        json!([{"role": "user", "content": parts.collect::<Vec<_>>()}])
    };
    let lines = [("What is this?", 0), ("What is this?", 1), ("One and two.", 2)];
    let lines = lines.map(|(text, images)| json!({"id": text, "messages": content(text, images)}));
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    // Answers requests of a route.
    let ask = |url: &str, bodies: Vec<Value>, settings: &[String]| -> Vec<Value> {
        let line = |body: Value| format!("{}\n", json!({"custom_id": "a", "url": url, "body": body}));
        fs::write(at("rows.jsonl"), bodies.into_iter().map(line).collect::<String>()).unwrap();
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let args = ["--model", &at(""), "--jsonl", &at("rows.jsonl"), "--out", &at("out.jsonl"), "--fresh"];
        let (code, _, err) = run(&[&args, &settings[..]].concat());
        assert_eq!(code, 0, "{err}");
        let body = |line: &str| serde_json::from_str::<Value>(line).unwrap()["response"]["body"].take();
        fs::read_to_string(at("out.jsonl")).unwrap().lines().map(body).collect()
    };
    for (temperature, all_ids, dtype) in [(0.7, false, "f32"), (0.0, true, "f32"), (1.0, false, "bf16")] {
        let set = [format!("temperature={temperature}"), format!("all_ids={all_ids}"), format!("dtype={dtype}")];
        let answers = at("answers.jsonl");
        let chats = lines.iter().map(|line| json!({"messages": line["messages"], "return_token_ids": true})).collect();
        let prompts = ask("/v1/chat/completions", chats, &set);
        let again = |(prompt, images): (&Value, usize)| {
            let parts = vec![json!({"type": "image_url", "url": &url}); images];
            json!({"token_ids": prompt["prompt_token_ids"], "content_parts": parts, "sampling_params": {"max_tokens": 20}})
        };
        let generated = ask("/inference/v1/generate", prompts.iter().zip(0..).map(again).collect(), &set);
        let answered = |answer: &Value| -> (Vec<u32>, Vec<u32>) {
            let choice = &answer["choices"][0];
            let logprobs: Vec<f32> = serde_json::from_value(choice["rollout_logprobs"].clone()).unwrap();
            (serde_json::from_value(choice["token_ids"].clone()).unwrap(), bits(&logprobs))
        };
        let engine: Vec<_> = generated.iter().map(answered).collect();
        let row = |(line, (ids, _)): (&Value, &(Vec<u32>, Vec<u32>))| {
            format!("{}\n", json!({"id": line["id"], "messages": line["messages"], "token_ids": ids}))
        };
        fs::write(&answers, lines.iter().zip(&engine).map(row).collect::<String>()).unwrap();
        let score = |more: &[&str]| {
            let output =
                omr().args(["score", "--logprobs", &answers, "--model", &at("")]).args(more).args(&set).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let printed = score(&[]);
        assert_eq!(printed.lines().count(), lines.len());
        for ((line, (token_ids, logprobs)), row) in printed.lines().zip(&engine).zip(&lines) {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(row.as_object().unwrap().iter().all(|(key, value)| line[key] == *value), "{line}");
            assert_eq!(line["token_ids"], json!(token_ids));
            let found: Vec<f32> = serde_json::from_value(line["logprobs"].clone()).unwrap();
            assert_eq!(bits(&found), *logprobs, "temperature {temperature}, {dtype}");
        }
        let file = at(&format!("scored-{temperature}-{dtype}.jsonl"));
        assert_eq!(score(&["--out", &file]), "");
        assert_eq!(fs::read_to_string(&file).unwrap(), printed);
    }
}

#[test]
fn a_text_is_scored_with_the_token_that_ends_the_turn() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    model_dir(dir.path());
    fs::write(at("text.jsonl"), format!("{}\n", json!({"prompt": "What?", "response": "One and two."}))).unwrap();
    let output = omr().args(["score", "--logprobs", &at("text.jsonl"), "--model", &at("")]).output().unwrap();
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    let generation: Value = serde_json::from_slice(&fs::read(at("generation_config.json")).unwrap()).unwrap();
    let ids = line["token_ids"].as_array().unwrap();
    assert_eq!(ids.last(), generation["eos_token_id"].get(0));
    assert_eq!(ids.len(), line["logprobs"].as_array().unwrap().len());
    // A line that `omr generate` has skipped is copied, and null is like no field.
    let skipped = json!({"prompt": "<image> What?", "error": {"message": "no image"}});
    let null = json!({"prompt": "What?", "response": "One", "token_ids": null, "logprobs": null});
    fs::write(at("text.jsonl"), format!("{skipped}\n{null}\n")).unwrap();
    let output = omr().args(["score", "--logprobs", &at("text.jsonl"), "--model", &at("")]).output().unwrap();
    let (text, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0] == skipped && err.contains("1 skipped lines of 2"), "{err}");
    assert!(lines[1]["logprobs"].as_array().is_some_and(|logprobs| logprobs.len() > 1), "{text}");
    for (row, part) in [
        (json!({"prompt": "What?"}), "found neither"),
        (json!({"prompt": "What?", "token_ids": []}), "no tokens"),
        (json!({"prompt": "What?", "token_ids": [-1]}), "token id -1"),
        (json!({"prompt": "What?", "token_ids": [320]}), "320"),
    ] {
        fs::write(at("text.jsonl"), format!("{row}\n")).unwrap();
        let output = omr().args(["score", "--logprobs", &at("text.jsonl"), "--model", &at("")]).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && err.contains("line 1") && err.contains(part), "{err}");
    }
}

#[test]
fn a_variable_of_the_template_reaches_questions_chats_and_scored_rows() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    model_dir(dir.path());
    png(Path::new(&at("seen.png")));
    let messages = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "seen.png"}}]}]);
    let url = format!("data:image/png;base64,{}", STANDARD.encode(fs::read(at("seen.png")).unwrap()));
    let chat = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]);
    let line = |kwargs: Value| {
        let body = json!({"messages": chat, "return_token_ids": true, "chat_template_kwargs": kwargs});
        json!({"custom_id": "a", "url": "/v1/chat/completions", "body": body})
    };
    let lines =
        [line(Value::Null), line(json!({"add_vision_id": false})), json!({"messages": messages, "token_ids": [7]})];
    fs::write(at("rows.jsonl"), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    fs::write(at("scored.jsonl"), format!("{}\n", lines[2])).unwrap();
    let found = |setting: &str| {
        let args = ["--model", &at(""), "--jsonl", &at("rows.jsonl"), "--out", &at("out.jsonl"), "--fresh"];
        let (code, _, err) = run(&[&args[..], &["temperature=0", "max_tokens=8", "ignore_eos=true", setting]].concat());
        assert_eq!(code, 0, "{err}");
        let text = fs::read_to_string(at("out.jsonl")).unwrap();
        let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let chat = |i: usize| answers[i]["response"]["body"]["prompt_token_ids"].as_array().unwrap().len();
        let score = ["score", "--logprobs", &at("scored.jsonl"), "--model", &at(""), setting];
        let scored = omr().args(score).output().unwrap();
        (chat(0), chat(1), answers[2]["response"].clone(), String::from_utf8(scored.stdout).unwrap())
    };
    let (without, with) = (found("top_p=1"), found("chat_template_kwargs.add_vision_id=true"));
    assert_eq!((without.0, without.1), (with.1, with.1), "a request's own value comes first");
    assert!(
        with.0 > without.0 && with.2 != without.2 && with.3 != without.3 && !with.3.is_empty(),
        "{with:?} {without:?}"
    );
}
