//! The page at `/`.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use super::errors::Api;
use super::requests::random_id;

const PAGE: &str = include_str!("page.html");

/// Returns the routes of the page, whose settings are `config`.
pub fn routes(config: Value) -> Router {
    Router::new().route("/", get(index)).route("/config.json", get(async || Json(config)))
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
