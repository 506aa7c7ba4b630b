//! Faults of clients and of the machine: clients that go away, full queues, slow connections, signals.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::program::{Server, chat, chat_with, model};

fn long() -> Value {
    let mut body = chat("One");
    body["max_tokens"] = json!(900);
    body["ignore_eos"] = json!(true);
    body["stream"] = json!(true);
    body
}

/// Begins a request whose answer is streamed, and waits for its first chunk.
async fn begin(server: &Server, body: &Value) -> reqwest::Response {
    let request =
        server.request(reqwest::Method::POST, "/v1/chat/completions").header("content-type", "application/json");
    let mut reply = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    reply.chunk().await.unwrap().unwrap();
    reply
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_frees_its_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["enable_prefix_caching=false"]);
    let used = "omr:kv_cache_usage_perc";
    assert_eq!(server.metric(used).await, 0.0);
    let mut many = long();
    many["n"] = json!(16);
    let reply = begin(&server, &many).await;
    // The metrics of a step are set after its tokens are sent.
    server.wait_until(used, |used| used > 0.0).await;
    drop(reply);
    server.idle().await;
    assert_eq!(server.metric(used).await, 0.0);
    // The request would have had 16 answers of 900 tokens.
    assert!(server.metric("omr:generation_tokens_total").await < 16.0 * 900.0);
    // A client that waits for the whole answer goes away.
    let mut body = long();
    body["stream"] = json!(false);
    body["n"] = json!(4);
    tokio::select! {
        whole = server.post("/v1/chat/completions", &body) => panic!("the answer has ended: {whole:?}"),
        () = server.wait_until(used, |used| used > 0.0) => {}
    }
    server.idle().await;
    assert_eq!(server.metric(used).await, 0.0);
}

async fn cancelled_and_finished(cancelled: usize, finished: usize) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["enable_prefix_caching=false", "--max-num-seqs", "32"]);
    let many = |count: usize, is_cancelled: bool| {
        let server = &server;
        async move {
            let mut done = 0;
            while done < count {
                let group = (0..count.min(50)).map(|i| async move {
                    if is_cancelled {
                        let mut body = long();
                        body["seed"] = json!(i);
                        drop(begin(server, &body).await);
                    } else {
                        let mut body = chat("One");
                        (body["seed"], body["max_tokens"]) = (json!(i), json!(2));
                        server.chat(&body).await;
                    }
                });
                futures_util::future::join_all(group).await;
                done += count.min(50);
            }
        }
    };
    many(200, true).await;
    many(200, false).await;
    server.idle().await;
    let before = server.memory();
    many(cancelled, true).await;
    many(finished, false).await;
    server.idle().await;
    let after = server.memory();
    println!("  resident memory {} MB before, {} MB after", before / 1_000_000, after / 1_000_000);
    assert_eq!(server.metric("omr:kv_cache_usage_perc").await, 0.0);
    assert!(after < before + (24 << 20), "{before} {after}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_and_finished_requests_leave_nothing_behind() {
    cancelled_and_finished(300, 600).await;
}

