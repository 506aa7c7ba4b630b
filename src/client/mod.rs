//! Client for OpenAI-compatible servers, with timeouts, a deadline, retries with increasing random delays, and several
//! addresses. It is used for teachers, judges and measured models. The caller limits the number of concurrent requests.

#![forbid(unsafe_code)]

mod health;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::client::health::Health;
use crate::config::EndpointConfig;
use crate::error::{Error, Result};
use crate::philox::{Purpose, Random};
use crate::secrets;

/// Delay before the first retry; it doubles with each retry.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Maximum delay before a retry, even if the server requests a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Maximum size of a reply in bytes. An answer of 16,384 tokens is about a thousand times smaller.
const LARGEST_REPLY: usize = 64 << 20;

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
    health: Health,
    deadline: Duration,
}

/// Reason why a request has no answer.
#[derive(Debug)]
pub enum Failure {
    /// A retry may succeed. Contains the error and the delay that the server requests.
    Passing(String, Option<Duration>),
    /// The server refuses this request and would refuse it again.
    Refused(String),
    /// Every request will fail.
    Fatal(Error),
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
            local &=
                parsed.scheme() == "http" && matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        }
        // If another caller has already installed a provider, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = Duration::try_from_secs_f64(config.timeout_s)
            .map_err(|e| Error::input(format!("{place}.timeout_s"), config.timeout_s.to_string(), e.to_string()))?;
        let builder = || {
            let builder = reqwest::Client::builder()
                .timeout(timeout)
                .connect_timeout(timeout.min(Duration::from_secs(30)))
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(config.concurrency);
            if local { builder.no_proxy() } else { builder }
        };
        // Plain http needs no certificates, so a system without them is accepted.
        let is_plain = config.base_url.iter().all(|url| url.starts_with("http://"));
        let without = |e| if is_plain { builder().tls_certs_only([]).build() } else { Err(e) };
        let client = builder().build().or_else(without);
        let client = client.map_err(|e| Error::Failed(format!("{place}: {}", chain(&e))))?;
        let urls = config.base_url.iter().map(|u| format!("{}/chat/completions", u.trim_end_matches('/'))).collect();
        let health = Health::new(config.base_url.len());
        Ok(Endpoint { client, config: config.clone(), urls, health, deadline: Duration::MAX })
    }

    /// Returns the endpoint with a deadline for each request including its retries.
    pub fn with_deadline(self, deadline: Duration) -> Endpoint {
        Endpoint { deadline, ..self }
    }

    /// Returns the first address, in a form that is safe to display.
    pub fn url(&self) -> String {
        secrets::without_userinfo(&self.urls[0]).into_owned()
    }

    /// Returns the maximum number of concurrent requests in the config.
    pub fn concurrency(&self) -> usize {
        self.config.concurrency
    }

    /// Sends a request body, with as many retries as the config and the deadline allow. `item` spreads requests over
    /// the addresses.
    pub async fn complete(&self, body: &Arc<str>, item: usize) -> std::result::Result<Completion, Failure> {
        let end = Instant::now().checked_add(self.deadline);
        let left = || end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        let mut attempt = 0;
        loop {
            let address = self.health.choose(item.wrapping_add(attempt) % self.urls.len(), std::time::Instant::now());
            let url = &self.urls[address];
            let once = tokio::time::timeout(left(), self.once(url, body)).await;
            let once = once.unwrap_or_else(|_| Err(Failure::Passing(self.late(), None)));
            // A server that requests a delay is healthy.
            let answered = !matches!(once, Err(Failure::Passing(_, None)));
            self.health.record(address, answered, std::time::Instant::now());
            let (what, asked) = match once {
                Err(Failure::Passing(what, asked)) if attempt < self.config.max_retries => (what, asked),
                done => return done,
            };
            let wait = wait(body, attempt, asked);
            if wait >= left() {
                return Err(Failure::Passing(format!("{what}; {}", self.late()), None));
            }
            tracing::debug!("{url}: {what}; trying again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    fn late(&self) -> String {
        format!("no answer within {} s", self.deadline.as_secs_f64())
    }

    async fn once(&self, url: &str, body: &Arc<str>) -> std::result::Result<Completion, Failure> {
        let passing = |e: reqwest::Error| Failure::Passing(chain(&e), None);
        let mut request =
            self.client.post(url).header("content-type", "application/json").body(body.as_bytes().to_vec());
        if let Some(key) = &self.config.api_key.0 {
            request = request.bearer_auth(key);
        }
        let mut reply = request.send().await.map_err(passing)?;
        let status = reply.status();
        let seconds = reply.headers().get("retry-after").and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await.map_err(passing)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST_REPLY {
                return Err(Failure::Passing(format!("a reply of more than {LARGEST_REPLY} bytes"), None));
            }
        }
        if status.is_success() {
            return completion(&bytes).map_err(|what| Failure::Passing(what, None));
        }
        // The text is redacted before it is shortened, so that no secret is cut in two and missed.
        let text = String::from_utf8_lossy(&bytes);
        let text: String = secrets::redacted(text.trim()).chars().take(300).collect();
        let what = format!("status {status}: {text}");
        Err(match status.as_u16() {
            401 | 403 | 404 | 405 => Failure::Fatal(Error::Server { url: url.to_owned(), what }),
            408 | 425 | 429 | 500.. => Failure::Passing(what, seconds.map(Duration::from_secs)),
            _ => Failure::Refused(what),
        })
    }
}

/// Returns the delay before attempt `attempt + 1` of `request`: the delay that the server requested (`asked`),
/// otherwise a delay that doubles each time; at most a minute.
pub(crate) fn wait(request: &str, attempt: usize, asked: Option<Duration>) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << attempt.min(16)).mul_f64(jitter(request, attempt));
    asked.unwrap_or(doubled).min(LONGEST_WAIT)
}

/// Returns a factor between 0.5 and 1.5, by Philox from the process id, the request and the attempt. It prevents
/// requests and processes that failed together from retrying together.
fn jitter(body: &str, attempt: usize) -> f64 {
    let hash = blake3::hash(body.as_bytes());
    let (hash, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    let request = u64::from_le_bytes(*hash).wrapping_add(attempt as u64);
    0.5 + Random::new(u64::from(std::process::id()), Purpose::Backoff, request).uniform_f64()
}

/// Formats an error with its causes, because reqwest's own text contains only the address.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    secrets::redacted(&text).into_owned()
}

fn completion(bytes: &[u8]) -> std::result::Result<Completion, String> {
    let reply: Value = serde_json::from_slice(bytes).map_err(|e| format!("the reply is not JSON: {e}"))?;
    let choice = reply["choices"].get(0).ok_or("the reply has no choices")?;
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
    fn waits_differ_between_requests_and_attempts() {
        let waits = [jitter("a", 0), jitter("a", 1), jitter("b", 0)];
        assert!(waits.iter().all(|w| (0.5..1.5).contains(w)), "{waits:?}");
        assert!(waits[0] != waits[1] && waits[0] != waits[2], "{waits:?}");
        assert_eq!(waits[0], jitter("a", 0));
    }

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
    }

    #[test]
    fn addresses_are_checked() {
        for bad in [vec![], vec!["localhost:8000".to_owned()], vec!["ftp://x/v1".to_owned()]] {
            let config = EndpointConfig { base_url: bad, model: "m".into(), ..EndpointConfig::default() };
            assert!(Endpoint::new(&config, "teacher").is_err_and(|e| e.to_string().contains("teacher.base_url")));
        }
    }
}
