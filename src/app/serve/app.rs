//! State that all request handlers share.

use std::path::PathBuf;
use std::sync::{OnceLock, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::engine_client::EngineClient;
use super::errors::{Api, ApiError};
use super::fields::Fields;
use super::media::MediaRules;
use super::metrics::Metrics;
use super::record::Recorder;
use omr_base::config::ServeConfig;
use omr_data::image::Processor;
use omr_data::text::Chat;
use omr_model::nn::ModelConfig;
use omr_runtime::ops::sample::LogprobsMode;

/// Settings of a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Model directory.
    pub model: PathBuf,
    /// The model as the user named it.
    pub root: String,
    /// Engine settings.
    pub config: ServeConfig,
    /// Names of the model for requests. Empty uses `root`.
    pub names: Vec<String>,
    /// Name and directory of an adapter that requests may use.
    pub adapter: Option<(String, PathBuf)>,
    /// Keys of clients. Without keys, every client is accepted.
    pub api_keys: Vec<String>,
    /// Key of administrators.
    pub admin_api_key: Option<String>,
    /// True if reasoning is separated from answers.
    pub has_reasoning_parser: bool,
    /// Meaning of the log-probs of answers.
    pub logprobs_mode: LogprobsMode,
    /// True if a server without keys of clients answers only requests to `localhost`.
    pub only_localhost: bool,
    /// Origins whose web pages may use the server; `*` allows all.
    pub allowed_origins: Vec<String>,
    /// Domains from which images may be loaded.
    pub allowed_media_domains: Vec<String>,
    /// Folder below which `file://` images may be loaded.
    pub allowed_local_media_path: Option<PathBuf>,
    /// Maximum number of tokens of an answer whose request states none. `None` fills the context.
    pub max_tokens: Option<usize>,
    /// File to which requests are recorded.
    pub record_requests: Option<PathBuf>,
}

/// State that all request handlers share.
pub struct App {
    /// Tokenizer and chat template.
    pub chat: Chat,
    /// Image processor.
    pub processor: Option<Processor>,
    /// Configuration of the model.
    pub config: ModelConfig,
    /// Bitmap of the token ids that answers can contain. `None` means all ids.
    pub allowed: Option<Vec<u32>>,
    /// Sources of images.
    pub media: MediaRules,
    /// The engine thread.
    pub engine: EngineClient,
    /// Metrics.
    pub metrics: Metrics,
    /// Names of the model that requests may use. Answers contain the first one.
    pub names: Vec<String>,
    /// Settings of the server.
    pub options: Options,
    /// Maximum number of tokens of a prompt with its answer.
    pub max_model_len: usize,

    /// Start of the server in seconds since 1970.
    pub created: u64,
    /// File to which requests are recorded.
    pub recorder: Option<Recorder>,
    /// Everything besides the weights that answers depend on: device, kernel variants, data type, image sizes and JPEG
    /// decoder. Set when the model is loaded.
    pub arithmetic: OnceLock<String>,
    /// Hash of the weights and of the other files of the model directory.
    pub weights: RwLock<String>,
}

impl App {
    /// Takes the field `model` of a request and returns the name for the answer. Errors if it names another model.
    pub fn take_model(&self, fields: &mut Fields) -> Api<String> {
        let adapter = self.options.adapter.as_ref().map(|(name, _)| name);
        match fields.string("model")? {
            Some(name) if adapter == Some(&name) => Ok(name),
            Some(name) if !self.names.contains(&name) => Err(self.unknown_model(&name)),
            _ => Ok(self.names[0].clone()),
        }
    }

    /// Returns the error of a request for the model `name`, which the server does not have.
    pub fn unknown_model(&self, name: &str) -> ApiError {
        let adapter = self.options.adapter.as_ref().map(|(name, _)| name);
        let known: Vec<&str> = self.names.iter().chain(adapter).map(String::as_str).collect();
        let message = format!("the model {name:?} does not exist; this server has {}", known.join(", "));
        let (param, code) = (Some("model".to_owned()), Some("model_not_found"));
        ApiError { param, code, ..ApiError::new(StatusCode::NOT_FOUND, message) }
    }

    /// Returns the value that names weights and arithmetic. Equal requests with equal seeds get equal answers from
    /// servers with equal values.
    pub fn fingerprint(&self) -> String {
        format!("{}-{}", self.weights(), self.arithmetic().replace(' ', "-"))
    }

    /// Records the hash of new weights.
    pub fn set_weights(&self, identity: &str) {
        *self.weights.write().unwrap_or_else(PoisonError::into_inner) = identity.to_owned();
    }

    fn arithmetic(&self) -> &str {
        self.arithmetic.get().map_or("", String::as_str)
    }

    /// Returns the hash of the weights and of the other files of the model directory.
    pub fn weights(&self) -> String {
        self.weights.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the answer of `/weight_info`.
    pub fn weight_info(&self) -> Value {
        json!({"weights": self.weights(), "arithmetic": self.arithmetic(), "system_fingerprint": self.fingerprint()})
    }
}

/// Returns the time in seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
