//! The teacher of the digits task: an OpenAI-compatible server that receives no information except the requests.
//!
//! The teacher decodes the image, classifies each digit by its nearest neighbour among the training digits, and answers
//! like people: mostly carefully, sometimes hastily, sometimes with a wrong result, sometimes in a wrong format. The
//! answer depends only on the request (its messages and its `seed`), so concurrency cannot change a run.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
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

use crate::config::{EndpointConfig, TeacherConfig};
use crate::data::folder::decode_data_url;
use crate::error::{Error, Result};
use crate::image::{Limits, Rgb};
use crate::philox::{Purpose, Random};
use crate::task::digits::{self, Digit, Pixels, Question, SIDE, Style, shifted};

/// Model name that the server reports.
pub const MODEL: &str = "digits-teacher";

/// Number of nearest candidates by coarse distance that are compared exactly.
const CANDIDATES: usize = 24;
/// Side in pixels of the blocks that coarse distances are computed on, and number of blocks per row.
const BLOCK: usize = 4;
const BLOCKS: usize = SIDE / BLOCK;

type Coarse = [u16; BLOCKS * BLOCKS];

/// A running teacher. It stops when this value is dropped.
pub struct Teacher {
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl Teacher {
    /// Starts a teacher on a free port of the loopback interface, in the current runtime. It uses only the digits of
    /// `training` with their labels. It recognises digits that are shifted by up to `shift` pixels.
    pub async fn start(config: &TeacherConfig, training: Range<usize>, shift: u32) -> Result<Teacher> {
        let failed = |e: std::io::Error| Error::Server { url: "http://127.0.0.1".to_owned(), what: e.to_string() };
        let known = digits::load()?.drain(training).map(|digit| (coarse(&digit.pixels), digit)).collect();
        let desk = Arc::new(Desk { config: config.clone(), shift: shift as i32, known, read: Mutex::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let routes = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/models", get(|| async { Json(json!({"object": "list", "data": [{"id": MODEL}]})) }))
            .with_state(desk);
        let listener = listener.tap_io(|tcp| {
            // An answer is one small packet, which must not wait for the next one.
            let _ = tcp.set_nodelay(true);
        });
        let server = tokio::spawn(async move {
            // The server ends when this task is aborted. `axum::serve` itself retries after a failed accept.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Teacher { address, server })
    }

    /// Returns the address up to `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl crate::task::recipe::Teacher for Teacher {
    fn endpoint(&self) -> EndpointConfig {
        EndpointConfig { base_url: vec![self.base_url()], model: MODEL.to_owned(), ..EndpointConfig::default() }
    }
}

impl Drop for Teacher {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// State shared by all requests.
struct Desk {
    config: TeacherConfig,
    shift: i32,
    known: Vec<(Coarse, Digit)>,
    /// Digits recognised in earlier images, by the hash of the request's image.
    read: Mutex<HashMap<blake3::Hash, [u8; 2]>>,
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    model: String,
    messages: Vec<Value>,
    #[serde(default)]
    seed: u64,
}

async fn complete(State(desk): State<Arc<Desk>>, request: axum::body::Bytes) -> Response {
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

impl Desk {
    fn answer(&self, request: &Request) -> Result<String> {
        let text = question(request);
        let urls: Vec<&str> = parts(request).iter().filter_map(|p| p["image_url"]["url"].as_str()).collect();
        let [url] = urls[..] else {
            return Err(Error::input("request", format!("{} pictures", urls.len()), "one picture"));
        };
        let Some(question) = Question::parse(&text) else {
            return Ok("<think>I do not know how to answer this.</think><answer>unknown</answer>".to_owned());
        };
        let picture = blake3::hash(url.as_bytes());
        let seen = self.seen(&picture, url)?;

        let mut name = blake3::Hasher::new();
        name.update(picture.as_bytes()).update(text.as_bytes());
        let digest = name.finalize();
        let (question_tokens, _) = digest.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
        // The seed comes from the request, and the counter is a hash of its content.
        let mut random = Random::new(request.seed, Purpose::Teacher, u64::from_le_bytes(*question_tokens));
        Ok(self.say(question, seen, &mut random))
    }

    fn say(&self, question: Question, seen: [u8; 2], random: &mut Random) -> String {
        let mut chance = |p: f64| random.uniform_f64() < p;
        let (careful, first_wording) = (chance(self.config.careful), chance(0.5));
        let misread = [(); 2].map(|()| chance(self.config.misread));
        let (slips, malformed) = (chance(self.config.slip), chance(self.config.malformed));
        let style = match (careful, first_wording) {
            (true, true) => Style::CarefulSee,
            (true, false) => Style::CarefulList,
            (false, _) => Style::Hasty,
        };
        let mut digits = seen;
        for (digit, _) in digits.iter_mut().zip(misread).filter(|(_, misread)| *misread) {
            *digit = (*digit + 1 + random.below(9) as u8) % 10;
        }
        let result = if slips { question.slip(digits, random.next_u64()) } else { question.answer(digits) };
        let thinking = question.thinking(style, digits, result);
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

    fn seen(&self, picture: &blake3::Hash, url: &str) -> Result<[u8; 2]> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(picture).copied();
        if let Some(digits) = known {
            return Ok(digits);
        }
        let bytes = decode_data_url(url.strip_prefix("data:").unwrap_or(url), "request")?;
        let rgb = crate::image::decode(&bytes, &Limits::default(), "request")?;
        let digits = [self.nearest(&half(&rgb, 0)?), self.nearest(&half(&rgb, SIDE)?)];
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(*picture, digits);
        Ok(digits)
    }

    /// Returns the label of the nearest known digit over all shifts. Coarse distances to all digits select the
    /// candidates, which are then compared exactly.
    fn nearest(&self, pixels: &Pixels) -> u8 {
        let glance = coarse(pixels);
        let mut order: Vec<(u32, usize)> = self
            .known
            .iter()
            .enumerate()
            .map(|(i, (c, _))| {
                let distance = c.iter().zip(&glance).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
                (distance, i)
            })
            .collect();
        let close = CANDIDATES.min(order.len());
        if close > 0 && close < order.len() {
            order.select_nth_unstable(close - 1);
        }
        let shifts = (-self.shift..=self.shift).flat_map(|dx| (-self.shift..=self.shift).map(move |dy| [dx, dy]));
        let moved: Vec<Pixels> = shifts.map(|by| shifted(pixels, by)).collect();
        let best = order[..close].iter().map(|&(_, i)| {
            let digit = &self.known[i].1;
            let distance =
                |m: &Pixels| -> u32 { m.iter().zip(&digit.pixels).map(|(a, b)| u32::from(a.abs_diff(*b))).sum() };
            (moved.iter().map(distance).min(), i)
        });
        best.min().map_or(0, |(_, i)| self.known[i].1.label)
    }
}

fn coarse(pixels: &Pixels) -> Coarse {
    let mut out = [0; BLOCKS * BLOCKS];
    for (at, &value) in pixels.iter().enumerate() {
        out[at / SIDE / BLOCK * BLOCKS + at % SIDE / BLOCK] += u16::from(value);
    }
    out
}

fn half(rgb: &Rgb, left: usize) -> Result<Pixels> {
    if (rgb.width as usize, rgb.height as usize) != (2 * SIDE, SIDE) {
        let found = format!("a picture of {} x {}", rgb.width, rgb.height);
        return Err(Error::input("request", found, format!("{} x {SIDE}", 2 * SIDE)));
    }
    Ok(std::array::from_fn(|at| rgb.data[3 * (at / SIDE * 2 * SIDE + left + at % SIDE)]))
}