#[ignore = "takes minutes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancelled_requests_leave_nothing_behind() {
    cancelled_and_finished(10_000, 20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_a_small_cache_preempts() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--max-num-seqs", "2", "num_kv_blocks=9"]);
    let body =
        |n: usize| json!({"prompt": vec!["One"; n], "max_tokens": 400, "ignore_eos": true, "seed": 1, "stream": true});
    let send = |n: usize| {
        let request =
            server.request(reqwest::Method::POST, "/v1/completions").header("content-type", "application/json");
        let request = request.body(body(n).to_string());
        async move { request.send().await.unwrap() }
    };
    // 1,026 prompts may wait or run.
    let mut accepted = Vec::new();
    for _ in 0..16 {
        let reply = send(64).await;
        assert_eq!(reply.status(), 200);
        accepted.push(reply);
    }
    let refused = send(64).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    let error: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(error["error"]["type"], "rate_limit_error");
    assert_eq!(server.get("/health").await.0, 200);
    // The metrics are set after each step.
    server.wait_until("omr:num_requests_waiting", |waiting| waiting > 900.0).await;
    drop(accepted);
    server.idle().await;
    // Two sequences of 800 tokens need 14 blocks, and there are 9.
    let body = |n: usize| json!({"prompt": vec![40; 100], "n": n, "max_tokens": 800, "ignore_eos": true, "seed": 1, "logprobs": 0});
    let both = server.ok("/v1/completions", &body(2)).await;
    assert!(server.metric("omr:num_preemptions_total").await > 0.0);
    let one = server.ok("/v1/completions", &body(1)).await;
    assert_eq!(both["choices"][0], one["choices"][0]);
    let too_many = json!({"prompt": vec!["x"; 1027], "max_tokens": 1});
    assert_eq!(server.refused("/v1/completions", &too_many, 400).await["param"], "prompt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_signal_finishes_requests_and_a_later_ctrl_c_ends_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let mut server = Server::start(&model, &[]);
    let mut reply = begin(&server, &long()).await;
    server.signal("TERM");
    while server.get("/health").await.0 != 503 {}
    let refused =
        server.request(reqwest::Method::POST, "/v1/chat/completions").header("content-type", "application/json");
    let refused = refused.body(chat("x").to_string()).send().await.unwrap();
    assert!(refused.status() == 503 && refused.headers().contains_key("retry-after"));
    let mut text = String::new();
    while let Some(chunk) = reply.chunk().await.unwrap() {
        text += &String::from_utf8_lossy(&chunk);
    }
    assert!(text.contains("\"finish_reason\":\"length\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(server.wait(), Some(0));

    let mut server = Server::start(&model, &[]);
    let mut body = long();
    body["n"] = json!(32);
    // More work than a machine does in the two seconds after which Ctrl-C ends it.
    let replies = [begin(&server, &body).await, begin(&server, &body).await, begin(&server, &body).await];
    server.signal("TERM");
    while server.get("/health").await.0 != 503 {}
    // A launcher repeats its signal, and a person presses Ctrl-C until the program ends.
    server.signal("TERM");
    assert_eq!(server.get("/health").await.0, 503);
    server.interrupt_until_end();
    assert_eq!(server.wait(), Some(130));
    drop(replies);

    // An answer that the end of the server cuts off is an error, because a client would keep its text as whole.
    let mut server = Server::start(&model, &["--admin-api-key", "admin-key"]);
    server.key = Some("admin-key".to_owned());
    (body["stream"], body["request_id"]) = (json!(false), json!("cut"));
    let cut = server.request(reqwest::Method::POST, "/v1/chat/completions").header("content-type", "application/json");
    let cut = tokio::spawn(cut.body(body.to_string()).send());
    server.wait_until("omr:num_requests_running", |running| running > 0.0).await;
    server.signal("TERM");
    while server.get("/health").await.0 != 503 {}
    server.ok("/abort_requests", &json!({"request_ids": ["chatcmpl-cut"]})).await;
    assert_eq!(cut.await.unwrap().unwrap().status(), 503);
    assert_eq!(server.wait(), Some(0));

    // Without requests, the first signal ends the server.
    let mut server = Server::start(&model, &[]);
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
}

/// Sends bytes on a connection of its own. Returns the reply until the connection ends.
fn raw(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(600))).unwrap();
    // The server may close the connection before it has read everything.
    let _ = stream.write_all(bytes);
    let mut reply = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        reply.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&reply).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_and_slow_connections_do_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&model(dir.path()), &["--api-key", "some-key"]);
    let large = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
    assert!(raw(&server, large.as_bytes()).starts_with("HTTP/1.1 431"));
    let many: String = (0..500).map(|i| format!("x{i}: a\r\n")).collect();
    assert!(
        raw(&server, format!("GET /health HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes()).starts_with("HTTP/1.1 431")
    );
    // Two lengths, or a length beside chunks, could smuggle a second request past a proxy. The key is checked anyway.
    let smuggled = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!";
    assert!(raw(&server, smuggled.as_bytes()).starts_with("HTTP/1.1 400"));
    let smuggled = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
        0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let reply = raw(&server, smuggled.as_bytes());
    assert!(!reply.contains(" 200 ") && (reply.contains("HTTP/1.1 400") || reply.contains("HTTP/1.1 401")), "{reply}");
    for broken in ["GET\r\n\r\n", "\0\0\0\0", "GET /health HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let reply = raw(&server, broken.as_bytes());
        assert!(!reply.contains(" 200 "), "{broken:?}: {reply}");
    }
    // Connections that send nothing, or half a request, do not keep others from being answered.
    let idle: Vec<TcpStream> = (0..200)
        .map(|i| {
            let mut stream = TcpStream::connect(server.url.strip_prefix("http://").unwrap()).unwrap();
            let half = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{";
            stream.write_all(&half.as_bytes()[..i % half.len()]).unwrap();
            stream
        })
        .collect();
    server.key = Some("some-key".to_owned());
    server.chat(&chat_with("One", &[1])).await;
    drop(idle);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_whose_logits_are_not_finite_fails_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    // The only allowed id is not one of the policy's.
    let pad = server.ok("/tokenize", &json!({"prompt": "<|image_pad|>"})).await["tokens"].clone();
    let mut body = chat("One");
    body["allowed_token_ids"] = pad;
    let (other, (status, error)) = {
        let mut other = chat("Two");
        other["max_tokens"] = json!(100);
        tokio::join!(async { server.chat(&other).await }, server.post("/v1/chat/completions", &body))
    };
    assert!(other["choices"][0]["finish_reason"].is_string());
    assert!(status == 400 && error["error"]["param"] == "allowed_token_ids", "{error}");
    assert_eq!(server.get("/health").await.0, 200);
    server.chat(&chat("One")).await;
}

/// Sends a request for a streamed answer, which nobody reads.
fn send(address: &str, body: &Value) -> TcpStream {
    let (mut stream, body) = (TcpStream::connect(address).unwrap(), body.to_string());
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_keep_no_place_in_the_queue() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--max-num-seqs", "64"]);
    let mut body = long();
    for (name, value) in
        [("n", json!(64)), ("max_tokens", json!(40)), ("logprobs", json!(true)), ("top_logprobs", json!(20))]
    {
        body[name] = value;
    }
    let address = server.url.trim_start_matches("http://").to_owned();
    // Their answers do not fit into the buffers of a connection.
    let unread: Vec<TcpStream> = (0..17).map(|_| send(&address, &body)).collect();
    server.wait_until("omr:num_requests_running", |running| running > 0.0).await;
    server.chat(&chat("One")).await;
    assert!(server.metric("omr:num_requests_waiting").await > 0.0, "a small request waits for large ones");
    let all = f64::from(17 * 64 * 40);
    server.wait_until("omr:generation_tokens_total", |tokens| tokens >= all).await;
    // Their log-probs stay in memory, so there is no memory for more. Requests without log-probs need none.
    let mut more = body.clone();
    more["max_tokens"] = json!(900);
    let large: Vec<TcpStream> = (0..16).map(|_| send(&address, &more)).collect();
    let status = |mut stream: &TcpStream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head).into_owned()
    };
    let statuses: Vec<String> = large.iter().map(status).collect();
    assert!(statuses.contains(&"HTTP/1.1 200".to_owned()) && statuses.contains(&"HTTP/1.1 429".to_owned()));
    server.chat(&chat("One")).await;
    drop((unread, large));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_key_answers_only_to_the_name_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let ask = |host: &str| format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes();
    let server = Server::start(&model, &[]);
    assert!(raw(&server, &ask("localhost:8000")).starts_with("HTTP/1.1 200"));
    // A page of this name could read answers after the name is resolved to the loopback interface.
    let reply = raw(&server, &ask("evil.example"));
    assert!(reply.starts_with("HTTP/1.1 403") && reply.contains("--host ADDRESS"), "{reply}");
    for host in ["LOCALHOST", "[::1]", "[::1]:8000", "127.0.0.1:8000"] {
        let reply = raw(&server, &ask(host));
        assert!(reply.starts_with("HTTP/1.1 200"), "{host}: {reply}");
    }
    let server = Server::start(&model, &["--host", "127.0.0.1"]);
    assert!(raw(&server, &ask("models.example")).starts_with("HTTP/1.1 200"));
}

