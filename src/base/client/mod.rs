//! Client for OpenAI-compatible servers, with timeouts, a deadline, retries with increasing random delays, and several
//! addresses. It is used for teachers, judges and measured models. The caller limits the number of concurrent requests.

#![forbid(unsafe_code)]

mod health;
mod in_flight;
pub mod web;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::client::health::Health;
use crate::client::web::LARGEST_REPLY;
use crate::config::EndpointConfig;
use crate::error::{Error, Result};
use crate::secrets;

pub use in_flight::InFlight;
pub use web::Failure;

/// Path of the requests after the address.
const COMPLETIONS: &str = "/chat/completions";

/// Returns true if the address `url` ends with its host and port.
fn has_no_path(url: &str) -> bool {
    url.split_once("://").is_some_and(|(_, rest)| !rest.contains('/'))
}

/// Answer of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Text of the answer. Reasoning that the server returned separately comes first, in think tags.
    pub text: String,
    /// Reason for the end: `stop`, `length` or another one.
    pub finish_reason: String,
    /// Number of prompt tokens, as counted by the server.
    pub prompt_tokens: u64,
    /// Number of answer tokens, as counted by the server.
    pub completion_tokens: u64,
}

/// A server, or several servers with the same model.
pub struct Endpoint {
    client: reqwest::Client,
    config: EndpointConfig,
    urls: Vec<String>,
    /// True if addresses without a path, as `omr serve` prints them, need `/v1`.
    needs_version: AtomicBool,
    /// Limit of tokens of a prompt with its answer that the server lists for the model.
    max_model_len: OnceCell<Option<u64>>,
    health: Health,
    deadline: Duration,
}

impl Endpoint {
    /// Creates the client and checks the addresses. `place` names the config key for errors.
    pub fn new(config: &EndpointConfig, place: &str) -> Result<Endpoint> {
        if config.base_url.is_empty() {
            return Err(Error::input(format!("{place}.base_url"), "nothing", "the server's address up to /v1"));
        }
        let mut local = true;
        for url in &config.base_url {
            let parsed = reqwest::Url::parse(url)
                .ok()
                .filter(|u| ["http", "https"].contains(&u.scheme()) && u.host_str().is_some())
                .ok_or_else(|| Error::input(format!("{place}.base_url"), url, "an http or https address up to /v1"))?;
            if let Some(password) = parsed.password() {
                // The header contains the base64 form, so that is kept secret too.
                secrets::keep(&STANDARD.encode(format!("{}:{password}", parsed.username())));
                secrets::keep(password);
            }
            local &= parsed.scheme() == "http" && parsed.host_str().is_some_and(web::is_localhost);
        }
        let timeout = Duration::try_from_secs_f64(config.timeout_s)
            .map_err(|e| Error::input(format!("{place}.timeout_s"), config.timeout_s.to_string(), e.to_string()))?;
        let is_plain = config.base_url.iter().all(|url| url.starts_with("http://"));
        let client = web::client(is_plain, |builder| {
            let builder = builder
                .timeout(timeout)
                .connect_timeout(timeout.min(Duration::from_secs(30)))
                .pool_max_idle_per_host(config.concurrency);
            if local { builder.no_proxy() } else { builder }
        });
        let client = client.map_err(|e| Error::Failed(format!("{place}: {e}")))?;
        let urls = config.base_url.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        let (health, needs_version) = (Health::new(config.base_url.len()), AtomicBool::new(false));
        let (config, max_model_len) = (config.clone(), OnceCell::new());
        Ok(Endpoint { client, config, urls, needs_version, max_model_len, health, deadline: Duration::MAX })
    }

    /// Returns the endpoint with a deadline for each request including its retries.
    pub fn with_deadline(self, deadline: Duration) -> Endpoint {
        Endpoint { deadline, ..self }
    }

    /// Returns the first address, in a form that is safe to display.
    pub fn url(&self) -> String {
        secrets::without_credentials(&format!("{}{COMPLETIONS}", self.urls[0])).into_owned()
    }

    /// Returns the address of `route` at server number `address`.
    fn route(&self, address: usize, route: &str) -> String {
        let url = &self.urls[address];
        let version = if has_no_path(url) && self.needs_version.load(Relaxed) { "/v1" } else { "" };
        format!("{url}{version}{route}")
    }

