//! HTTP requests to the hub. Redirects are followed manually so that a token is never sent to another host. Failed
//! requests are retried after increasing random delays.

use std::time::Duration;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RANGE,
};
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use serde_json::Value;

use super::Settings;
use super::part::Part;
use crate::bounds::excess;
use crate::client::web::{self, LARGEST_REPLY, Refusal, server_error};
use crate::error::{Error, Result};

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

/// Reason why there is no reply.
pub(super) type Failure = web::Failure<Refusal>;
pub(super) type Attempt<T> = std::result::Result<T, Failure>;

/// Client of a hub.
pub(super) struct Hub {
    client: Client,
    /// Client for requests with bodies. They are sent before a reply can arrive, so the limit of `client` is too short.
    sender: Client,
    endpoint: Url,
    pub(super) token: Option<String>,
}

impl Hub {
    /// Creates a client with these settings.
    pub(super) fn new(settings: &Settings) -> Result<Hub> {
        let host = settings.endpoint.host_str().unwrap_or_default();
        let new = |silence: Option<Duration>| {
            let client = web::client(settings.endpoint.scheme() == "http", |client| {
                let client = client
                    .user_agent(concat!("omr/", env!("CARGO_PKG_VERSION")))
                    .connect_timeout(Duration::from_secs(30));
                let client = if let Some(silence) = silence { client.read_timeout(silence) } else { client };
                if web::is_localhost(host) { client.no_proxy() } else { client }
            });
            client.map_err(|e| Error::Failed(format!("the hub's client: {e}")))
        };
        let (client, sender) = (new(Some(SILENCE))?, new(None)?);
        Ok(Hub { client, sender, endpoint: settings.endpoint.clone(), token: settings.token.clone() })
    }

    /// Returns the address of a path under the endpoint. The parts are escaped.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    /// Returns true if `url` is on the hub itself. Only such addresses receive the token.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.endpoint.origin()
    }

    /// Requests a url from byte `from` on, and follows redirects. Also returns the headers of the hub's own replies,
    /// such as `X-Linked-Etag`, which the reply of another host does not have.
    pub(super) async fn get(&self, url: &Url, from: u64) -> Attempt<(Response, HeaderMap)> {
        let (mut url, mut own) = (url.clone(), HeaderMap::new());
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.authorized(self.client.get(url.clone()), &url).header(ACCEPT_ENCODING, "identity");
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send().await.map_err(web::passing)?;
            if self.is_own(&url) {
                own.extend(response.headers().clone());
            }
            if !response.status().is_redirection() {
                return Ok((web::answered(response).await?, own));
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.filter(|next| is_safe(&url, next)).ok_or_else(|| {
                Failure::Fatal(server_error(&url, format!("a redirect to {}", location.unwrap_or("nowhere"))))
            })?;
        }
        Err(Failure::Fatal(server_error(&url, format!("more than {MOST_REDIRECTS} redirects"))))
    }

    /// Adds the token to a request to the hub itself.
    fn authorized(&self, request: RequestBuilder, url: &Url) -> RequestBuilder {
        match self.token.as_ref().filter(|_| self.is_own(url)) {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// Returns an address from a reply of the hub. Returns `None` if it is not an address, or if it is not encrypted
    /// although the hub's is.
    pub(super) fn linked(&self, address: &Value) -> Option<Url> {
        Url::parse(address.as_str()?).ok().filter(|url| is_safe(&self.endpoint, url))
    }

    /// Requests a small JSON reply with its headers, and retries if necessary.
    pub(super) async fn json(&self, url: &Url) -> Attempt<(Value, HeaderMap)> {
        retried(url, || async {
            let (reply, _) = self.get(url, 0).await?;
            let headers = reply.headers().clone();
            Ok((parsed(reply).await?, headers))
        })
        .await
    }

    /// Sends text and returns the JSON of the reply.
    pub(super) async fn post(&self, url: &Url, kind: &str, text: &str) -> Attempt<Value> {
        parsed(self.send_text(url, kind, text).await?).await
    }

    /// Sends text of a media type.
    pub(super) async fn send_text(&self, url: &Url, kind: &str, text: &str) -> Attempt<Response> {
        let filled =
            |request: RequestBuilder| Ok(request.header(CONTENT_TYPE, kind).header(ACCEPT, kind).body(text.to_owned()));
        self.send(Method::POST, url, filled).await
    }

    /// Sends part of a file. It has more time than other requests.
    pub(super) async fn send_part(&self, url: &Url, part: &Part) -> Attempt<Response> {
        let limit = REPLY + Duration::from_secs(part.len / SLOWEST);
        let filled =
            |request: RequestBuilder| Ok(request.timeout(limit).header(CONTENT_LENGTH, part.len).body(part.body()?));
        self.send(Method::PUT, url, filled).await
    }

    /// Sends a request, to which `filled` adds a body, and retries if necessary. Redirects are not followed.
    async fn send<F>(&self, method: Method, url: &Url, filled: F) -> Attempt<Response>
    where
        F: Fn(RequestBuilder) -> Result<RequestBuilder>,
    {
        retried(url, || async {
            let request = self.authorized(self.sender.request(method.clone(), url.clone()), url).timeout(REPLY);
            web::answered(filled(request).map_err(Failure::Fatal)?.send().await.map_err(web::passing)?).await
        })
        .await
    }
}

/// Returns the conversion of a failure of a request to `url` into an error.
pub(super) fn failed(url: &Url) -> impl FnOnce(Failure) -> Error {
    move |failure| match failure {
        Failure::Fatal(error) => error,
        Failure::Refused(refusal) => refusal.into(),
        Failure::Passing(what, _) => server_error(url, what),
    }
}

/// Returns true if an address that `from` leads to may be used: it must be encrypted, or both are plain http.
fn is_safe(from: &Url, to: &Url) -> bool {
    to.scheme() == "https" || (to.scheme() == "http" && from.scheme() == "http")
}

/// Repeats a request after failures that may pass.
async fn retried<T, F: Future<Output = Attempt<T>>>(url: &Url, once: impl Fn() -> F) -> Attempt<T> {
    let mut attempt = 0;
    loop {
        match once().await {
            Err(Failure::Passing(what, asked)) if attempt + 1 < TRIES => {
                tracing::debug!("{url}: {what}; trying again");
                tokio::time::sleep(web::wait(url.as_str(), attempt, asked)).await;
                attempt += 1;
            }
            done => return done,
        }
    }
}

/// Reads a small JSON reply.
async fn parsed(reply: Response) -> Attempt<Value> {
    let url = reply.url().clone();
    let bytes = web::body(reply, LARGEST_REPLY).await.map_err(web::passing)?;
    let is_long = (bytes.len() > LARGEST_REPLY).then(|| format!("a reply of more than {LARGEST_REPLY} bytes"));
    if let Some(what) = is_long.or_else(|| excess(&bytes)) {
        return Err(Failure::Fatal(server_error(&url, what)));
    }
    serde_json::from_slice(&bytes).map_err(|e| Failure::Passing(format!("no JSON: {e}"), None))
}
