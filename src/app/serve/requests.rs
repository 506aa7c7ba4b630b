//! Parses and checks the requests that generate tokens, and converts them to requests of the engine.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::app::App;
use super::engine_client::MOST_LOGPROBS;
use super::errors::{Api, ApiError};
use super::fields::{Fields, ids, short};
use super::messages::{Conversation, image_urls};
use super::sampling::{self, MAX_LOGPROBS, NAMES, Sampling};
use super::text::is_reasoning_open;
use super::{body, media};
use omr_base::choice::choice;
use omr_data::image::{Grid, ImageInput};
use omr_data::text::Special;
use omr_model::engine::sequence::ImageSpan;
use omr_model::engine::{Prompt, RequestParams};

choice! {
    /// A route that generates tokens. Its name is its path.
    pub enum Route {
        /// Messages, as in OpenAI's API.
        Chat = "/v1/chat/completions",
        /// Texts or token ids, as in OpenAI's API.
        Completions = "/v1/completions",
        /// Token ids, as in vLLM.
        Generate = "/inference/v1/generate",
    }
}

/// A request that can run.
pub struct Prepared {
    /// Route, which determines the form of the answer.
    pub route: Route,
    /// The id that the client knows.
    pub id: String,
    /// Name of the model that answers.
    pub model: String,
    /// Time of arrival in seconds since 1970.
    pub created: u64,
    /// Each prompt with its parameters.
    pub prompts: Vec<(Arc<Prompt>, RequestParams)>,
    /// Number of choices of a prompt, and the settings of stop strings and text.
    pub sampling: Sampling,
    /// How the answer is written.
    pub output: Output,
    /// The request with its seed and its images, if requests are recorded.
    pub body: Value,
    /// Maximum number of log-probs in the answer.
    pub logprobs: usize,
    /// The answer's share of the memory for log-probs, until it is sent.
    pub unsent: Option<OwnedSemaphorePermit>,
}

impl Prepared {
    /// Limits what one of several clients can take: a request with many choices leaves places to others, and its
    /// log-probs count until the answer is sent. Errors if the log-probs of all such answers would be too many.
    pub fn share(&mut self, app: &App) -> Api<()> {
        let is_wide = app.engine.is_wide(self.prompts.len() * self.sampling.n);
        self.prompts.iter_mut().for_each(|(_, params)| params.is_wide = is_wide);
        self.unsent = Some(app.engine.hold_logprobs(self.logprobs)?);
        Ok(())
    }
}

/// How the answer of a request is written.
#[derive(Clone, Default)]
pub struct Output {
    /// The answer is streamed.
    pub stream: bool,
    /// The stream ends with the number of tokens.
    pub include_usage: bool,
    /// Each chunk has the number of tokens so far, too.
    pub continuous_usage: bool,
    /// The answer begins with the prompt.
    pub echo: bool,
    /// The answer has the log-probs of the prompt as a field of their own.
    pub prompt_logprobs: bool,
    /// The only token is not part of the answer, because no token was requested.
    pub without_tokens: bool,
    /// The answer contains token ids.
    pub token_ids: bool,
    /// Tokens are written as `token_id:N`.
    pub tokens_as_ids: bool,
    /// The answer contains text.
    pub text: bool,
    /// Reasoning is separated from the answer; true if the prompt ends inside reasoning.
    pub reasoning: Option<bool>,
    /// Reasoning is part of the answer.
    pub include_reasoning: bool,
}

/// Replaces the addresses of the images in the body of a request by their contents.
pub async fn inline_images(app: &App, body: &mut Value) -> Api<()> {
    let urls = image_urls(body);
    if urls.len() > media::MAX_PICTURES {
        let expected = format!("at most {} images", media::MAX_PICTURES);
        return Err(ApiError::field(&urls[0].0, urls.len(), expected));
    }
    let mut bytes = 0;
    for (param, url) in urls {
        app.media.inline(url, &param).await?;
        // Base64 takes 4 bytes for 3.
        bytes += url.len() / 4 * 3;
        if bytes > body::LARGEST {
            let expected = format!("at most {} bytes of images in a request", body::LARGEST);
            return Err(ApiError::field(&param, format!("{bytes} bytes up to this image"), expected));
        }
    }
    Ok(())
}

