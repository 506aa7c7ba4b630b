//! HTTP requests to other servers: clients, limits on replies, refusals as errors, and the delays of retries.

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, StatusCode, Url};
use serde_json::Value;

use crate::error::{Error, with_causes};
use crate::philox::{Purpose, Random};
use crate::secrets;

/// Maximum size of a JSON reply in bytes. An answer of 16,384 tokens is about a thousand times smaller.
pub const LARGEST_REPLY: usize = 64 << 20;

/// Delay before the first retry; it doubles with each retry.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Maximum delay before a retry, even if the server requests a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Number of bytes of a refusal that are read, and number of characters that are shown.
const REFUSAL_BYTES: usize = 64 << 10;
const REFUSAL_CHARS: usize = 300;

/// Reason why a request has no answer.
#[derive(Debug)]
pub enum Failure<R = String> {
    /// A retry may succeed. Contains the error and the delay that the server requests.
    Passing(String, Option<Duration>),
    /// The server refuses this request and would refuse it again.
    Refused(R),
    /// Every request will fail.
    Fatal(Error),
}

/// An error status that a retry does not change.
#[derive(Debug)]
pub struct Refusal {
    url: Url,
    /// Status of the reply.
    pub status: StatusCode,
    /// Headers of the reply.
    pub headers: HeaderMap,
    /// Error message of the server, shortened and without secrets.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message.as_str() {
            "" => write!(f, "status {}", self.status),
            message => write!(f, "status {}: {message}", self.status),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        server_error(&refusal.url, refusal.to_string())
    }
}

/// Creates the error of a server. It leaves out the query of the address, which may contain a signature.
pub fn server_error(url: &Url, what: impl Into<String>) -> Error {
    let mut url = url.clone();
    url.set_query(None);
    Error::Server { url: url.to_string(), what: what.into() }
}

/// Returns true if `host` is a name of this machine.
pub fn is_localhost(host: &str) -> bool {
    ["localhost", "127.0.0.1", "[::1]"].iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Creates a client that follows no redirects. Plain http needs no certificates, so if `is_plain` is true, a system
/// without them is accepted.
pub fn client(is_plain: bool, settings: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client, String> {
    // If another caller has already installed a provider, that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || settings(Client::builder().redirect(Policy::none()));
    let without = |e| if is_plain { builder().tls_certs_only([]).build() } else { Err(e) };
    builder().build().or_else(without).map_err(|e| described(&e))
}

/// Returns a reply with a success status. Any other status is a failure.
pub async fn answered(reply: Response) -> Result<Response, Failure<Refusal>> {
    if reply.status().is_success() {
        return Ok(reply);
    }
    let (url, status, headers) = (reply.url().clone(), reply.status(), reply.headers().clone());
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let text = body(reply, REFUSAL_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let json: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = match header("x-error-message") {
        "" => json["error"].as_str().unwrap_or(text.trim()),
        message => message,
    };
    // The text is redacted before it is shortened, so that no secret is cut in two and missed.
    let message = secrets::redacted(message).chars().take(REFUSAL_CHARS).collect();
    let asked = header(RETRY_AFTER.as_str()).trim().parse().ok().map(Duration::from_secs);
    let refusal = Refusal { url, status, headers, message };
    Err(match status.as_u16() {
        408 | 425 | 429 | 500.. => Failure::Passing(refusal.to_string(), asked),
        _ => Failure::Refused(refusal),
    })
}

/// Reads the body of a reply. Stops when it has more than `limit` bytes.
pub async fn body(mut reply: Response, limit: usize) -> reqwest::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() <= limit
        && let Some(chunk) = reply.chunk().await?
    {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Converts an error of a connection. A retry may succeed.
pub fn passing<R>(error: reqwest::Error) -> Failure<R> {
    Failure::Passing(described(&error), None)
}

/// Formats an error with its causes and without secrets.
fn described(error: &reqwest::Error) -> String {
    secrets::redacted(&with_causes(error)).into_owned()
}

/// Returns the delay before attempt `attempt + 1` of `request`: the delay that the server requested (`asked`),
/// otherwise a delay that doubles each time; at most a minute.
pub fn wait(request: &str, attempt: usize, asked: Option<Duration>) -> Duration {
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
}
