//! Writes answers as JSON, in the forms of the three routes that generate tokens.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Delta};
use super::app::App;
use super::errors::Api;
use super::requests::{Prepared, Route, placeholders_of};
use omr_data::text::Tokenizer;
use omr_model::engine::{PromptLogprob, SampledToken};
use omr_runtime::ops::sample::TopLogprob;

/// Text before the choices of an answer, and before the log-probs of a choice.
const CHOICES: &str = "\"choices\":[";
const CONTENT: &str = "\"logprobs\":{\"content\":[";
/// Number of tokens whose log-probs are written at once.
const PIECE: usize = 64;

/// Value that stands for the log-prob of an impossible token, as in vLLM.
const IMPOSSIBLE: f32 = -9999.0;

/// Writes the answer to one request.
pub struct Format<'a> {
    app: &'a App,
    request: &'a Prepared,
}

impl<'a> Format<'a> {
    /// Creates a writer.
    pub fn new(app: &'a App, request: &'a Prepared) -> Format<'a> {
        Format { app, request }
    }

    /// Returns an answer with these choices, or a chunk of a streamed answer.
    pub fn answer(&self, fingerprint: &str, choices: Vec<Value>) -> Value {
        let Prepared { route, id, created, output, .. } = self.request;
        let object = match (route, output.stream) {
            (Route::Chat, false) => "chat.completion",
            (Route::Chat, true) => "chat.completion.chunk",
            (Route::Completions, _) => "text_completion",
            (Route::Generate, false) => "generate",
            (Route::Generate, true) => "generate.chunk",
        };
        let mut answer = json!({
            "id": id,
            "object": object,
            "created": created,
            "model": self.request.model,
            "choices": choices,
            "system_fingerprint": fingerprint,
            "seed": self.request.sampling.params.noise.seed,
        });
        if *route == Route::Generate {
            answer["request_id"] = json!(id);
        }
        answer
    }

    /// Adds what an answer says about its prompt to an answer or to the first chunk of a stream.
    pub fn add_prompt(&self, answer: &mut Value, prompt_logprobs: Option<&[PromptLogprob]>) {
        let (prompt, _) = &self.request.prompts[0];
        if self.request.output.token_ids && self.request.route != Route::Completions {
            answer["prompt_token_ids"] = json!(prompt.token_ids);
        }
        if self.request.route == Route::Generate && self.request.output.token_ids {
            answer["mm_placeholders"] = placeholders_of(prompt);
        }
        if let Some(logprobs) = prompt_logprobs.filter(|_| self.request.route != Route::Completions) {
            answer["prompt_logprobs"] = self.prompt_logprobs(logprobs);
        }
    }

    /// Returns the choice `index` of an answer, or a piece of it for a streamed answer.
    pub fn choice(&self, index: usize, delta: &Delta) -> Value {
        let has_logprobs = self.request.sampling.params.logprobs.is_some();
        self.choice_with(index, delta, if has_logprobs { &delta.tokens } else { &[] })
    }

    /// Returns a choice like [`Format::choice`]. If there is a list of log-probs, it has the entries of `listed`.
    fn choice_with(&self, index: usize, delta: &Delta, listed: &[SampledToken]) -> Value {
        let output = &self.request.output;
        let mut choice = Map::from_iter([("index".to_owned(), json!(index))]);
        let mut set = |key: &str, value: Value| drop(choice.insert(key.to_owned(), value));
        let has_logprobs = self.request.sampling.params.logprobs.is_some();
        let mut logprobs = Value::Null;
        match self.request.route {
            Route::Chat => {
                set(if output.stream { "delta" } else { "message" }, self.message(delta));
                logprobs = json!({"content": listed.iter().map(|token| self.entry(token)).collect::<Vec<_>>()});
            }
            Route::Completions => {
                let prompt = &self.request.prompts[index / self.request.sampling.n].0.token_ids;
                let echoed = if output.echo && delta.is_first { &prompt[..] } else { &[] };
                set("text", json!(self.tokenizer().decode(echoed, false) + &delta.text));
                if delta.is_first && output.token_ids {
                    set("prompt_token_ids", json!(prompt));
                }
                if has_logprobs {
                    logprobs = self.text_logprobs(echoed, delta, prompt);
                }
                if let Some(of_prompt) = delta.prompt_logprobs.as_deref().filter(|_| output.prompt_logprobs) {
                    set("prompt_logprobs", self.prompt_logprobs(of_prompt));
                }
            }
            Route::Generate => {
                if output.text {
                    set("text", json!(delta.text));
                }
                let rollout: Vec<Value> = delta.tokens.iter().map(|token| number(token.rollout_logprob)).collect();
                set("rollout_logprobs", json!(rollout));
                logprobs = json!({"content": listed.iter().map(|token| self.entry(token)).collect::<Vec<_>>()});
            }
        }
        set("logprobs", if has_logprobs { logprobs } else { Value::Null });
        set("finish_reason", json!(delta.end.as_ref().map(|(reason, _)| reason)));
        set("stop_reason", delta.end.as_ref().map_or(Value::Null, |(_, stop)| stop.clone()));
        if output.token_ids || self.request.route == Route::Generate {
            set("token_ids", delta.tokens.iter().map(|token| token.token_id).collect());
        }
        Value::Object(choice)
    }

    /// Returns true if a piece contains something that a streamed answer must send.
    pub fn is_visible(&self, delta: &Delta) -> bool {
        let output = &self.request.output;
        let has_tokens = self.request.sampling.params.logprobs.is_some()
            || output.token_ids
            || self.request.route == Route::Generate;
        let has_reasoning = output.include_reasoning && !delta.reasoning.is_empty();
        let has_text = !delta.text.is_empty() || has_reasoning;
        delta.is_first || delta.end.is_some() || has_text || (has_tokens && !delta.tokens.is_empty())
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.app.chat.tokenizer
    }

    fn message(&self, delta: &Delta) -> Value {
        let is_whole = !self.request.output.stream;
        let mut message = Map::new();
        if is_whole || delta.is_first {
            message.insert("role".to_owned(), json!("assistant"));
        }
        let reasoning = Some(&delta.reasoning).filter(|text| self.request.output.include_reasoning && !text.is_empty());
        let is_only_reasoning = is_whole && reasoning.is_some() && delta.text.is_empty();
        if is_whole || delta.is_first || !delta.text.is_empty() {
            message.insert("content".to_owned(), if is_only_reasoning { Value::Null } else { json!(delta.text) });
        }
        if let Some(text) = reasoning {
            message.insert("reasoning".to_owned(), json!(text));
            message.insert("reasoning_content".to_owned(), json!(text));
        }
        Value::Object(message)
    }

    /// Returns a token's text: its bytes, with U+FFFD for what is not UTF-8.
    fn token(&self, id: u32) -> String {
        match self.request.output.tokens_as_ids || self.request.route == Route::Generate {
            true => format!("token_id:{id}"),
            false => String::from_utf8_lossy(self.tokenizer().token_bytes(id)).into_owned(),
        }
    }

    /// Returns a token's text. Tokens that are not UTF-8 are written as `bytes:\x..`, so that different tokens have
    /// different texts.
    fn distinct_token(&self, id: u32) -> String {
        let bytes = self.tokenizer().token_bytes(id);
        match std::str::from_utf8(bytes) {
            Err(_) if !self.request.output.tokens_as_ids => {
                bytes.iter().fold("bytes:".to_owned(), |text, byte| text + &format!("\\x{byte:02x}"))
            }
            _ => self.token(id),
        }
    }

    /// Returns the log-probs of a token.
    fn entry(&self, token: &SampledToken) -> Value {
        let one = |id: u32, logprob: f32, rank: Option<usize>| {
            let (text, logprob) = (self.token(id), number(logprob));
            match self.request.route {
                Route::Generate => json!({"token": text, "token_id": id, "logprob": logprob, "rank": rank}),
                _ => json!({"token": text, "logprob": logprob, "bytes": self.tokenizer().token_bytes(id)}),
            }
        };
        let rank = token.rank.map(|rank| rank as usize);
        let mut entry = one(token.token_id, token.logprob.unwrap_or(IMPOSSIBLE), rank);
        let top = token.top_logprobs.iter().enumerate().map(|(i, top)| one(top.token_id, top.logprob, Some(i + 1)));
        entry["top_logprobs"] = top.collect();
        entry
    }

    /// Returns the log-probs of a text completion. `echoed` is the prompt if the answer begins with it.
    fn text_logprobs(&self, echoed: &[u32], delta: &Delta, prompt: &[u32]) -> Value {
        let (mut tokens, mut logprobs, mut top) = (Vec::new(), Vec::new(), Vec::new());
        let mut add = |id: u32, logprob: Option<f32>, best: &[TopLogprob]| {
            tokens.push(self.distinct_token(id));
            logprobs.push(logprob.map_or(Value::Null, number));
            top.push(logprob.map_or(Value::Null, |logprob| self.top_of(id, logprob, best)));
        };
        // The text of an answer begins behind the prompt, if that is part of it.
        let (mut decode, mut length) = (self.tokenizer().decode_stream(false), 0);
        let starts: Vec<usize> = prompt
            .iter()
            .filter(|_| self.request.output.echo)
            .map(|&id| {
                let start = length;
                length += decode.push(self.tokenizer(), id).chars().count();
                start
            })
            .collect();
        length += decode.finish().chars().count();
        let own = delta.offsets.iter().map(|offset| length + offset);
        let offsets: Vec<usize> = starts.into_iter().take(echoed.len()).chain(own).collect();
        if let Some((&first, _)) = echoed.split_first() {
            add(first, None, &[]);
            for entry in delta.prompt_logprobs.iter().flatten() {
                add(entry.token_id, Some(entry.logprob), &entry.top_logprobs);
            }
        }
        for token in &delta.tokens {
            add(token.token_id, token.logprob, &token.top_logprobs);
        }
        json!({"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets})
    }

    /// Returns the most likely tokens and the token itself with their log-probs.
    fn top_of(&self, id: u32, logprob: f32, best: &[TopLogprob]) -> Value {
        let mut top = Map::new();
        for (id, logprob) in best.iter().map(|top| (top.token_id, top.logprob)).chain([(id, logprob)]) {
            top.entry(self.distinct_token(id)).or_insert_with(|| number(logprob));
        }
        Value::Object(top)
    }

    fn prompt_logprobs(&self, logprobs: &[PromptLogprob]) -> Value {
        let entry = |at: &PromptLogprob| {
            let one = |id: u32, logprob: f32, rank: usize| {
                let token = String::from_utf8_lossy(self.tokenizer().token_bytes(id)).into_owned();
                (id.to_string(), json!({"logprob": number(logprob), "rank": rank, "decoded_token": token}))
            };
            let own = one(at.token_id, at.logprob, at.rank as usize);
            let top = at.top_logprobs.iter().enumerate().map(|(i, top)| one(top.token_id, top.logprob, i + 1));
            Value::Object(std::iter::once(own).chain(top).collect())
        };
        std::iter::once(Value::Null).chain(logprobs.iter().map(entry)).collect()
    }
}

/// Returns a log-prob as a JSON number with exactly its value.
fn number(logprob: f32) -> Value {
    json!(f64::from(if logprob.is_finite() { logprob } else { IMPOSSIBLE }))
}

/// Waits for the end of an answer and returns the response with it, or an error if the server has ended before. The text
/// is made in pieces of a few tokens, because the JSON tree of all log-probs takes a hundred times the memory of the
/// tokens.
pub async fn response(app: Arc<App>, mut answer: Answer) -> Api<Response> {
    let (choices, request) = (Arc::new(answer.choices().await?), answer.request.clone());
    answer.check_server()?;
    // Quotes in texts are escaped, so this is the key.
    let text = frame(&app, &answer, &choices, Vec::new()).to_string();
    let (head, tail) = text.split_once(CHOICES).unwrap_or((&text, ""));
    let (head, tail) = (format!("{head}{CHOICES}"), tail.to_owned());
    let pieces = (0..choices.len()).flat_map(move |index| {
        let before = if index > 0 { "," } else { "" }.to_owned();
        std::iter::once(before).chain(choice_pieces(&app, &request, &choices, index))
    });
    let pieces = std::iter::once(head).chain(pieces).chain([tail]).map(Ok::<String, Infallible>);
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Returns the text of a choice in pieces.
fn choice_pieces(
    app: &Arc<App>,
    request: &Arc<Prepared>,
    choices: &Arc<Vec<Delta>>,
    index: usize,
) -> impl Iterator<Item = String> + use<> {
    let (app, request, choices) = (app.clone(), request.clone(), choices.clone());
    let has_list = request.route != Route::Completions && request.sampling.params.logprobs.is_some();
    let count = if has_list { choices[index].tokens.len() } else { 0 };
    let format = Format::new(&app, &request);
    let text = format.choice_with(index, &choices[index], &[]).to_string();
    let (head, tail) = match text.split_once(CONTENT).filter(|_| has_list) {
        Some((head, tail)) => (format!("{head}{CONTENT}"), tail.to_owned()),
        None => (text, String::new()),
    };
    let entries = (0..count).step_by(PIECE).map(move |from| {
        let format = Format::new(&app, &request);
        let tokens = &choices[index].tokens[from..count.min(from + PIECE)];
        let entries: Vec<String> = tokens.iter().map(|token| format.entry(token).to_string()).collect();
        format!("{}{}", if from > 0 { "," } else { "" }, entries.join(","))
    });
    std::iter::once(head).chain(entries).chain([tail])
}

/// Waits for the end of an answer and returns it.
pub async fn whole(app: &App, answer: &mut Answer) -> Api<Value> {
    let (choices, request) = (answer.choices().await?, answer.request.clone());
    let format = Format::new(app, &request);
    let written = choices.iter().enumerate().map(|(index, delta)| format.choice(index, delta)).collect();
    Ok(frame(app, answer, &choices, written))
}

/// Returns an answer that lists the choices `written`.
fn frame(app: &App, answer: &Answer, choices: &[Delta], written: Vec<Value>) -> Value {
    let format = Format::new(app, &answer.request);
    let mut value = format.answer(&answer.fingerprint(), written);
    format.add_prompt(&mut value, choices[0].prompt_logprobs.as_deref());
    value["usage"] = answer.usage();
    value
}