/// Parses a request. Remote images are loaded first.
pub async fn prepare(app: &Arc<App>, route: Route, mut body: Value) -> Api<Prepared> {
    inline_images(app, &mut body).await?;
    let app = app.clone();
    let parsed = tokio::task::spawn_blocking(move || parse(&app, route, body));
    parsed.await.map_err(|_| ApiError::internal(&omr_base::error::Error::Failed("a parser panicked".to_owned())))?
}

fn parse(app: &App, route: Route, body: Value) -> Api<Prepared> {
    // Only the record needs the request once more.
    let kept = app.recorder.as_ref().map(|_| body.clone());
    let mut fields = Fields::new(body, "")?;
    let model = app.take_model(&mut fields)?;
    let request_id = fields.read("request_id", "a string of 1 to 128 characters", |value| {
        value.as_str().filter(|id| (1..=128).contains(&id.len())).map(str::to_owned)
    })?;
    let prefix = ["chatcmpl-", "cmpl-", ""][route as usize];
    let id = format!("{prefix}{}", request_id.map_or_else(random_id, Ok)?);
    let mut output = output(&mut fields)?;
    let (prompts, sampling) = match route {
        Route::Chat => chat(app, &mut fields, &mut output)?,
        Route::Completions => completions(app, &mut fields, &mut output)?,
        Route::Generate => generate(app, &mut fields, &mut output)?,
    };
    fields.only(&[("priority", json!(0))], "requests are answered in order")?;
    fields.only(&[("cache_salt", Value::Null)], "the prefix cache is shared by all requests")?;
    fields.without_effect(&["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"]);
    fields.end()?;
    // The server has an adapter, and the request asks for the base without it.
    let is_base = app.options.adapter.as_ref().is_some_and(|(adapter, _)| *adapter != model);
    let prompts = if is_base { prompts.into_iter().map(Prompt::for_base).collect() } else { prompts };
    let body = kept.map(|body| seeded(body, route, sampling.params.noise.seed)).unwrap_or_default();
    Ok(Prepared { id, model, body, ..checked(app, route, prompts, sampling, output)? })
}

/// Parses the question of a row. `fields` has its sampling parameters.
pub fn question(app: &App, fields: &mut Fields, prompt: Prompt) -> Api<Prepared> {
    let sampling = sampling::read(fields, app)?;
    let output = Output { text: true, ..Output::default() };
    checked(app, Route::Chat, vec![prompt], sampling, output)
}

/// Checks a request against the limits of the engine. The caller sets the id, the model and the body.
fn checked(app: &App, route: Route, prompts: Vec<Prompt>, mut sampling: Sampling, mut output: Output) -> Api<Prepared> {
    let choices = prompts.len() * sampling.n;
    if choices > app.engine.max_choices() {
        let param = if sampling.n > 1 { format!("{}n", sampling.prefix) } else { "prompt".to_owned() };
        let expected = format!("at most {} in a request", app.engine.max_choices());
        return Err(ApiError::field(param, format!("{choices} choices"), expected));
    }
    output.without_tokens = sampling.max_tokens == Some(0);
    if output.without_tokens && !output.echo {
        return Err(ApiError::field(&sampling.limit, 0, "at least 1, or echo"));
    }
    let with_params = |prompt: Prompt| Ok((params(app, &sampling, &prompt, route)?, prompt));
    let prompts: Vec<_> = prompts.into_iter().map(with_params).collect::<Api<_>>()?;
    let of_prompt = |(params, prompt): &(RequestParams, Prompt)| {
        let each = |count: Option<usize>| count.map_or(0, |count| count + 1);
        let sampled = sampling.n * params.max_tokens * each(params.logprobs);
        sampled + prompt.token_ids.len() * each(params.prompt_logprobs)
    };
    let logprobs: usize = prompts.iter().map(of_prompt).sum();
    if logprobs > MOST_LOGPROBS {
        let expected = format!("at most {MOST_LOGPROBS}: n x max_tokens x (1 + top_logprobs)");
        return Err(ApiError::field(&sampling.limit, format!("{logprobs} log-probs in the answer"), expected));
    }
    let prompts = prompts.into_iter().map(|(params, prompt)| (Arc::new(prompt), params)).collect();
    sampling.max_tokens = None;
    let (id, model, created, body) = (String::new(), String::new(), super::app::now(), Value::Null);
    Ok(Prepared { route, id, model, created, prompts, sampling, output, body, logprobs, unsent: None })
}

