//! HTTP requests to the hub. Redirects are followed manually so that a token is never sent to another host. Failed
//! requests are retried after increasing random delays.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use super::Settings;
use super::part::Part;
use crate::bounds::excess;
use crate::client::{self, chain};
use crate::error::{Error, Result};

/// Maximum size of a JSON reply in bytes.
const LARGEST_REPLY: usize = 64 << 20;
/// Maximum number of redirects followed per request.
const MOST_REDIRECTS: usize = 8;
/// Time without data after which a connection is given up.
const SILENCE: Duration = Duration::from_secs(60);
/// Time in which a request with a body must be answered, because the hub assembles large files. Parts of files have more
/// time, at the lowest useful speed in bytes per second.
const REPLY: Duration = Duration::from_secs(300);
const SLOWEST: u64 = 50_000;
/// Maximum number of attempts for a request. For the content of a file, an attempt that receives data resets the
/// number.
pub(super) const TRIES: usize = 6;

/// HTTP client for one hub.
pub(super) struct Http {
    client: Client,
    /// Client for requests with bodies. They are sent before a reply can arrive, so the limit of `client` is too short.
    sender: Client,
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

/// Body of a request.
pub(super) enum Body {
    /// Text of a media type.
    Text(&'static str, String),
    /// Part of a file.
    Part(Part),
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
        let new = || {
            let client = Client::builder()
                .user_agent(concat!("omr/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_secs(30))
                .redirect(reqwest::redirect::Policy::none());
            let host = settings.endpoint.host_str().unwrap_or_default();
            if ["localhost", "127.0.0.1", "[::1]"].contains(&host) { client.no_proxy() } else { client }
        };
        let built = |client: ClientBuilder| {
            client.build().map_err(|e| Error::Failed(format!("the hub's client: {}", chain(&e))))
        };
        let (client, sender) = (built(new().read_timeout(SILENCE))?, built(new())?);
        Ok(Http { client, sender, endpoint: settings.endpoint.clone(), token: settings.token.clone() })
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
            request = self.authorized(request, &url);
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

    /// Adds the token to a request to the hub itself.
    fn authorized(&self, request: RequestBuilder, url: &Url) -> RequestBuilder {
        match self.token.as_ref().filter(|_| url.origin() == self.endpoint.origin()) {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// Returns an address from a reply of the hub. Returns `None` if it is not an address, or if it is not encrypted
    /// although the hub's is.
    pub(super) fn linked(&self, address: &Value) -> Option<Url> {
        let url = Url::parse(address.as_str()?).ok()?;
        (url.scheme() == "https" || url.scheme() == self.endpoint.scheme()).then_some(url)
    }

    /// Requests a small JSON reply with its headers, and retries if necessary.
    pub(super) async fn json(&self, url: &Url) -> std::result::Result<(Value, HeaderMap), Failure> {
        retried(url, || async {
            let reply = self.get(url, 0).await?.response;
            let headers = reply.headers().clone();
            Ok((parsed(reply, url).await?, headers))
        })
        .await
    }

    /// Sends a request with a body, and retries if necessary. Redirects are not followed.
    pub(super) async fn send(&self, method: Method, url: &Url, body: &Body) -> std::result::Result<Response, Failure> {
        retried(url, || async {
            let request = self.authorized(self.sender.request(method.clone(), url.clone()), url);
            let request = match body {
                Body::Text(kind, text) => request.header(CONTENT_TYPE, *kind).header(ACCEPT, *kind).body(text.clone()),
                Body::Part(part) => request.header(CONTENT_LENGTH, part.len).body(part.body().map_err(Failure::Fatal)?),
            };
            let size = if let Body::Part(part) = body { part.len } else { 0 };
            let limit = REPLY + Duration::from_secs(size / SLOWEST);
            let reply = request.timeout(limit).send().await.map_err(|e| Failure::Passing(chain(&e), None))?;
            Ok(answered(reply, HeaderMap::new()).await?.response)
        })
        .await
    }

    /// Sends text and returns the JSON of the reply.
    pub(super) async fn post(
        &self,
        url: &Url,
        kind: &'static str,
        text: String,
    ) -> std::result::Result<Value, Failure> {
        parsed(self.send(Method::POST, url, &Body::Text(kind, text)).await?, url).await
    }
}

/// Repeats a request after failures that may pass.
async fn retried<T, F>(url: &Url, once: impl Fn() -> F) -> std::result::Result<T, Failure>
where
    F: Future<Output = std::result::Result<T, Failure>>,
{
    let mut attempt = 0;
    loop {
        match once().await {
            Err(Failure::Passing(what, asked)) if attempt + 1 < TRIES => {
                tracing::debug!("{url}: {what}; trying again");
                tokio::time::sleep(client::wait(url.as_str(), attempt, asked)).await;
                attempt += 1;
            }
            done => return done,
        }
    }
}

/// Reads a small JSON reply.
async fn parsed(mut reply: Response, url: &Url) -> std::result::Result<Value, Failure> {
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
    serde_json::from_slice(&bytes).map_err(|e| Failure::Passing(format!("no JSON: {e}"), None))
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
