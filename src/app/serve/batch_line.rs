//! A line of a file of questions: how it becomes a request, and how its answer or its error is written. Lines of
//! OpenAI's batch API are answered as the server answers their bodies; other lines are questions in the form of rows.

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Delta};
use super::app::App;
use super::errors::{Api, ApiError};
use super::fields::Fields;
use super::format;
use super::requests::{Prepared, Route, prepare, question};
use super::sampling::NAMES;
use omr_base::error::{Error, Result};
use omr_data::rows::files::folder::Folder;
use omr_data::rows::readers::json::Layout;
use omr_model::llm::{Line, Reader};

/// The common parts of the lines of a file.
pub struct Lines {
    /// State of the server that answers them.
    pub app: Arc<App>,
    /// Converts questions to prompts.
    pub reader: Reader,
    /// Folder of the file, which contains the images.
    pub folder: Folder,
    /// The file.
    pub file: PathBuf,
    /// Hash of the file, of which the ids of answers are made.
    pub hash: String,
    /// Sampling parameters that lines do not state.
    pub parameters: Map<String, Value>,
    /// Variables of the chat template that lines do not state.
    pub variables: Map<String, Value>,
    /// Seed of the lines without one.
    pub seed: u64,
    /// Time of the first start in seconds since 1970, which answers contain.
    pub created: u64,
}

/// Position of a line in the file.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// Number of the line, from 1.
    pub number: u64,
    /// Byte at which it begins.
    pub offset: u64,
    /// Number of answers.
    pub choices: usize,
    /// [`content`] when the line was first read.
    pub content: blake3::Hash,
}

/// Returns a hash of a line and of the pixels of its images, of which the answer is made.
pub fn content(line: &Line, request: &Prepared) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&serde_json::to_vec(line).unwrap_or_default());
    for image in request.prompts.iter().flat_map(|(prompt, _)| &prompt.images) {
        hasher.update(&image.key);
    }
    hasher.finalize()
}

/// Fields of requests that a plain question cannot have.
const UNREAD: &str = "logprobs top_logprobs prompt_logprobs chat_template_kwargs response_format structured_outputs \
    guided_json guided_regex guided_choice bad_words best_of use_beam_search echo";

/// The written answer to a line, or its error.
pub struct Outcome {
    /// The line.
    pub spot: Spot,
    /// The line of the output.
    pub value: Value,
    /// Number of generated tokens.
    pub tokens: usize,
    /// The error, if the line is skipped.
    pub error: Option<String>,
}

/// The reason why a line has no answer.
pub enum Failure {
    /// The line is wrong. The other lines are answered.
    Line(ApiError),
    /// The run cannot continue.
    Run(Error),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        match error.status {
            // The engine has ended, or accepts nothing new after a stop request.
            StatusCode::SERVICE_UNAVAILABLE => Failure::Run(Error::Stopped),
            _ => Failure::Line(error),
        }
    }
}

impl Lines {
    /// Converts a line to a request.
    pub async fn request(self: &Arc<Lines>, spot: Spot) -> std::result::Result<(Line, Prepared), Failure> {
        let place = format!("line {}", spot.number);
        let line = Layout::Lines.object(&self.file.as_path().into(), spot.offset, &place).map_err(Failure::Run)?;
        let line = line.map_err(|error| self.refused(spot, error))?;
        let mut prepared = match is_batch(&line) {
            true => self.batch(spot, line.clone()).await?,
            false => {
                let (lines, fields) = (self.clone(), line.clone());
                let parsed = tokio::task::spawn_blocking(move || lines.question(spot, fields)).await;
                parsed.map_err(|_| Failure::Run(Error::Failed(format!("the parser of {place} panicked"))))??
            }
        };
        prepared.created = self.created;
        Ok((line, prepared))
    }

    /// Answers a line. Errors only if the run cannot continue.
    pub async fn answer(self: &Arc<Lines>, spot: Spot) -> Result<Outcome> {
        match self.answered(spot).await {
            Ok(outcome) => Ok(outcome),
            Err(Failure::Run(error)) => Err(error),
            Err(Failure::Line(error)) => {
                let line = Layout::Lines.object(&self.file.as_path().into(), spot.offset, "")?;
                Ok(self.skipped(spot, line.unwrap_or_default(), &error))
            }
        }
    }