/// Returns the engine's parameters for one prompt.
fn params(app: &App, sampling: &Sampling, prompt: &Prompt, route: Route) -> Api<RequestParams> {
    let (len, longest) = (prompt.token_ids.len(), app.max_model_len);
    let param = ["messages", "prompt", "token_ids"][route as usize];
    if len == 0 {
        return Err(ApiError::field(param, "no tokens", "at least one token"));
    }
    if len >= longest {
        return Err(ApiError::context(param, format!("{len} tokens of the prompt"), longest));
    }
    let room = longest - len;
    let max_tokens = match sampling.max_tokens {
        Some(n) if n > room => {
            let found = format!("{n} tokens after {len} tokens of the prompt");
            return Err(ApiError::context(&sampling.limit, found, longest));
        }
        Some(n) => n.max(1),
        None if route == Route::Completions => room.min(app.options.max_tokens.unwrap_or(16)),
        None => room.min(app.options.max_tokens.unwrap_or(room)),
    };
    sampling.params(max_tokens, app.config.text.vocab_size)
}

/// Reads the fields about the form of the answer that all routes have.
fn output(fields: &mut Fields) -> Api<Output> {
    let mut output = Output { stream: fields.bool("stream", false)?, include_reasoning: true, ..Output::default() };
    if let Some(mut options) = fields.object("stream_options")? {
        if !output.stream {
            return Err(ApiError::field("stream_options", "an object", "null without stream"));
        }
        output.include_usage = options.bool("include_usage", false)?;
        output.continuous_usage = options.bool("continuous_usage_stats", false)?;
        options.without_effect(&["include_obfuscation"]);
        options.end()?;
    }
    output.token_ids = fields.bool("return_token_ids", false)?;
    output.tokens_as_ids = fields.bool("return_tokens_as_token_ids", false)?;
    Ok(output)
}

fn chat(app: &App, fields: &mut Fields, output: &mut Output) -> Api<(Vec<Prompt>, Sampling)> {
    let conversation = Conversation::read(fields)?;
    let images = media::images(&conversation.images, app.processor.as_ref())?;
    let prompt = prompt(app, &conversation.encode(&app.chat)?, &images, "messages")?;
    let mut sampling = sampling::read(fields, app)?;
    let logprobs = fields.bool("logprobs", false)?;
    let top = fields.count("top_logprobs", 0..=MAX_LOGPROBS)?.unwrap_or(0) as usize;
    if top > 0 && !logprobs {
        return Err(ApiError::field("top_logprobs", top, "0 without logprobs"));
    }
    sampling.params.logprobs = logprobs.then_some(top);
    output.text = true;
    output.include_reasoning = fields.bool("include_reasoning", true)?;
    if app.options.has_reasoning_parser {
        let text = app.chat.tokenizer.decode(&prompt.token_ids, false);
        output.reasoning = Some(is_reasoning_open(app.chat.opened_in(&text)));
    }
    let choice = |value: &Value| value.as_str().filter(|choice| ["none", "auto"].contains(choice)).map(drop);
    fields.read("tool_choice", "\"none\" or \"auto\" (tools are not supported)", choice)?;
    fields.only(&[("tools", json!([]))], "tools are not supported")?;
    fields.without_effect(&["parallel_tool_calls"]);
    fields.only(&[("response_format", json!({"type": "text"}))], "the form of answers is not constrained")?;
    fields.only(&[("modalities", json!(["text"]))], "answers are text")?;
    Ok((vec![prompt], sampling))
}

