//! Refused requests: their status, and the field that the error names.

use serde_json::{Value, json};

use super::program::{Server, chat, chat_with, image, model};

const CHAT: &str = "/v1/chat/completions";

/// Requests with one wrong field each: the route, the field that the error must name, and the body.
const REFUSED: &str = include_str!("refused.json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_values_are_refused_with_the_field() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    let cases: Vec<(String, String, Value)> = serde_json::from_str(REFUSED).unwrap();
    for (path, param, body) in &cases {
        let error = server.refused(path, body, 400).await;
        assert_eq!(
            (&error["param"], &error["type"]),
            (&json!(param), &json!("invalid_request_error")),
            "{body}: {error}"
        );
    }
    assert!(cases.len() > 90);
    assert_eq!(server.metric_or_zero("omr:generation_tokens_total").await, 0.0, "a refused request was computed");
    let mut body = chat("One");
    body["chat_template_kwargs"] = json!({"add_vision_id": true, "enable_thinking": true});
    server.chat(&body).await;
    // A placeholder without an image, and an image without a placeholder.
    let pad = server.ok("/tokenize", &json!({"prompt": "<|image_pad|>"})).await["tokens"].clone();
    server.refused("/v1/completions", &json!({"prompt": pad}), 400).await;
    let parts = json!([{"type": "image_url", "url": image(1)}]);
    server.refused("/inference/v1/generate", &json!({"token_ids": [1], "content_parts": parts}), 400).await;

    // The server still answers.
    server.chat(&chat_with("One", &[1])).await;
    server.idle().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prompts_and_answers_must_fit_the_context() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--max-model-len", "200"]);
    let error = server.refused(CHAT, &chat(&"One ".repeat(300)), 400).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("messages")));
    assert!(error["message"].as_str().unwrap().contains("max_model_len=200"), "{error}");
    let mut body = chat("One");
    body["max_tokens"] = json!(190);
    let error = server.refused(CHAT, &body, 400).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("max_tokens")));
    // Without a limit, the answer may fill the context.
    body.as_object_mut().unwrap().remove("max_tokens");
    body["ignore_eos"] = json!(true);
    let answer = server.chat(&body).await;
    assert_eq!(
        (&answer["usage"]["total_tokens"], &answer["choices"][0]["finish_reason"]),
        (&json!(200), &json!("length"))
    );
    assert_eq!(
        server.refused("/v1/completions", &json!({"prompt": "x".repeat(5000)}), 400).await["code"],
        "context_length_exceeded"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_models_methods_and_bodies_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&model(dir.path()), &["--api-key", "first-key", "--api-key", "second-key"]);
    let open = ["/health", "/", "/config.json", "//health", "/health/"];
    for path in open {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    let closed =
        ["/ping", "/version", "/metrics", "/v1/models", "/tokenizer_info", "/nothing", "/HEALTH", "//v1/models"];
    for path in closed {
        assert_eq!(server.get(path).await.0, 401, "{path}");
    }
    for path in [CHAT, "/v1/completions", "/tokenize", "/detokenize", "/inference/v1/generate", "/health", "/"] {
        assert_eq!(server.refused(path, &chat("x"), 401).await["type"], "authentication_error", "{path}");
    }
    for wrong in ["first-ke", "first-key2", "", "First-key"] {
        server.key = Some(wrong.to_owned());
        assert_eq!(server.get("/v1/models").await.0, 401, "{wrong}");
    }
    for right in ["first-key", "second-key"] {
        server.key = Some(right.to_owned());
        assert_eq!(server.get("/v1/models").await.0, 200);
    }
    // Routes of administrators do not exist without their key, and a client's key does not open them.
    server.refused("/pause", &json!({}), 404).await;

    let mut body = chat("x");
    body["model"] = json!("other");
    let error = server.refused(CHAT, &body, 404).await;
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    assert_eq!(server.get("/nothing").await.0, 404);
    assert_eq!(server.get(CHAT).await.0, 405);
    let send = |text: &'static str, kind: &'static str| {
        let request = server.request(reqwest::Method::POST, CHAT).header("content-type", kind).body(text);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    for text in ["", "{", "[]", "5", "{\"temperature\": NaN}", "{\"temperature\": 1e999}", "\u{0}"] {
        assert_eq!(send(text, "application/json").await, 400, "{text}");
    }
    assert_eq!(send("{}", "text/plain").await, 415);
    let large = "x".repeat(33 << 20);
    let request = server.request(reqwest::Method::POST, CHAT).header("content-type", "application/json");
    let reply = request.body(json!({"messages": [{"role": "user", "content": large}]}).to_string()).send().await;
    // The server may close the connection before the whole body is sent.
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status() == 413));
    let reply = server
        .request(reqwest::Method::POST, CHAT)
        .header("content-type", "application/json")
        .header("expect", "100-continue")
        .body(vec![b' '; (32 << 20) + 1])
        .send()
        .await;
    assert!(reply.is_err() || reply.is_ok_and(|reply| reply.status() == 413));
    server.chat(&chat("x")).await;
}

#[test]
fn wrong_flags_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path()).display().to_string();
    let fails = |args: &[&str], parts: &[&str]| {
        crate::cli::training::failure(&[&["serve"], args].concat(), 2, parts);
    };
    fails(&[], &["MODEL"]);
    fails(&[&model, "--model", &model], &["MODEL", "--model"]);
    fails(&["/nothing/here"], &["/nothing/here"]);
    fails(&[&model, "--port", "0", "temperature=1"], &["temperature"]);
    fails(&[&model, "--port", "0", "--max-model-len", "2000"], &["max_model_len", "1024"]);
    fails(&[&model, "--port", "0", "num_kv_blocks=1"], &["num_kv_blocks: found 1, expected at least", "max_model_len"]);
    fails(&[&model, "--port", "0", "--max-model-len", "0"], &["max_model_len", "found 0"]);
    fails(&[&model, "--port", "0", "--compare-url", "http://x"], &["--compare-url", "side by side"]);
    fails(&[&model, "--port", "0", "--allowed-local-media-path", "/nothing/here"], &["/nothing/here"]);
    fails(&[&model, "--host", "203.0.113.7"], &["--host"]);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    fails(&[&model, "--port", &busy.local_addr().unwrap().port().to_string()], &["--port"]);
}