    async fn answered(self: &Arc<Lines>, spot: Spot) -> std::result::Result<Outcome, Failure> {
        let (mut line, request) = self.request(spot).await?;
        if content(&line, &request) != spot.content {
            let place = format!("{} line {}", self.file.display(), spot.number);
            let found = "another question or other images than when the command began";
            return Err(Failure::Run(Error::input(place, found, "files that do not change while they are read")));
        }
        let is_batch = is_batch(&line);
        let mut answer = Answer::begin(&self.app, request)?;
        let value = if is_batch {
            let mut body = format::whole(&self.app, &mut answer).await?;
            // It depends on the other lines.
            body["usage"].as_object_mut().map(|usage| usage.shift_remove("prompt_tokens_details"));
            let response = json!({"status_code": 200, "request_id": body["id"], "body": body});
            json!({"id": self.batch_id(spot), "custom_id": line["custom_id"], "response": response, "error": null})
        } else {
            let choices = answer.choices().await?;
            // The line may come from an output with errors.
            line.shift_remove("error");
            add_choices(&mut line, &choices);
            Value::Object(line)
        };
        if answer.was_aborted {
            return Err(Failure::Run(Error::Stopped));
        }
        let tokens = answer.usage()["completion_tokens"].as_u64().unwrap_or(0) as usize;
        Ok(Outcome { spot, value, tokens, error: None })
    }

    /// Parses a line of OpenAI's batch API.
    async fn batch(&self, spot: Spot, line: Line) -> Api<Prepared> {
        let mut fields = Fields::new(Value::Object(line), "")?;
        let Some(Value::Object(mut body)) = fields.take("body") else {
            return Err(ApiError::field("body", "no object", "a request"));
        };
        if fields.string("custom_id")?.is_none() {
            return Err(ApiError::field("custom_id", "nothing", "a string"));
        }
        fields.only(&[("method", json!("POST"))], "requests generate answers")?;
        let routes = Route::ALL.iter().map(|(path, _)| *path).collect::<Vec<_>>().join(", ");
        let route = fields.read("url", &routes, |url| url.as_str()?.parse().ok())?;
        let route = route.ok_or_else(|| ApiError::field("url", "nothing", routes))?;
        fields.end()?;
        for (name, expected) in [("stream", json!(false)), ("request_id", Value::Null)] {
            if let Some(found) = body.get(name).filter(|value| !value.is_null() && **value != expected) {
                return Err(ApiError::field(name, found, format!("{expected} in a batch")));
            }
        }
        // The model is the one of the command, which reports other names.
        body.shift_remove("model");
        body.insert("request_id".to_owned(), json!(self.id(spot)));
        if route == Route::Chat {
            match body.entry("chat_template_kwargs").or_insert(Value::Null) {
                Value::Object(stated) => self.variables.iter().for_each(|(name, value)| {
                    stated.entry(name).or_insert_with(|| value.clone());
                }),
                stated if stated.is_null() => *stated = self.variables.clone().into(),
                _ => {}
            }
        }
        let parameters = match route {
            Route::Generate => body.entry("sampling_params").or_insert_with(|| json!({})).as_object_mut(),
            _ => Some(&mut body),
        };
        parameters.into_iter().for_each(|parameters| self.complete(parameters, spot));
        prepare(&self.app, route, Value::Object(body)).await
    }