fn completions(app: &App, fields: &mut Fields, output: &mut Output) -> Api<(Vec<Prompt>, Sampling)> {
    let vocab_size = app.config.text.vocab_size;
    let encode = |text: &str| {
        let ids = app.chat.tokenizer.encode(text, Special::Parse);
        let ids = ids.map_err(|error| ApiError::refused("prompt", error))?;
        Ok(app.chat.tokenizer.with_bos(ids))
    };
    let value = fields.take("prompt").unwrap_or_default();
    let one = |value: &Value| match value {
        Value::String(text) => encode(text),
        other => ids(other, vocab_size).ok_or_else(|| {
            ApiError::field("prompt", short(other), format!("text, token ids below {vocab_size}, or a list of these"))
        }),
    };
    let lists: Vec<Vec<u32>> = match &value {
        Value::Array(list) if list.iter().any(|entry| entry.is_string() || entry.is_array()) => {
            list.iter().map(one).collect::<Api<_>>()?
        }
        other => vec![one(other)?],
    };
    let prompts = lists.iter().map(|ids| prompt(app, ids, &[], "prompt")).collect::<Api<_>>()?;
    let mut sampling = sampling::read(fields, app)?;
    sampling.params.logprobs = fields.count("logprobs", 0..=MAX_LOGPROBS)?.map(|n| n as usize);
    output.text = true;
    output.echo = fields.bool("echo", false)?;
    output.prompt_logprobs = sampling.params.prompt_logprobs.is_some();
    if output.echo && sampling.params.logprobs.is_some() {
        sampling.params.prompt_logprobs = sampling.params.prompt_logprobs.max(sampling.params.logprobs);
    }
    fields.only(&[("suffix", json!("")), ("add_special_tokens", json!(true))], "not supported")?;
    fields.only(&[("response_format", json!({"type": "text"}))], "the form of answers is not constrained")?;
    Ok((prompts, sampling))
}

fn generate(app: &App, fields: &mut Fields, output: &mut Output) -> Api<(Vec<Prompt>, Sampling)> {
    let token_ids = fields.ids("token_ids", app.config.text.vocab_size)?.unwrap_or_default();
    let images = content_parts(app, fields)?;
    let prompt = prompt(app, &token_ids, &images, "token_ids")?;
    if let Some(mut features) = fields.object("features")? {
        let send = "null: send content_parts";
        features.only(&[("kwargs_data", Value::Null), ("mm_metadata", Value::Null)], send)?;
        let placeholders = features.take("mm_placeholders").unwrap_or_default();
        if placeholders != placeholders_of(&prompt) {
            return Err(ApiError::field("features.mm_placeholders", "other places", "those of content_parts"));
        }
        features.without_effect(&["mm_hashes"]);
        features.end()?;
    }
    let mode =
        |value: &Value| value.as_str().filter(|mode| ["tokens", "text"].contains(mode)).map(|mode| mode == "text");
    output.text = fields.read("output_mode", "tokens or text", mode)?.unwrap_or(false);
    let mut params = fields.object("sampling_params")?.map_or_else(|| Fields::new(json!({}), "sampling_params"), Ok)?;
    let mut sampling = sampling::read(&mut params, app)?;
    sampling.params.logprobs = params.count("logprobs", 0..=MAX_LOGPROBS)?.map(|n| n as usize);
    params.end()?;
    Ok((vec![prompt], sampling))
}

