//! Errors of requests, in the form that clients of OpenAI's API expect.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use omr_base::error::Error;

/// `Result` of a request.
pub type Api<T> = std::result::Result<T, ApiError>;

/// An error that one request receives. It never ends the server.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// Status of the response.
    pub status: StatusCode,
    /// Description for users.
    pub message: String,
    /// The request field that is wrong.
    pub param: Option<String>,
    /// Machine-readable code.
    pub code: Option<&'static str>,
    /// Seconds after which the client may try again.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// Creates an error with a status and a message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError { status, message: message.into(), param: None, code: None, retry_after: None }
    }

    /// Creates the error of the request field `param`: status 400, `param: found X, expected Y`.
    pub fn field(
        param: impl Into<String>,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> ApiError {
        let param = param.into();
        let message = format!("{param}: found {found}, expected {expected}");
        ApiError { param: Some(param), ..ApiError::new(StatusCode::BAD_REQUEST, message) }
    }

    /// Creates the error of a prompt that does not leave room for the requested tokens.
    pub fn context(param: &str, found: String, max_model_len: usize) -> ApiError {
        let expected = format!("at most max_model_len={max_model_len} tokens for the prompt and the answer");
        ApiError { code: Some("context_length_exceeded"), ..ApiError::field(param, found, expected) }
    }

    /// Creates the error of a request that the server may accept later.
    pub fn busy(status: StatusCode, message: &str, seconds: u32) -> ApiError {
        ApiError { retry_after: Some(seconds), ..ApiError::new(status, message) }
    }

    /// Creates the error of a fault in the server. Its details are only logged, because they may contain paths.
    pub fn internal(error: &Error) -> ApiError {
        tracing::error!("a request failed: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed to answer; its log contains the reason")
    }

    /// Creates the error of the request field `param`, whose value the program refuses with `error`.
    pub fn refused(param: &str, error: Error) -> ApiError {
        match error {
            Error::Input { found, expected, .. } => ApiError::field(param, found, expected),
            other => ApiError::internal(&other),
        }
    }

    /// Creates the error of a request field that is read as a config key.
    pub fn refused_key(error: Error) -> ApiError {
        match error {
            Error::Input { place, found, expected, .. } => ApiError::field(place, found, expected),
            other => ApiError::internal(&other),
        }
    }

    /// Returns the body of the response.
    pub fn json(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.json())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