    /// Returns the largest number of tokens of a prompt with its answer, if the server lists it: omr and vLLM do.
    pub async fn max_model_len(&self) -> Option<u64> {
        let listed = async || -> Option<u64> {
            let request = self.authorized(self.client.get(self.route(0, "/models")));
            let reply = web::answered(request.send().await.ok()?).await.ok()?;
            let reply: Value = serde_json::from_slice(&web::body(reply, LARGEST_REPLY).await.ok()?).ok()?;
            let models = reply["data"].as_array()?;
            let own = models.iter().find(|model| model["id"] == self.config.model.as_str()).or(models.first())?;
            own["max_model_len"].as_u64()
        };
        *self.max_model_len.get_or_init(listed).await
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.config.api_key.0 {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Returns the maximum number of concurrent requests in the config.
    pub fn concurrency(&self) -> usize {
        self.config.concurrency
    }

    /// Returns the number of consecutive failed requests after which a job gives up: a few rounds of the requests in
    /// flight.
    pub fn patience(&self) -> usize {
        (4 * self.concurrency()).max(16)
    }

    /// Sends a request body, with as many retries as the config and the deadline allow. `item` spreads requests over
    /// the addresses.
    pub async fn complete(&self, body: &Arc<str>, item: usize) -> std::result::Result<Completion, Failure> {
        let end = Instant::now().checked_add(self.deadline);
        let left = || end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        let mut attempt = 0;
        loop {
            let address = self.health.choose(item.wrapping_add(attempt) % self.urls.len(), std::time::Instant::now());
            let once = tokio::time::timeout(left(), self.once(address, body)).await;
            let once = once.unwrap_or_else(|_| Err(Failure::Passing(self.late(), None)));
            // A server that requests a delay is healthy.
            let answered = !matches!(once, Err(Failure::Passing(_, None)));
            self.health.record(address, answered, std::time::Instant::now());
            let (what, asked) = match once {
                Err(Failure::Passing(what, asked)) if attempt < self.config.max_retries => (what, asked),
                done => return done,
            };
            let wait = web::wait(body, attempt, asked);
            if wait >= left() {
                return Err(Failure::Passing(format!("{what}; {}", self.late()), None));
            }
            tracing::debug!("{}: {what}; trying again", self.urls[address]);
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    fn late(&self) -> String {
        format!("no answer within {} s", self.deadline.as_secs_f64())
    }

    async fn once(&self, address: usize, body: &Arc<str>) -> std::result::Result<Completion, Failure> {
        let send = async |url: &str| {
            let request = self.client.post(url).header(CONTENT_TYPE, "application/json").body(body.as_bytes().to_vec());
            web::answered(self.authorized(request).send().await.map_err(web::passing)?).await
        };
        let url = self.route(address, COMPLETIONS);
        let mut reply = send(&url).await;
        if let Err(Failure::Refused(refusal)) = &reply
            && refusal.status == StatusCode::NOT_FOUND
            && url == format!("{}{COMPLETIONS}", self.urls[address])
            && has_no_path(&self.urls[address])
        {
            self.needs_version.store(true, Relaxed);
            reply = send(&self.route(address, COMPLETIONS)).await;
        }
        let is_fatal = |refusal: &web::Refusal| match refusal.status.as_u16() {
            // A content filter refuses one prompt. Without credit or access, all are refused.
            403 => !["moderation", "flagged", "content"].iter().any(|w| refusal.message.to_lowercase().contains(w)),
            status => [401, 402, 404, 405].contains(&status),
        };
        let reply = reply.map_err(|failure| match failure {
            Failure::Refused(refusal) if is_fatal(&refusal) => Failure::Fatal(refusal.into()),
            Failure::Refused(refusal) => Failure::Refused(refusal.to_string()),
            Failure::Passing(what, asked) => Failure::Passing(what, asked),
            Failure::Fatal(error) => Failure::Fatal(error),
        })?;
        let bytes = web::body(reply, LARGEST_REPLY).await.map_err(web::passing)?;
        if bytes.len() > LARGEST_REPLY {
            return Err(Failure::Passing(format!("a reply of more than {LARGEST_REPLY} bytes"), None));
        }
        completion(&bytes).map_err(|what| Failure::Passing(what, None))
    }
}

/// Reasons with which omr and vLLM, OpenRouter and DeepSeek end an answer before it is complete.
const CUT: [&str; 3] = ["abort", "error", "insufficient_system_resource"];

fn completion(bytes: &[u8]) -> std::result::Result<Completion, String> {
    let reply: Value = serde_json::from_slice(bytes).map_err(|e| format!("the reply is not JSON: {e}"))?;
    let choice = reply["choices"].get(0).ok_or("the reply has no choices")?;
    if CUT.iter().any(|cut| choice["finish_reason"] == *cut) {
        return Err("the server has ended the answer before it was complete".to_owned());
    }
    let message = choice.get("message").filter(|m| m.is_object()).ok_or("the reply's choice has no message")?;
    let text = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        _ => return Err("the reply's content is not a string".to_owned()),
    };
    let reasoning = message["reasoning_content"].as_str().or(message["reasoning"].as_str()).unwrap_or_default();
    let text = match reasoning.is_empty() || text.contains("<think>") {
        true => text,
        false => format!("<think>{reasoning}</think>{text}"),
    };
    // The limit keeps sums of the counts far below 2^64.
    let count = |name: &str| reply["usage"][name].as_u64().unwrap_or_default().min(u32::MAX.into());
    Ok(Completion {
        text,
        finish_reason: choice["finish_reason"].as_str().unwrap_or("stop").to_owned(),
        prompt_tokens: count("prompt_tokens"),
        completion_tokens: count("completion_tokens"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_with_split_off_reasoning() {
        let read = |text: &str| completion(text.as_bytes());
        let plain = read(
            r#"{"choices":[{"message":{"content":"x"},"finish_reason":"length"}],"usage":{"completion_tokens":3}}"#,
        );
        let plain = plain.unwrap();
        assert_eq!((plain.text.as_str(), plain.finish_reason.as_str(), plain.completion_tokens), ("x", "length", 3));
        let split = read(r#"{"choices":[{"message":{"content":"<answer>2</answer>","reasoning_content":"1+1"}}]}"#);
        assert_eq!(split.unwrap().text, "<think>1+1</think><answer>2</answer>");
        for broken in
            ["", "{", "{}", r#"{"choices":[]}"#, r#"{"choices":[{}]}"#, r#"{"choices":[{"message":{"content":5}}]}"#]
        {
            assert!(read(broken).is_err(), "{broken}");
        }
        for cut in CUT {
            let reply =
                serde_json::json!({"choices": [{"message": {"content": "5"}, "finish_reason": cut}]}).to_string();
            assert!(read(&reply).unwrap_err().contains("before it was complete"));
        }
    }

    #[test]
    fn addresses_are_checked() {
        for bad in [vec![], vec!["localhost:8000".to_owned()], vec!["ftp://x/v1".to_owned()]] {
            let config = EndpointConfig { base_url: bad, model: "m".into(), ..EndpointConfig::default() };
            assert!(Endpoint::new(&config, "teacher").is_err_and(|e| e.to_string().contains("teacher.base_url")));
        }
    }
}