/// RFC 9112 wants one valid Host header, and no coding beside chunked or after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_receiver_or_length_is_not_clear_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--host", "127.0.0.1"]);
    let ask = |line: &str, headers: &str| raw(&server, format!("{line}\r\n{headers}\r\n0\r\n\r\n").as_bytes());
    let get = "GET /v1/models HTTP/1.1";
    let reply = ask("GET http://x/v1/models HTTP/1.1", "Host: x\r\nConnection: close\r\n");
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(ask("GET /v1/models HTTP/1.0", "").starts_with("HTTP/1.0 200"));
    for host in [
        "",
        "Host: x\r\nHost: x\r\n",
        "Host: localhost:80@evil.example\r\n",
        "Host: x:8x\r\n",
        "Host: x, y\r\n",
        "Host: x/y\r\n",
    ] {
        let reply = ask(get, host);
        assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("expected one header"), "{host}: {reply}");
    }
    let reply = ask("GET http://evil.example/v1/models HTTP/1.1", "Host: localhost\r\n");
    assert!(reply.starts_with("HTTP/1.1 400"), "{reply}");
    for codings in ["chunked, chunked", "gzip, chunked", "chunked\r\nTransfer-Encoding: chunked", "identity, chunked"] {
        let reply = ask("POST /v1/completions HTTP/1.1", &format!("Host: x\r\nTransfer-Encoding: {codings}\r\n"));
        assert!(reply.starts_with("HTTP/1.1 400") && reply.contains("chunked once"), "{codings}: {reply}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_two_models_names_both_and_is_not_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let (model, record) = (model(dir.path()), dir.path().join("requests.jsonl"));
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    omr_base::files::copy_files(&model, &other).unwrap();
    let weights = other.join("model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 0x80;
    std::fs::write(&weights, bytes).unwrap();
    let mut server = Server::start(&model, &["--admin-api-key", "key", "--record-requests", record.to_str().unwrap()]);
    let running = begin(&server, &long()).await;
    server.key = Some("key".to_owned());
    let first = server.get("/weight_info").await.1["system_fingerprint"].clone();
    server.ok("/update_weights_from_disk", &json!({"model_path": other})).await;
    let second = server.get("/weight_info").await.1["system_fingerprint"].clone();
    let text = running.text().await.unwrap();
    let both = format!("{},{}", first.as_str().unwrap(), second.as_str().unwrap());
    assert!(first != second && text.contains(&both), "{text}");
    assert_eq!(std::fs::read_to_string(&record).unwrap(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_millions_of_values_or_of_many_large_images_is_refused_early() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    let server = Server::start(&model(dir.path()), &["--allowed-local-media-path", &folder]);
    let bomb = format!("{{\"messages\":[{}0]}}", "{\"\":0},".repeat(1_500_000));
    let request = server.request(reqwest::Method::POST, "/v1/chat/completions");
    let reply = request.header("content-type", "application/json").body(bomb).send().await.unwrap();
    let (status, text) = (reply.status(), reply.text().await.unwrap());
    assert!(status == 400 && text.contains("more than 3000000 JSON values"), "{status}: {text}");
    let file = dir.path().join("large.png");
    std::fs::File::create(&file).unwrap().set_len(12 << 20).unwrap();
    let part = json!({"type": "image_url", "image_url": {"url": format!("file://{}", file.display())}});
    let body = json!({"messages": [{"role": "user", "content": [part, part, part]}]});
    let error = server.refused("/v1/chat/completions", &body, 400).await;
    assert!(error["message"].as_str().unwrap().contains("at most 33554432 bytes of images"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_line_of_the_record_of_requests_is_cut_and_a_pipe_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (model, record) = (model(dir.path()), dir.path().join("requests.jsonl"));
    let flags = ["--record-requests", record.to_str().unwrap()];
    let server = Server::start(&model, &flags);
    server.chat(&chat("One")).await;
    drop(server);
    let whole = std::fs::read(&record).unwrap();
    assert!(whole.ends_with(b"\n") && whole.len() > 100);
    std::fs::write(&record, [&whole[..], &whole[..90]].concat()).unwrap();
    let server = Server::start(&model, &flags);
    server.chat(&chat("One")).await;
    drop(server);
    let text = std::fs::read_to_string(&record).unwrap();
    let ids = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["request"].clone());
    assert_eq!(ids.count(), 2, "{text}");
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let model = model.display().to_string();
    let words = ["serve", &model, "--port", "0", "--record-requests", pipe.to_str().unwrap()];
    crate::cli::training::failure(&words, 2, &["--record-requests", "a regular file"]);
    std::fs::write(&record, "{\"mine\": 1}").unwrap();
    let words = ["serve", &model, "--port", "0", "--record-requests", record.to_str().unwrap()];
    crate::cli::training::failure(&words, 2, &["--record-requests", "another kind of file"]);
    assert_eq!(std::fs::read(&record).unwrap(), b"{\"mine\": 1}");
}

/// The text of an answer is written in pieces, so that its log-probs take no JSON tree of many times their size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_many_log_probs_is_whole_and_one_of_millions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &["--max-num-seqs", "64"]);
    let mut body = long();
    let more = json!({"n": 2, "max_tokens": 200, "logprobs": true, "top_logprobs": 3, "seed": 5, "stream": false});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let whole = server.chat(&body).await;
    let chunks = server.stream("/v1/chat/completions", &body).await;
    for index in 0..2 {
        let of_choice =
            |chunk: &Value| chunk["choices"].as_array().unwrap().iter().find(|c| c["index"] == index).cloned();
        let pieces = chunks.iter().filter_map(of_choice);
        let entries: Vec<Value> =
            pieces.flat_map(|piece| piece["logprobs"]["content"].as_array().cloned().unwrap_or_default()).collect();
        assert_eq!(entries.len(), 200);
        assert_eq!(whole["choices"][index]["logprobs"]["content"], json!(entries));
        assert_eq!(whole["choices"][index]["finish_reason"], "length");
    }
    assert_eq!(whole["usage"]["completion_tokens"], 400);
    let many = json!({"model": "m", "prompt": vec!["One"; 17], "n": 64, "max_tokens": 900, "logprobs": 20});
    let error = server.refused("/v1/completions", &many, 400).await;
    assert!(error["message"].as_str().unwrap().contains("log-probs in the answer"), "{error}");
}

/// Clients that do not read, and two requests of each of the kinds that once took gigabytes: many log-probs, millions of
/// JSON values, many large images, and a body that never ends.
#[ignore = "takes a minute"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_clients_leave_memory_and_time_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().display().to_string();
    let flags = ["--max-num-seqs", "64", "--allowed-local-media-path", &folder];
    let server = Server::start(&model(dir.path()), &flags);
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut unread = long();
    let more = json!({"n": 64, "max_tokens": 400, "logprobs": true, "top_logprobs": 20});
    unread.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let file = dir.path().join("large.png");
    std::fs::File::create(&file).unwrap().set_len(31 << 20).unwrap();
    let part = json!({"type": "image_url", "image_url": {"url": format!("file://{}", file.display())}});
    let mut most = unread.clone();
    most["max_tokens"] = json!(900);
    let kinds = [
        most.to_string(),
        json!({"messages": [{"role": "user", "content": vec![part; 64]}]}).to_string(),
        format!("{{\"messages\":[{}0]}}", "{\"\":0},".repeat(4_000_000)),
    ];
    let raw = |body: &[u8], length: usize| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        write!(stream, "{head}Content-Length: {length}\r\n\r\n").unwrap();
        let _ = stream.write_all(body);
        stream
    };
    let mut hostile: Vec<TcpStream> = (0..64).map(|_| send(&address, &unread)).collect();
    for _ in 0..2 {
        hostile.extend(kinds.iter().map(|body| raw(body.as_bytes(), body.len())));
        hostile.push(raw(&vec![b' '; 30 << 20], 31 << 20));
    }
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(40) {
        let asked = Instant::now();
        server.chat(&chat("One")).await;
        slowest = slowest.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("largest memory {} MB, slowest answer {:.1} s", peak / 1000, slowest.as_secs_f64());
    assert!(peak < 1_500_000 && slowest < Duration::from_secs(5));
    drop(hostile);
}
