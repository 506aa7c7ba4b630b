//! Reads the body of a request within limits of size and time.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::errors::{Api, ApiError};
use omr_base::bounds;

/// Maximum bytes of a request, as in the facts of OpenAI's API for images.
pub const LARGEST: usize = 32 << 20;
/// Maximum time in which a client must send a request.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bodies of at most this many bytes are read at once. Larger ones share [`LARGE_BODIES`].
const SMALL: usize = 1 << 20;
/// MiB that all larger bodies together may take while they are received and parsed.
static LARGE_BODIES: Semaphore = Semaphore::const_new(128);

/// Reads a body that is a JSON text.
pub async fn json(request: Request) -> Api<Value> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    // Other types could be sent by a page of another origin without asking the server first.
    if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        let message = "the header Content-Type must be application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let (bytes, _permit) = bytes(request).await?;
    if let Some(found) = bounds::excess(&bytes) {
        return Err(ApiError::field("body", found, "fewer"));
    }
    serde_json::from_slice(&bytes).map_err(|e| ApiError::field("body", format!("text that is not JSON ({e})"), "JSON"))
}

/// Reads a body, with its part of [`LARGE_BODIES`].
async fn bytes(request: Request) -> Api<(axum::body::Bytes, Option<SemaphorePermit<'static>>)> {
    let large = || ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a request of more than {LARGEST} bytes"));
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|n| n.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > LARGEST) {
        return Err(large());
    }
    // The size of a chunked body is unknown.
    let most = length.unwrap_or(LARGEST);
    let read = tokio::time::timeout(PATIENCE, async {
        let permit = match most > SMALL {
            true => LARGE_BODIES.acquire_many(most.div_ceil(1 << 20) as u32).await.ok(),
            false => None,
        };
        axum::body::to_bytes(request.into_body(), LARGEST).await.map(|bytes| (bytes, permit))
    });
    match read.await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => {
            let is_large = std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("length limit"));
            Err(if is_large { large() } else { ApiError::field("body", "a broken transfer", "a complete request") })
        }
        Err(_) => Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request was not received in time")),
    }
}
