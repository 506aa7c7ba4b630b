//! The teacher of a task: an OpenAI-compatible server that receives no information except the requests.
//!
//! A task gives a [`Reader`], which reads the image of a request and words an answer. The answer depends only on the
//! request (its messages and its `seed`), so concurrency cannot change a run.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::image::{Limits, Rgb};
use crate::rows::files::folder::decode_data_url;
use crate::rows::short;
use omr_base::config::EndpointConfig;
use omr_base::error::{Error, Result};
use omr_base::philox::{Purpose, Random};

/// The part of a teacher that knows its task.
pub trait Reader: Send + Sync + 'static {
    /// Everything that the teacher reads in an image.
    type Seen: Clone + Send;

    /// Reads an image. Returns an error if it is not an image of the task.
    fn read(&self, image: &Rgb) -> Result<Self::Seen>;

    /// Returns an answer to `question` about an image, or `None` if the task has no such question.
    fn answer(&self, question: &str, seen: Self::Seen, random: &mut Random) -> Option<String>;
}

/// Returns an answer with its thinking in the format that the recipe trains, or in a wrong format if `malformed`.
pub fn formatted(thinking: &str, result: &str, malformed: bool, random: &mut Random) -> String {
    let form = if malformed { random.below(5) } else { 5 };
    match form {
        0 => format!("The answer is {result}."),
        1 => format!("{thinking}</think><answer>{result}</answer>"),
        2 => format!("<think>{thinking}</think>{result}"),
        3 => format!("{thinking} <answer>{result}</answer>"),
        4 => format!("<think>{thinking}<answer>{result}"),
        _ => format!("<think>{thinking}</think><answer>{result}</answer>"),
    }
}

/// A running teacher. It stops when this value is dropped.
pub struct Teacher {
    model: String,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Teacher {
    /// Starts the teacher of `task` on a free port of the loopback interface, in the current runtime.
    pub async fn start(task: &str, reader: impl Reader) -> Result<Teacher> {
        let failed = |e: std::io::Error| Error::Server { url: "http://127.0.0.1".to_owned(), what: e.to_string() };
        let desk = Arc::new(Desk { reader, read: Mutex::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let model = format!("{task}-teacher");
        let models = json!({"object": "list", "data": [{"id": model}]});
        let routes = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/models", get(|| async { Json(models) }))
            .with_state(desk);
        let listener = listener.tap_io(|tcp| {
            // An answer is one small packet, which must not wait for the next one.
            let _ = tcp.set_nodelay(true);
        });
        let server = tokio::spawn(async move {
            // The server ends when this task is aborted. `axum::serve` itself retries after a failed accept.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Teacher { model, address, server })
    }

    /// Returns the address and the model name of the teacher.
    pub fn endpoint(&self) -> EndpointConfig {
        let base_url = vec![format!("http://{}/v1", self.address)];
        EndpointConfig { base_url, model: self.model.clone(), ..EndpointConfig::default() }
    }
}

impl Drop for Teacher {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// State shared by all requests.
struct Desk<R: Reader> {
    reader: R,
    /// Content of earlier images, by the hash of the request's image.
    read: Mutex<HashMap<blake3::Hash, R::Seen>>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    model: String,
    messages: Vec<Value>,
    #[serde(default)]
    seed: u64,
}

async fn complete<R: Reader>(State(desk): State<Arc<Desk<R>>>, request: axum::body::Bytes) -> Response {
    let answer = serde_json::from_slice::<Request>(&request)
        .map_err(|e| e.to_string())
        .and_then(|request| Ok((desk.answer(&request).map_err(|e| e.to_string())?, request)));
    match answer {
        Ok((text, request)) => {
            let tokens = |text: &str| text.split_whitespace().count();
            let (question_tokens, answer_tokens) = (tokens(&question(&request)), tokens(&text));
            let message = json!({"role": "assistant", "content": text});
            Json(json!({
                "id": format!("chatcmpl-{}", request.seed),
                "object": "chat.completion",
                "model": request.model,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": question_tokens, "completion_tokens": answer_tokens, "total_tokens": question_tokens + answer_tokens},
            }))
            .into_response()
        }
        Err(what) => {
            let error = json!({"error": {"message": what, "type": "invalid_request_error"}});
            (StatusCode::BAD_REQUEST, Json(error)).into_response()
        }
    }
}

/// Returns the parts of the last user message.
fn parts(request: &Request) -> &[Value] {
    let user = request.messages.iter().rev().find(|m| m["role"] == "user");
    user.and_then(|m| m["content"].as_array()).map_or(&[], Vec::as_slice)
}

fn question(request: &Request) -> String {
    parts(request).iter().filter_map(|p| p["text"].as_str()).collect::<Vec<_>>().join("\n")
}

impl<R: Reader> Desk<R> {
    fn answer(&self, request: &Request) -> Result<String> {
        let text = question(request);
        let urls: Vec<&str> = parts(request).iter().filter_map(|p| p["image_url"]["url"].as_str()).collect();
        let [url] = urls[..] else {
            return Err(Error::input("request", format!("{} images", urls.len()), "one image"));
        };
        let image = blake3::hash(url.as_bytes());
        let seen = self.seen(&image, url)?;

        let mut name = blake3::Hasher::new();
        name.update(image.as_bytes()).update(text.as_bytes());
        let counter = short(&name.finalize());
        // The seed comes from the request, and the counter is a hash of its content.
        let mut random = Random::new(request.seed, Purpose::Teacher, counter);
        let unknown = || "<think>I do not know how to answer this.</think><answer>unknown</answer>".to_owned();
        Ok(self.reader.answer(&text, seen, &mut random).unwrap_or_else(unknown))
    }

    fn seen(&self, image: &blake3::Hash, url: &str) -> Result<R::Seen> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned();
        if let Some(seen) = known {
            return Ok(seen);
        }
        let bytes = decode_data_url(url.strip_prefix("data:").unwrap_or(url), "request")?;
        let seen = self.reader.read(&crate::image::decode(&bytes, &Limits::default(), "request")?)?;
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(*image, seen.clone());
        Ok(seen)
    }
}