    /// Parses a question in the form of a row.
    fn question(&self, spot: Spot, line: Line) -> std::result::Result<Prepared, Failure> {
        let has = |name: &str| line.get(name).is_some_and(|value| !value.is_null());
        // Files of `omr score` have a list `logprobs`.
        let is_unread = |name: &&str| has(name) && (*name != "logprobs" || !line[*name].is_array());
        if let Some(name) = UNREAD.split(' ').find(is_unread) {
            let expected =
                "a batch line {custom_id, method, url, body}, whose body may have it if the server supports it";
            return Err(ApiError::field(name, &line[name], expected).into());
        }
        if has("prompt") && has("messages") {
            return Err(ApiError::field("prompt", &line["prompt"], "only one of prompt and messages").into());
        }
        let given = |name: &str| Some((name.to_owned(), line.get(name)?.clone()));
        let names = NAMES.split(' ').chain(["max_tokens", "max_completion_tokens"]);
        let mut parameters: Map<String, Value> = names.filter_map(given).collect();
        self.complete(&mut parameters, spot);
        let mut fields = Fields::new(Value::Object(parameters), "")?;
        let place = format!("{} line {}", self.file.display(), spot.number);
        let prompt = self.reader.line(&self.folder, line, &place).map_err(|error| self.refused(spot, error))?;
        Ok(Prepared { id: self.id(spot), ..question(&self.app, &mut fields, prompt)? })
    }

    /// Adds the parameters that a line does not state. Its seed depends on its number, so that equal questions have
    /// different answers.
    fn complete(&self, parameters: &mut Map<String, Value>, spot: Spot) {
        let key = [self.seed.to_le_bytes(), spot.number.to_le_bytes()].concat();
        let [a, b, c, d, e, f, ..] = *blake3::hash(&key).as_bytes();
        let seed = ("seed".to_owned(), json!(u64::from_le_bytes([a, b, c, d, e, f, 0, 0])));
        for (name, value) in self.parameters.clone().into_iter().chain([seed]) {
            let is_drawn = |value: &Value| value.is_null() || name == "seed" && *value == -1;
            if parameters.get(&name).is_none_or(is_drawn) {
                parameters.insert(name, value);
            }
        }
    }

    /// Writes the error of a line in its place.
    fn skipped(&self, spot: Spot, mut line: Line, error: &ApiError) -> Outcome {
        let described = error.json()["error"].take();
        let value = if is_batch(&line) {
            json!({"id": self.batch_id(spot), "custom_id": line.get("custom_id"), "response": null, "error": described})
        } else {
            if line.is_empty() {
                line.insert("line".to_owned(), json!(spot.number));
            }
            line.insert("error".to_owned(), described);
            Value::Object(line)
        };
        Outcome { spot, value, tokens: 0, error: Some(error.message.clone()) }
    }

    /// Returns the id of an answer, the same each time.
    fn id(&self, spot: Spot) -> String {
        blake3::hash(format!("{} {}", self.hash, spot.number).as_bytes()).to_hex()[..32].to_owned()
    }

    fn batch_id(&self, spot: Spot) -> String {
        format!("batch_req_{}", self.id(spot))
    }

    /// Returns the error of a line that cannot be read, without its place. An error of the system ends the run, because
    /// another attempt might read the line.
    fn refused(&self, spot: Spot, error: Error) -> Failure {
        if matches!(error, Error::Unreadable { .. }) {
            return Failure::Run(error);
        }
        let (text, file) = (error.to_string(), self.file.display());
        let places = [format!("{file} line {}: ", spot.number), format!("{file}: line {}: ", spot.number)];
        let text = places.iter().find_map(|place| text.strip_prefix(place)).unwrap_or(&text);
        Failure::Line(ApiError::new(StatusCode::BAD_REQUEST, text))
    }
}

/// Returns true for a line of OpenAI's batch API.
fn is_batch(line: &Line) -> bool {
    line.get("body").is_some_and(Value::is_object)
}

/// Adds the answers to a question to its line.
fn add_choices(line: &mut Line, choices: &[Delta]) {
    let column = |of: &dyn Fn(&Delta) -> Value| match choices {
        [one] => of(one),
        all => all.iter().map(of).collect(),
    };
    let ids = |choice: &Delta| choice.tokens.iter().map(|token| token.token_id).collect();
    line.insert(if choices.len() == 1 { "response" } else { "responses" }.to_owned(), column(&|c| json!(c.text)));
    line.insert("token_ids".to_owned(), column(&ids));
    line.insert("finish_reason".to_owned(), column(&|c| json!(c.end.as_ref().map(|(reason, _)| reason))));
}
