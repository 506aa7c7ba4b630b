//! A scripted judge server on the loopback interface. The answer in a request determines the reply.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Requests that the server received.
#[derive(Default)]
pub struct Seen {
    /// Number of requests by the first word of the answer that is judged.
    pub times: HashMap<String, usize>,
    /// Bodies of the requests, in order of arrival.
    pub bodies: Vec<Value>,
    in_flight: usize,
    /// Largest number of requests at the same time.
    pub most_in_flight: usize,
}

/// A judge that runs until the test process ends.
pub struct Server {
    pub base_url: String,
    pub seen: Arc<Mutex<Seen>>,
}

impl Server {
    /// Starts the server on its own thread, so that tests with and without an async runtime can use it.
    pub fn start() -> Server {
        let seen = Arc::<Mutex<Seen>>::default();
        let (send, receive) = std::sync::mpsc::channel();
        let all = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                send.send(format!("http://{}/v1", listener.local_addr().unwrap())).unwrap();
                let routes = Router::new().route("/v1/chat/completions", post(judge)).with_state(all);
                axum::serve(listener, routes).await.unwrap();
            });
        });
        Server { base_url: receive.recv().unwrap(), seen }
    }

    /// Returns the total number of requests.
    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().bodies.len()
    }

    /// Returns the number of requests about answers that begin with `word`.
    pub fn times(&self, word: &str) -> usize {
        self.seen.lock().unwrap().times.get(word).copied().unwrap_or_default()
    }
}

/// Returns the text between the fences under `title`.
pub fn block<'a>(prompt: &'a str, title: &str) -> Option<&'a str> {
    let rest = prompt.split_once(&format!("{title}:\n```\n"))?.1;
    Some(rest.split_once("\n```")?.0)
}

async fn judge(State(seen): State<Arc<Mutex<Seen>>>, Json(body): Json<Value>) -> Response {
    let prompt = body["messages"][0]["content"][0]["text"].as_str().unwrap().to_owned();
    let answer = block(&prompt, "Model's answer").unwrap();
    let word = answer.split_whitespace().next().unwrap_or_default().to_owned();
    let times = {
        let mut seen = seen.lock().unwrap();
        seen.bodies.push(body);
        seen.in_flight += 1;
        seen.most_in_flight = seen.most_in_flight.max(seen.in_flight);
        let times = seen.times.entry(word.clone()).or_default();
        *times += 1;
        *times
    };
    let response = reply(&word, times).await;
    seen.lock().unwrap().in_flight -= 1;
    response
}

fn said(content: Value) -> Response {
    let choice = json!({"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"});
    Json(json!({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})).into_response()
}

async fn reply(word: &str, times: usize) -> Response {
    match word {
        "yes" => said(json!("1")),
        "spaced" => said(json!(" 1\n")),
        "thinks" => said(json!("<think>0 or 1?</think>\n1")),
        "no" => said(json!("0")),
        "ten" => said(json!("10")),
        "minus" => said(json!("-1")),
        "prose" => said(json!("I think it is correct.")),
        "both" => said(json!("1 or 0")),
        "empty" => said(json!("")),
        "null" => said(Value::Null),
        // Waits long enough for other requests to arrive.
        "slow" => {
            tokio::time::sleep(Duration::from_millis(20)).await;
            said(json!("1"))
        }
        "hangs" => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            said(json!("1"))
        }
        "broken" => (StatusCode::OK, "<html>1</html>").into_response(),
        "choiceless" => Json(json!({"choices": []})).into_response(),
        "flaky" if times > 1 => said(json!("1")),
        "flaky" | "down" => (StatusCode::INTERNAL_SERVER_ERROR, "out of memory").into_response(),
        "busy" if times > 1 => said(json!("1")),
        "busy" => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")]).into_response(),
        "later" => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "3600")]).into_response(),
        "refused" => (StatusCode::BAD_REQUEST, "too long").into_response(),
        "locked" => (StatusCode::UNAUTHORIZED, "no key").into_response(),
        "7077" => said(json!("0")),
        // The reply of a small model to any other answer.
        _ => said(json!("1")),
    }
}
