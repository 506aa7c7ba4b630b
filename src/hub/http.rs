//! HTTP requests to the hub. Redirects are followed manually so that a token is never sent to another host. Failed
//! requests are retried after increasing random delays.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};

use super::Settings;
use crate::bounds::excess;
use crate::client::{self, chain};
use crate::error::{Error, Result};

/// Maximum size of a JSON reply in bytes.
const LARGEST_REPLY: usize = 64 << 20;
/// Maximum number of redirects followed per request.
const MOST_REDIRECTS: usize = 8;
/// Time without data after which a connection is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// Maximum number of attempts for a request. For the content of a file, an attempt that receives data resets the
/// number.
pub(super) const TRIES: usize = 6;

/// HTTP client for one hub.
pub(super) struct Http {
    client: Client,
    endpoint: Url,
    token: Option<String>,
}

/// Reason why there is no reply.
#[derive(Debug)]
pub(super) enum Failure {
    /// A retry may succeed. Contains the error and the delay that the server requests.
    Passing(String, Option<Duration>),
    /// The server's final refusal.
    Status(Refusal),
    /// Every request will fail.
    Fatal(Error),
}

/// An error status that a retry does not change.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// Error code of the hub, such as `GatedRepo`.
    pub(super) code: String,
    /// Error message of the hub.
    pub(super) message: String,
}

/// A reply, and headers of the hub's redirects that led to it.
pub(super) struct Reply {
    pub(super) response: Response,
    /// `X-Linked-Etag` and `X-Linked-Size`, which are on the hub's redirect and not on the other host's reply.
    pub(super) linked: HeaderMap,
}

impl Http {
    pub(super) fn new(settings: &Settings) -> Result<Http> {
        // If another caller has already installed a provider, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .user_agent(concat!("omr/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(30))
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none());
        if settings.endpoint.host_str().is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host)) {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| Error::Failed(format!("the hub's client: {}", chain(&e))))?;
        Ok(Http { client, endpoint: settings.endpoint.clone(), token: settings.token.clone() })
    }

    /// Returns the address of a path under the endpoint. The parts are escaped.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Requests a url from byte `from` on, and follows redirects. Any status except success is a [`Failure`].
    pub(super) async fn get(&self, url: &Url, from: u64) -> std::result::Result<Reply, Failure> {
        let (mut url, mut linked) = (url.clone(), HeaderMap::new());
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.client.get(url.clone()).header("accept-encoding", "identity");
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let own = url.origin() == self.endpoint.origin();
            if let Some(token) = self.token.as_ref().filter(|_| own) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.send().await.map_err(|e| Failure::Passing(chain(&e), None))?;
            if own {
                let of_file = response.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-linked-"));
                linked.extend(of_file.map(|(name, value)| (name.clone(), value.clone())));
            }
            if !response.status().is_redirection() {
                return answered(response, linked).await;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let weaker = |next: &Url| url.scheme() == "https" && next.scheme() != "https";
            match next.filter(|next| ["http", "https"].contains(&next.scheme()) && !weaker(next)) {
                Some(next) => url = next,
                None => {
                    let what = format!("a redirect to {}", location.unwrap_or("nowhere"));
                    return Err(Failure::Fatal(Error::Server { url: url.to_string(), what }));
                }
            }
        }
        let what = format!("more than {MOST_REDIRECTS} redirects");
        Err(Failure::Fatal(Error::Server { url: url.to_string(), what }))
    }

    /// Requests a small JSON reply with its headers, and retries if necessary.
    pub(super) async fn json(&self, url: &Url) -> std::result::Result<(serde_json::Value, HeaderMap), Failure> {
        let mut attempt = 0;
        loop {
            let once = async {
                let mut reply = self.get(url, 0).await?.response;
                let headers = reply.headers().clone();
                let mut bytes = Vec::new();
                while let Some(chunk) = reply.chunk().await.map_err(|e| Failure::Passing(chain(&e), None))? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > LARGEST_REPLY {
                        let what = format!("a reply of more than {LARGEST_REPLY} bytes");
                        return Err(Failure::Fatal(Error::Server { url: url.to_string(), what }));
                    }
                }
                if let Some(what) = excess(&bytes) {
                    return Err(Failure::Fatal(Error::Server { url: url.to_string(), what }));
                }
                let value = serde_json::from_slice(&bytes);
                value.map(|value| (value, headers)).map_err(|e| Failure::Passing(format!("no JSON: {e}"), None))
            };
            match once.await {
                Err(Failure::Passing(what, asked)) if attempt + 1 < TRIES => {
                    tracing::debug!("{url}: {what}; trying again");
                    tokio::time::sleep(client::wait(url.as_str(), attempt, asked)).await;
                    attempt += 1;
                }
                done => return done,
            }
        }
    }
}

async fn answered(response: Response, linked: HeaderMap) -> std::result::Result<Reply, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(Reply { response, linked });
    }
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let (code, mut message) = (header("x-error-code"), header("x-error-message"));
    let asked = header(RETRY_AFTER.as_str()).trim().parse().ok().map(Duration::from_secs);
    if message.is_empty() {
        message = error_message(response).await;
    }
    Err(match status.as_u16() {
        408 | 425 | 429 | 500.. => Failure::Passing(format!("status {status}: {message}"), asked),
        _ => Failure::Status(Refusal { status, code, message }),
    })
}

/// Returns the beginning of a refusal's message.
async fn error_message(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > 4096 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let error = serde_json::from_str::<serde_json::Value>(&text).ok();
    let error = error.and_then(|value| value.get("error")?.as_str().map(str::to_owned));
    error.unwrap_or_else(|| text.trim().to_owned()).chars().take(200).collect()
}