fn content_parts(app: &App, fields: &mut Fields) -> Api<Vec<Arc<ImageInput>>> {
    let list = fields.read("content_parts", "a list of parts", |value| value.as_array().cloned())?.unwrap_or_default();
    let mut urls = Vec::new();
    for (i, part) in list.into_iter().enumerate() {
        let mut part = Fields::new(part, &format!("content_parts[{i}]"))?;
        part.only(&[("type", json!("image_url"))], "only images are supported")?;
        urls.push((part.name("url"), part.string("url")?.unwrap_or_default()));
        part.end()?;
    }
    media::images(&urls, app.processor.as_ref())
}

/// Makes the engine's prompt. Each image has one placeholder in `ids`, or as many as it has rows.
fn prompt(app: &App, ids: &[u32], images: &[Arc<ImageInput>], param: &str) -> Api<Prompt> {
    let refused = |error| ApiError::refused(param, error);
    let merge = app.config.grid().merge_size as u32;
    let rows: usize = images.iter().map(|image| image.tokens(merge)).sum();
    let pads = app.chat.count(ids, false);
    let is_expanded = rows != images.len() && pads == rows;
    let grids: Vec<Grid> = images.iter().map(|image| image.grid()).collect();
    let expanded = match is_expanded {
        true => ids.to_vec(),
        false => app.chat.expand(ids, &grids).map_err(refused)?.into_iter().map(|(id, _)| id).collect(),
    };
    if let Some(large) = images.iter().find(|image| image.tokens(merge) > app.engine.vision_rows) {
        let found = format!("an image of {} tokens", large.tokens(merge));
        return Err(ApiError::field(param, found, format!("at most {}", app.engine.vision_rows)));
    }
    Prompt::new(&app.config, &expanded, images).map_err(refused)
}

/// Returns the places of the images among the tokens of a prompt, as vLLM writes them.
pub fn placeholders_of(prompt: &Prompt) -> Value {
    let place = |image: &ImageSpan| json!({"offset": image.start, "length": image.rows});
    match prompt.images.is_empty() {
        true => json!({}),
        false => json!({"image": prompt.images.iter().map(place).collect::<Vec<_>>()}),
    }
}

/// Returns the request for `/inference/v1/generate` that has the prompt and the parameters of the chat request `body`.
pub fn rendered(app: &App, mut body: Value) -> Api<Value> {
    let prepared = parse(app, Route::Chat, body.clone())?;
    let (prompt, params) = &prepared.prompts[0];
    let given = |name: &str| Some((name.to_owned(), body.get(name).filter(|value| !value.is_null())?.clone()));
    let mut sampling_params: serde_json::Map<String, Value> =
        NAMES.split(' ').chain(["prompt_logprobs"]).filter_map(given).collect();
    sampling_params.insert("max_tokens".to_owned(), json!(params.max_tokens));
    sampling_params.insert("logprobs".to_owned(), json!(params.logprobs));
    let mut request = json!({
        "request_id": random_id()?,
        "model": prepared.model,
        "token_ids": prompt.token_ids,
        "sampling_params": sampling_params,
    });
    if !prompt.images.is_empty() {
        let part = |(_, url): (String, &mut String)| json!({"type": "image_url", "url": std::mem::take(url)});
        request["content_parts"] = image_urls(&mut body).into_iter().map(part).collect();
        let hash = |image: &ImageSpan| blake3::Hash::from_bytes(image.key).to_hex().to_string();
        let hashes: Vec<String> = prompt.images.iter().map(hash).collect();
        request["features"] = json!({"mm_hashes": {"image": hashes}, "mm_placeholders": placeholders_of(prompt)});
    }
    Ok(request)
}

/// Returns the request with its seed, so that it can be answered again.
fn seeded(mut body: Value, route: Route, seed: u64) -> Value {
    let at = if route == Route::Generate { &mut body["sampling_params"] } else { &mut body };
    at["seed"] = json!(seed);
    body
}

/// Draws the id of a request.
pub fn random_id() -> Api<String> {
    let mut bytes = [0; 16];
    let failed = |e| omr_base::error::Error::Failed(format!("the system has no random numbers: {e}"));
    getrandom::fill(&mut bytes).map_err(|e| ApiError::internal(&failed(e)))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
