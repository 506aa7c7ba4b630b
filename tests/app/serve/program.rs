//! Starts the program and sends requests to it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use omr_base_tests::wait::{until, until_async};
use serde_json::{Value, json};

use crate::cli::generate::model_dir;

/// Writes a small random model with a context of 1,024 tokens.
pub fn model(dir: &Path) -> PathBuf {
    let path = dir.join("model");
    std::fs::create_dir_all(&path).unwrap();
    model_dir(&path);
    let file = path.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["max_position_embeddings"] = json!(1024);
    std::fs::write(file, config.to_string()).unwrap();
    path
}

/// A running server, which is killed when this value is dropped.
pub struct Server {
    pub child: Child,
    pub url: String,
    pub client: reqwest::Client,
    pub key: Option<String>,
}

impl Server {
    /// Starts a server with the CPU on a free port and waits until it is ready.
    pub fn start(model: &Path, flags: &[&str]) -> Server {
        Server::start_on("cpu", model, flags)
    }

    /// Starts a server like [`Server::start`] with this device.
    pub fn start_on(device: &str, model: &Path, flags: &[&str]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        command.args(["--device", device, "--threads", "2", "--quiet", "serve"]).arg(model);
        command.args(["--port", "0", "--served-model-name", "m"]).args(flags);
        let mut child = command.env("CUDA_VISIBLE_DEVICES", "").stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://127.0.0.1:"), "the server did not start");
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Server { child, url: url.trim().to_owned(), client, key: None }
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        self.key.iter().fold(request, |request, key| request.bearer_auth(key))
    }

    /// Sends a request and returns the status and the body.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.request(reqwest::Method::POST, path).header("content-type", "application/json");
        answer(request.body(body.to_string())).await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.request(reqwest::Method::GET, path)).await
    }

    /// Sends a request that must succeed.
    pub async fn ok(&self, path: &str, body: &Value) -> Value {
        let (status, value) = self.post(path, body).await;
        assert_eq!(status, 200, "{body}: {value}");
        value
    }

    pub async fn chat(&self, body: &Value) -> Value {
        self.ok("/v1/chat/completions", body).await
    }

    /// Sends a request that must fail. Returns its error.
    pub async fn refused(&self, path: &str, body: &Value, status: u16) -> Value {
        let (found, value) = self.post(path, body).await;
        assert_eq!(found, status, "{body}: {value}");
        let error = value["error"].clone();
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{value}");
        assert!(error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some(), "{value}");
        error
    }

    /// Sends a request whose answer is streamed. Returns the chunks before `[DONE]`.
    pub async fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let mut body = body.clone();
        body["stream"] = json!(true);
        let request = self.request(reqwest::Method::POST, path).header("content-type", "application/json");
        let reply = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        let text = reply.text().await.unwrap();
        let mut events: Vec<&str> = text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{text}");
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// Returns a value of `/metrics`.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        value(&text, name).unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    /// Returns a value of `/metrics`, or 0 for a label without observations.
    pub async fn metric_or_zero(&self, name: &str) -> f64 {
        let text = self.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        value(&text, name).unwrap_or(0.0)
    }

    /// Waits until a metric has a value that is meant.
    pub async fn wait_until(&self, name: &str, is_meant: impl Fn(f64) -> bool) {
        until_async(name, async || is_meant(self.metric(name).await)).await;
    }

    /// Waits until no request is in flight.
    pub async fn idle(&self) {
        let in_flight = async |name: &'static str| self.metric(name).await;
        until_async("no request in flight", async || {
            in_flight("omr:num_requests_running").await + in_flight("omr:num_requests_waiting").await == 0.0
        })
        .await;
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Sends SIGINT again and again until the process has ended, as a person does who presses Ctrl-C.
    pub fn interrupt_until_end(&mut self) {
        let mut looks = 0..;
        until("Ctrl-C has ended the server", || {
            if looks.next().is_some_and(|look| look % 100 == 0) {
                self.signal("INT");
            }
            self.child.try_wait().unwrap().is_some()
        });
    }

    /// Waits for the end of the process and returns its exit status.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Returns the resident memory of the process in bytes.
    pub fn memory(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let reply = request.send().await.unwrap();
    let status = reply.status().as_u16();
    let text = reply.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// Returns a chat request with one text.
pub fn chat(text: &str) -> Value {
    json!({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 12, "seed": 5})
}

/// Returns a chat request with images, each given by the seed of its pixels.
pub fn chat_with(text: &str, images: &[u32]) -> Value {
    let part = |&seed: &u32| json!({"type": "image_url", "image_url": {"url": image(seed), "detail": "auto"}});
    let mut content: Vec<Value> = images.iter().map(part).collect();
    content.push(json!({"type": "text", "text": text}));
    json!({"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 8, "seed": 5})
}

/// Returns a small image as a PNG file.
pub fn png(seed: u32) -> Vec<u8> {
    let (w, h) = (28 + 28 * (seed % 3), 28 + 28 * (seed / 3 % 2));
    let pixel = |i: u32| ((i ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8;
    let pixels: Vec<u8> = (0..w * h * 3).map(pixel).collect();
    let mut file = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_raw(w, h, pixels).unwrap().write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

/// Returns a small image as a `data:` URL.
pub fn image(seed: u32) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png(seed)))
}

/// Joins the pieces of a streamed chat answer to the form of an answer that is not streamed.
pub fn joined(chunks: &[Value]) -> Value {
    let mut choices: Vec<Value> = Vec::new();
    for piece in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        let index = piece["index"].as_u64().unwrap() as usize;
        if choices.len() <= index {
            choices.resize(index + 1, json!({"message": {}, "logprobs": {"content": []}, "token_ids": [], "text": ""}));
        }
        let choice = &mut choices[index];
        choice["index"] = json!(index);
        for (key, value) in piece.get("delta").and_then(Value::as_object).into_iter().flatten() {
            let text = format!("{}{}", choice["message"][key].as_str().unwrap_or_default(), value.as_str().unwrap());
            choice["message"][key] = json!(text);
        }
        if let Some(text) = piece["text"].as_str() {
            choice["text"] = json!(format!("{}{text}", choice["text"].as_str().unwrap()));
        }
        for entry in piece["logprobs"]["content"].as_array().into_iter().flatten() {
            choice["logprobs"]["content"].as_array_mut().unwrap().push(entry.clone());
        }
        for id in piece["token_ids"].as_array().into_iter().flatten() {
            choice["token_ids"].as_array_mut().unwrap().push(id.clone());
        }
        for key in ["finish_reason", "stop_reason"] {
            if !piece[key].is_null() || choice.get(key).is_none() {
                choice[key] = piece[key].clone();
            }
        }
    }
    Value::Array(choices)
}
