//! The page at `/`, and the routes with which it talks to a second server.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::body;
use super::errors::{Api, ApiError};
use super::requests::random_id;
use crate::error::{Error, Result};

const PAGE: &str = include_str!("page.html");
/// Time to connect to the second server.
const CONNECT: Duration = Duration::from_secs(10);

/// Settings of the page.
#[derive(Clone)]
pub struct Page {
    /// True if requests need a key.
    pub has_key: bool,
    /// `qwen3` or `none`.
    pub reasoning_parser: &'static str,
    /// The second server.
    pub compare: Option<Arc<Compare>>,
}

/// A second server, to which this one forwards the page's requests.
pub struct Compare {
    url: String,
    client: reqwest::Client,
}

impl Compare {
    /// Checks the address of the second server: everything before `/v1`.
    pub fn new(url: &str) -> Result<Compare> {
        let parsed = reqwest::Url::parse(url).ok().filter(|u| ["http", "https"].contains(&u.scheme()));
        if parsed.is_none_or(|url| url.query().is_some() || url.fragment().is_some()) {
            return Err(Error::input("--compare-url", url, "the http or https address of a server, without /v1"));
        }
        let url = url.trim_end_matches('/');
        // If another caller has already installed a provider, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder =
            || reqwest::Client::builder().connect_timeout(CONNECT).redirect(reqwest::redirect::Policy::none());
        // Plain http needs no certificates, so a system without them is accepted.
        let without =
            |e| if url.starts_with("http://") { builder().no_proxy().tls_certs_only([]).build() } else { Err(e) };
        let client = builder().build().or_else(without);
        let client = client.map_err(|e| Error::Failed(format!("--compare-url: {e}")))?;
        Ok(Compare { url: url.strip_suffix("/v1").unwrap_or(url).to_owned(), client })
    }
}

/// Returns the routes of the page.
pub fn routes(page: Page) -> Router {
    let mut routes = Router::new().route("/", get(index)).route("/config.json", get(config));
    if page.compare.is_some() {
        routes = routes
            .route("/compare/v1/models", get(forward))
            .route("/compare/v1/chat/completions", post(forward))
            .route("/compare/tokenize", post(forward));
    }
    routes.with_state(page)
}

async fn index() -> Api<Response> {
    let nonce = random_id()?;
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data: blob:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, PAGE.replace("{{nonce}}", &nonce)).into_response())
}

async fn config(State(page): State<Page>) -> Json<serde_json::Value> {
    let compare = page.compare.is_some();
    Json(json!({"compare": compare, "key": page.has_key, "reasoning_parser": page.reasoning_parser}))
}

/// Forwards a request to the second server and streams its answer back. The client's key is not forwarded.
async fn forward(State(page): State<Page>, request: Request) -> Api<Response> {
    let unreachable = |error: reqwest::Error| {
        tracing::warn!("--compare-url: {}", crate::client::chain(&error));
        ApiError::new(StatusCode::BAD_GATEWAY, "the second server does not answer")
    };
    let not_found = || ApiError::new(StatusCode::NOT_FOUND, "this server has no --compare-url");
    let compare = page.compare.clone().ok_or_else(not_found)?;
    let path = request.uri().path().strip_prefix("/compare").ok_or_else(not_found)?;
    let forwarded = compare.client.request(request.method().clone(), format!("{}{path}", compare.url));
    let forwarded = match request.method().is_safe() {
        true => forwarded,
        false => {
            forwarded.header(header::CONTENT_TYPE, "application/json").body(body::json(request).await?.to_string())
        }
    };
    let reply = forwarded.send().await.map_err(unreachable)?;
    // Another type could be a page that a browser runs in the origin of this server.
    let kind = reply.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !["application/json", "text/event-stream"].contains(&kind.as_str()) {
        let found = format!("the second server answers with the type {kind:?}, not with JSON or events");
        return Err(ApiError::new(StatusCode::BAD_GATEWAY, found));
    }
    let mut response = Response::builder().status(reply.status()).header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER, HeaderName::from_static("x-omr-seed")] {
        if let Some(value) = reply.headers().get(&name) {
            response = response.header(name, value);
        }
    }
    let chunks = futures_util::stream::unfold(reply, |mut reply| async move {
        let chunk = reply.chunk().await.transpose()?;
        Some((chunk, reply))
    });
    response.body(Body::from_stream(chunks)).map_err(|e| ApiError::internal(&Error::Failed(e.to_string())))
}
