//! The routes and the form of their answers.

use serde_json::{Value, json};

use super::program::{Server, chat, chat_with, joined, model};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_answers_in_its_form() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    for path in ["/health", "/ping"] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    assert_eq!(server.get("/version").await.1["version"], env!("CARGO_PKG_VERSION"));
    let (_, models) = server.get("/v1/models").await;
    let listed = &models["data"][0];
    assert_eq!(
        (&models["object"], &listed["id"], &listed["max_model_len"]),
        (&json!("list"), &json!("m"), &json!(1024))
    );
    assert!(
        listed["created"].is_u64()
            && listed["object"] == "model"
            && listed["owned_by"] == "omr"
            && listed["root"].is_string()
    );

    let answer = server.chat(&chat("One and two")).await;
    assert!(
        answer["id"].as_str().unwrap().starts_with("chatcmpl-") && answer["object"] == "chat.completion",
        "{answer}"
    );
    assert_eq!((&answer["model"], &answer["seed"]), (&json!("m"), &json!(5)));
    let choice = &answer["choices"][0];
    assert!(choice["message"]["role"] == "assistant" && choice["message"]["content"].is_string(), "{answer}");
    assert!(choice["logprobs"].is_null() && choice.get("token_ids").is_none(), "{answer}");
    let usage = &answer["usage"];
    let count = |name: &str| usage[name].as_u64().unwrap();
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    assert!(usage["prompt_tokens_details"]["cached_tokens"].is_u64());
    let fingerprint = answer["system_fingerprint"].as_str().unwrap();
    assert!(fingerprint.contains("cpu") && fingerprint.contains("f32"), "{fingerprint}");

    let completion = server.ok("/v1/completions", &json!({"prompt": "One", "logprobs": 2, "seed": 1})).await;
    assert_eq!(completion["object"], "text_completion");
    let logprobs = &completion["choices"][0]["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap().len();
    assert!((1..=16).contains(&tokens) && logprobs["text_offset"][0] == 0, "{completion}");
    assert!(
        ["token_logprobs", "top_logprobs", "text_offset"]
            .iter()
            .all(|of| logprobs[of].as_array().unwrap().len() == tokens)
    );

    let body = json!({"token_ids": [20, 21, 22], "sampling_params": {"max_tokens": 5, "logprobs": 1, "seed": 3}});
    let generated = server.ok("/inference/v1/generate", &body).await;
    let choice = &generated["choices"][0];
    let ids = choice["token_ids"].as_array().unwrap();
    assert!(generated["request_id"].is_string() && !ids.is_empty() && choice.get("text").is_none(), "{generated}");
    for (id, entry) in ids.iter().zip(choice["logprobs"]["content"].as_array().unwrap()) {
        assert_eq!((&entry["token_id"], &entry["token"]), (id, &json!(format!("token_id:{id}"))));
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0 && entry["rank"].as_u64().unwrap() >= 1, "{entry}");
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 1);
    }
    assert_eq!(choice["rollout_logprobs"].as_array().unwrap().len(), ids.len());

    let metrics = server.get("/metrics").await.1;
    let metrics = metrics.as_str().unwrap();
    for name in [
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "prefix_cache_queries_total",
        "prefix_cache_hits_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "time_to_first_token_seconds_sum",
        "inter_token_latency_seconds_bucket",
        "e2e_request_latency_seconds_count",
        "num_preemptions_total",
        "request_success_total{finished_reason=",
    ] {
        assert!(metrics.contains(&format!("\nomr:{name}")), "{name} is not in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_and_tokens_are_converted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    let (_, tokenized) = server.post("/tokenize", &json!({"prompt": "One and two", "add_special_tokens": false})).await;
    assert!(tokenized["count"] == tokenized["tokens"].as_array().unwrap().len() && tokenized["max_model_len"] == 1024);
    let back = server.ok("/detokenize", &json!({"tokens": tokenized["tokens"]})).await;
    assert_eq!(back["prompt"], "One and two");
    let (_, info) = server.get("/tokenizer_info").await;
    assert!(
        info["eos_token"] == "<|im_end|>" && info["chat_template"].as_str().unwrap().contains("im_start"),
        "{info}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_answer_is_the_whole_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--reasoning-parser", "qwen3"]);
    let more = json!({"logprobs": true, "top_logprobs": 3, "return_token_ids": true, "n": 3});
    let mut bodies = vec![chat("One"), chat_with("What is this?", &[1, 4])];
    bodies.push(json!({"messages": [{"role": "user", "content": "One"},
        {"role": "assistant", "content": "<think>Two"}], "continue_final_message": true, "add_generation_prompt": false,
        "max_tokens": 30, "seed": 9}));
    bodies.push(
        json!({"messages": [{"role": "user", "content": "One"}], "stop": ["e", "zz"], "max_tokens": 60, "seed": 2}),
    );
    for body in &mut bodies {
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let whole = server.chat(body).await;
        let mut streamed = body.clone();
        streamed["stream_options"] = json!({"include_usage": true});
        let mut chunks = server.stream("/v1/chat/completions", &streamed).await;
        let usage = chunks.pop().unwrap();
        let usage_of = |answer: &Value| {
            let mut usage = answer["usage"].clone();
            usage.as_object_mut().unwrap().remove("prompt_tokens_details");
            usage
        };
        assert_eq!((&usage["choices"], usage_of(&usage)), (&json!([]), usage_of(&whole)));
        assert!(
            chunks.iter().all(|chunk| chunk["seed"] == whole["seed"] && chunk["object"] == "chat.completion.chunk")
        );
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(chunks[0]["prompt_token_ids"], whole["prompt_token_ids"]);
        let joined = joined(&chunks);
        for (a, b) in joined.as_array().unwrap().iter().zip(whole["choices"].as_array().unwrap()) {
            let text = |choice: &Value, key: &str| choice["message"][key].as_str().unwrap_or_default().to_owned();
            for key in ["content", "reasoning", "reasoning_content"] {
                assert_eq!(text(a, key), text(b, key), "{key}: {body}");
            }
            for key in ["logprobs", "token_ids", "finish_reason", "stop_reason"] {
                assert_eq!(a[key], b[key], "{key}: {body}");
            }
        }
        assert_eq!(joined.as_array().unwrap().len(), 3);
    }
    let counted = json!({"include_usage": true, "continuous_usage_stats": true});
    bodies[0]["stream_options"] = counted;
    let counts = server.stream("/v1/chat/completions", &bodies[0]).await;
    let counts: Vec<u64> = counts.iter().map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts[0] < counts[counts.len() - 1], "{counts:?}");
    bodies[0].as_object_mut().unwrap().remove("stream_options");
    let reasoning = server.chat(&bodies[2]).await;
    assert!(reasoning["choices"][0]["message"]["reasoning"].is_string(), "{reasoning}");
    bodies[2]["include_reasoning"] = json!(false);
    let hidden = server.chat(&bodies[2]).await;
    assert!(hidden["choices"][0]["message"].get("reasoning").is_none(), "{hidden}");

    let completion = json!({"prompt": ["One", "and two"], "logprobs": 1, "echo": true, "n": 2, "seed": 4});
    let whole = server.ok("/v1/completions", &completion).await;
    let streamed = joined(&server.stream("/v1/completions", &completion).await);
    for (a, b) in streamed.as_array().unwrap().iter().zip(whole["choices"].as_array().unwrap()) {
        assert_eq!((&a["text"], &a["finish_reason"]), (&b["text"], &b["finish_reason"]));
    }
    let texts = |i: usize| whole["choices"][i]["text"].as_str().unwrap();
    assert!(texts(0).starts_with("One") && texts(1).starts_with("One") && texts(3).starts_with("and two"), "{whole}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rendered_request_has_the_answer_of_the_chat() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    let mut body = chat_with("Which is larger?", &[2, 5, 2]);
    body["temperature"] = json!(0.7);
    let mut with_ids = body.clone();
    with_ids["return_token_ids"] = json!(true);
    let chat = server.chat(&with_ids).await;
    let mut rendered = server.ok("/v1/chat/completions/render", &body).await;
    assert_eq!(rendered["token_ids"], chat["prompt_token_ids"]);
    let places = rendered["features"]["mm_placeholders"]["image"].as_array().unwrap().clone();
    assert_eq!(places.len(), 3);
    assert_eq!(rendered["features"]["mm_hashes"]["image"][0], rendered["features"]["mm_hashes"]["image"][2]);
    rendered["return_token_ids"] = json!(true);
    let generated = server.ok("/inference/v1/generate", &rendered).await;
    assert_eq!(generated["choices"][0]["token_ids"], chat["choices"][0]["token_ids"]);
    assert_eq!(generated["mm_placeholders"]["image"], json!(places));
    // The renderers' clients send one placeholder for each image, and the server expands them.
    let ids: Vec<u64> = rendered["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let mut short: Vec<u64> = Vec::new();
    for (i, id) in ids.iter().enumerate() {
        let inside = |p: &Value| {
            (p["offset"].as_u64().unwrap() as usize + 1..)
                .take(p["length"].as_u64().unwrap() as usize - 1)
                .any(|at| at == i)
        };
        if !places.iter().any(inside) {
            short.push(*id);
        }
    }
    rendered.as_object_mut().unwrap().remove("features");
    rendered["token_ids"] = json!(short);
    rendered["output_mode"] = json!("text");
    let expanded = server.ok("/inference/v1/generate", &rendered).await;
    assert_eq!(expanded["prompt_token_ids"], chat["prompt_token_ids"]);
    assert_eq!(expanded["choices"][0]["text"], chat["choices"][0]["message"]["content"]);
    let mut broken = rendered.clone();
    broken["features"] = json!({"kwargs_data": {"image": ["x"]}});
    let error = server.refused("/inference/v1/generate", &broken, 400).await;
    assert!(error["param"] == "features.kwargs_data" && error["message"].as_str().unwrap().contains("content_parts"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_pause_abort_and_load_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (model(dir.path()), dir.path().join("second"));
    std::fs::create_dir_all(&second).unwrap();
    for file in std::fs::read_dir(&first).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), second.join(file.file_name())).unwrap();
    }
    let weights = second.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    // The sign of every tenth weight changes.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].iter_mut().skip(3).step_by(40).for_each(|byte| *byte ^= 0x80);
    std::fs::write(&weights, bytes).unwrap();

    let mut server = Server::start(&first, &["--admin-api-key", "admin-key"]);
    for path in ["/pause", "/resume", "/abort_requests", "/update_weights_from_disk"] {
        server.refused(path, &json!({}), 401).await;
    }
    let body = {
        let mut body = chat_with("One", &[3]);
        body["return_token_ids"] = json!(true);
        body["max_tokens"] = json!(40);
        body
    };
    let before = server.chat(&body).await;
    server.key = Some("admin-key".to_owned());
    let (_, info) = server.get("/weight_info").await;
    assert_eq!(info["system_fingerprint"], before["system_fingerprint"]);
    let second = json!({"model_path": second});
    let (_, loaded) = server.post("/update_weights_from_disk", &second).await;
    assert!(loaded["weights"] != info["weights"] && loaded["weights"].is_string(), "{loaded}");
    let other = server.chat(&body).await;
    assert_ne!(other["choices"][0]["token_ids"], before["choices"][0]["token_ids"]);
    assert_eq!(other["system_fingerprint"], loaded["system_fingerprint"]);
    let error = server.refused("/update_weights_from_disk", &json!({"model_path": dir.path()}), 400).await;
    assert_eq!(error["param"], "model_path");
    // Only the weights are loaded, so the other files must be those of the start.
    let settings = second["model_path"].as_str().unwrap().to_owned() + "/generation_config.json";
    std::fs::write(&settings, "{\"eos_token_id\": 1}").unwrap();
    let error = server.refused("/update_weights_from_disk", &second, 400).await;
    assert!(error["message"].as_str().unwrap().contains("generation_config.json differs"), "{error}");
    assert_eq!(server.get("/weight_info").await.1["system_fingerprint"], loaded["system_fingerprint"]);
    server.ok("/update_weights_from_disk", &json!({"model_path": first})).await;
    let again = server.chat(&body).await;
    assert_eq!((&again["choices"], &again["system_fingerprint"]), (&before["choices"], &before["system_fingerprint"]));

    // A request that arrives during a pause waits for its end.
    assert_eq!(server.ok("/pause?mode=keep", &json!({})).await["status"], "paused");
    assert_eq!(server.get("/is_paused").await.1["is_paused"], true);
    let waiting = server.chat(&body);
    tokio::pin!(waiting);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), &mut waiting).await.is_err());
    server.ok("/resume", &json!({})).await;
    assert_eq!(waiting.await["choices"], before["choices"]);
    assert_eq!(server.ok("/pause?mode=wait", &json!({})).await["status"], "paused");
    let named = {
        let mut body = body.clone();
        body["request_id"] = json!("mine");
        body
    };
    let named = server.chat(&named);
    tokio::pin!(named);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(300), &mut named).await.is_err());
    let aborted = server.ok("/abort_requests", &json!({"request_ids": ["chatcmpl-mine", "unknown"]})).await;
    assert_eq!(aborted["aborted"], 1);
    assert_eq!(named.await["choices"][0]["finish_reason"], "abort");
    server.ok("/resume", &json!({})).await;
    assert_eq!(server.refused("/pause?mode=later", &json!({}), 400).await["param"], "mode");
    assert_eq!(server.get("/is_paused").await.1["is_paused"], false);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_has_a_fresh_nonce() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let server = Server::start(&model, &["--api-key", "client-key"]);
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let reply = server.request(reqwest::Method::GET, "/").send().await.unwrap();
        let policy = reply.headers()["content-security-policy"].to_str().unwrap().to_owned();
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
        for part in [
            "default-src 'none'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        let page = reply.text().await.unwrap();
        assert!(page.contains(&format!("nonce=\"{nonce}\"")) && !page.contains("{{nonce}}"));
        nonces.push(nonce);
    }
    assert_ne!(nonces[0], nonces[1]);
    assert_eq!(server.get("/config.json").await.1, json!({"key": true, "reasoning_parser": "none"}));
    // Its answers are converted from Markdown, for clients with the key.
    server.refused("/markdown", &json!({"text": "**a**"}), 401).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_other_clients_send_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--allowed-origins", "http://localhost:3000"]);
    for path in ["/v1/models/m", "/v1//models/m", "/v1/models/m/"] {
        assert_eq!(server.get(path).await.1["id"], "m", "{path}");
    }
    assert_eq!(server.get("/v1/models/none").await.0, 404);
    assert_eq!(server.get("/v1/models/").await.1["object"], "list");
    let shown = json!({"html": "<p><strong>a</strong> &lt;b&gt;</p>"});
    assert_eq!(server.ok("/markdown", &json!({"text": "**a** <b>"})).await, shown);
    assert_eq!(server.refused("/markdown", &json!({}), 400).await["param"], "text");
    let text = json!([{"type": "text", "text": "One", "cache_control": {"type": "ephemeral"}}]);
    let mut body = json!({"messages": [{"role": "user", "name": "alice", "content": text}], "tool_choice": "auto",
        "max_tokens": 2});
    server.chat(&body).await;
    body["chat_template_kwargs"] = json!({"enable_thinking": false});
    server.refused("/v1/chat/completions", &body, 400).await;
    let empty = json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]});
    assert_eq!(server.refused("/v1/chat/completions", &empty, 400).await["param"], "messages[0].content[0].text");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_an_allowed_origin_can_use_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--allowed-origins", "http://localhost:3000", "--api-key", "k"]);
    for (origin, allowed) in [("http://localhost:3000", true), ("http://localhost:4000", false)] {
        let asked = server.request(reqwest::Method::OPTIONS, "/v1/chat/completions").header("origin", origin);
        let asked = asked.header("access-control-request-method", "POST");
        let asked = asked.header("access-control-request-headers", "authorization").send().await.unwrap();
        assert_eq!(asked.status() == 204, allowed, "{origin}");
        let header = asked.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap());
        assert_eq!(header, allowed.then_some(origin));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_offset_points_at_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    for (echo, skip) in [(false, true), (true, true), (false, false)] {
        let body = json!({"prompt": "One \u{1f600} and", "logprobs": 0, "seed": 1, "max_tokens": 60, "echo": echo,
            "skip_special_tokens": skip});
        let answer = server.ok("/v1/completions", &body).await;
        let choice = &answer["choices"][0];
        let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
        let (tokens, offsets) = (&choice["logprobs"]["tokens"], &choice["logprobs"]["text_offset"]);
        let mut found = 0;
        for (token, offset) in tokens.as_array().unwrap().iter().zip(offsets.as_array().unwrap()) {
            let (token, offset) = (token.as_str().unwrap(), offset.as_u64().unwrap() as usize);
            if !token.is_ascii() || token.starts_with("bytes:") || token.starts_with("<|") {
                continue;
            }
            let there: String = text[offset..].iter().skip_while(|c| **c == '\u{fffd}').take(token.len()).collect();
            assert_eq!(there, token, "{answer}");
            found += 1;
        }
        assert!(found > 3, "{answer}");
    }
}
