//! An answer in the making: collects the engine's results for each choice and turns them into pieces of text, tokens and
//! log-probs. A streamed answer sends the pieces; another one joins them.

use std::sync::Arc;
use std::time::Instant;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::app::App;
use super::engine_client::{Event, Submitted};
use super::errors::{Api, ApiError};
use super::record::{Line, RecordedChoice};
use super::requests::Prepared;
use super::text::{Detokenizer, ReasoningParser};
use omr_model::engine::{EngineCoreOutput, EngineCoreRequest, Finish, PromptLogprob, RequestParams, SampledToken};

/// A piece of one choice.
#[derive(Default)]
pub struct Delta {
    /// Text outside of reasoning.
    pub text: String,
    /// Text of the reasoning.
    pub reasoning: String,
    /// Sampled tokens.
    pub tokens: Vec<SampledToken>,
    /// Log-probs of the prompt, in the first piece.
    pub prompt_logprobs: Option<Vec<PromptLogprob>>,
    /// True for the first piece.
    pub is_first: bool,
    /// Reason why the choice has ended, and the stop string or stop token.
    pub end: Option<(&'static str, Value)>,
    /// Position in the text, in characters, at which each of `tokens` begins. The tokens of one character share its
    /// position.
    pub offsets: Vec<usize>,
}

impl Delta {
    /// Appends the next piece of the same choice.
    pub fn join(&mut self, next: Delta) {
        self.text += &next.text;
        self.reasoning += &next.reasoning;
        self.tokens.extend(next.tokens);
        self.offsets.extend(next.offsets);
        self.prompt_logprobs = self.prompt_logprobs.take().or(next.prompt_logprobs);
        self.is_first |= next.is_first;
        self.end = next.end;
    }
}

/// One choice of a prompt.
struct Choice {
    detokenizer: Detokenizer,
    reasoning: Option<ReasoningParser>,
    num_tokens: usize,
    last_token: Option<Instant>,
    has_ended: bool,
    hasher: blake3::Hasher,
    token_ids: Vec<u32>,
}

/// An answer in the making.
pub struct Answer {
    app: Arc<App>,
    /// The request.
    pub request: Arc<Prepared>,
    /// `system_fingerprint` when the answer began.
    begun_with: String,
    submitted: Submitted,
    choices: Vec<Choice>,
    begun: Instant,
    num_cached_tokens: usize,
    /// Log-probs of each prompt, which the first piece of each of its choices contains.
    prompt_logprobs: Vec<Option<Vec<PromptLogprob>>>,
    /// True if an administrator or the end of the server has ended the answer.
    pub was_aborted: bool,
}

impl Answer {
    /// Sends a request to the engine.
    pub fn begin(app: &Arc<App>, request: Prepared) -> Api<Answer> {
        let n = request.sampling.n;
        // Each choice of each prompt has its own noise.
        let of = |(i, (prompt, params)): (usize, &(_, _))| EngineCoreRequest {
            first_choice: (i * n) as u32,
            ..EngineCoreRequest::new(Arc::clone(prompt), n, RequestParams::clone(params))
        };
        // A stop string ends a choice, so the tokens of such a request must be seen at once.
        let is_immediate = request.output.stream || !request.sampling.stop.is_empty();
        let submitted =
            app.engine.submit(&request.id, request.prompts.iter().enumerate().map(of).collect(), is_immediate)?;
        let prompt_tokens: usize = request.prompts.iter().map(|(prompt, _)| prompt.token_ids.len()).sum();
        app.metrics.prompt_tokens.inc_by(prompt_tokens as u64);
        let choice = |_| {
            let (sampling, tokenizer) = (&request.sampling, &app.chat.tokenizer);
            let stop = sampling.stop.clone();
            // The parser must see tags that are special tokens.
            let skip_special = sampling.skip_special && request.output.reasoning.is_none();
            let parser = |is_open| ReasoningParser::new(is_open, ReasoningParser::tags(tokenizer));
            Choice {
                detokenizer: Detokenizer::new(tokenizer, stop, sampling.include_stop, skip_special),
                reasoning: request.output.reasoning.map(parser),
                num_tokens: 0,
                last_token: None,
                has_ended: false,
                hasher: blake3::Hasher::new(),
                token_ids: Vec::new(),
            }
        };
        let choices = (0..request.prompts.len() * n).map(choice).collect();
        Ok(Answer {
            app: app.clone(),
            begun_with: app.fingerprint(),
            submitted,
            choices,
            begun: Instant::now(),
            num_cached_tokens: 0,
            prompt_logprobs: vec![None; request.prompts.len()],
            request: Arc::new(request),
            was_aborted: false,
        })
    }

    /// Waits for the next piece and returns it with the index of its choice. Returns `None` after the last piece.
    pub async fn next(&mut self) -> Api<Option<(usize, Delta)>> {
        let n = self.request.sampling.n;
        loop {
            if let Some(index) = self.choices.iter().position(|choice| self.was_aborted && !choice.has_ended) {
                self.choices[index].has_ended = true;
                self.app.metrics.count_end("abort");
                let choice = &mut self.choices[index];
                let [reasoning, text] = choice.finish(true);
                let (end, is_first) = (Some(("abort", Value::Null)), choice.num_tokens == 0);
                return Ok(Some((index, Delta { end, reasoning, text, is_first, ..Delta::default() })));
            }
            if self.choices.iter().all(|choice| choice.has_ended) {
                return Ok(None);
            }
            match self.submitted.next().await? {
                (prompt, Event::Output(output, time)) => {
                    let (index, choice) = (prompt * n + output.choice, output.choice);
                    if self.choices[index].has_ended {
                        continue;
                    }
                    let delta = self.take(index, output, time)?;
                    if delta.end.as_ref().is_some_and(|(_, stop)| stop.is_string()) {
                        self.submitted.abort_choice(prompt, choice);
                    }
                    return Ok(Some((index, delta)));
                }
                (_, Event::Refused(error)) => return Err(ApiError::refused("prompt", error)),
                (_, Event::Aborted) => self.was_aborted = true,
            }
        }
    }

    /// Waits for the end and returns all choices.
    pub async fn choices(&mut self) -> Api<Vec<Delta>> {
        let mut choices: Vec<Delta> = self.choices.iter().map(|_| Delta::default()).collect();
        while let Some((index, delta)) = self.next().await? {
            choices[index].join(delta);
        }
        self.end()?;
        Ok(choices)
    }

    /// Returns an error if the end of the server has ended the answer. What an administrator ends is an answer.
    pub fn check_server(&self) -> Api<()> {
        if self.was_aborted { self.app.engine.check() } else { Ok(()) }
    }

    /// Converts a result that the engine had at `time`.
    fn take(&mut self, index: usize, output: EngineCoreOutput, time: Instant) -> Api<Delta> {
        let (app, request) = (&self.app, &self.request);
        let params = &request.prompts[index / request.sampling.n].1;
        let choice = &mut self.choices[index];
        let mut delta = Delta { is_first: choice.num_tokens == 0, ..Delta::default() };
        if delta.is_first && output.choice == 0 {
            self.num_cached_tokens += output.num_cached_tokens;
        }
        let prompt = index / request.sampling.n;
        if let Some(logprobs) = output.prompt_logprobs {
            self.prompt_logprobs[prompt] = Some(logprobs);
        }
        if delta.is_first {
            delta.prompt_logprobs.clone_from(&self.prompt_logprobs[prompt]);
        }
        if let Some(Finish::Failed(why)) = output.finish {
            tracing::error!("a request failed: {why}");
            return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why));
        }
        let Some(token) = output.token else { return Ok(delta) };
        choice.observe(app, self.begun, time);
        let tokenizer = &app.chat.tokenizer;
        if !request.output.without_tokens {
            // The stop token has no text, unless stop strings are wanted.
            let is_end = choice.reasoning.is_some() && request.sampling.skip_special && app.chat.is_end(token.token_id);
            let is_stop = matches!(output.finish, Some(Finish::Stop(_))) && !request.sampling.include_stop;
            delta.offsets.push(choice.detokenizer.decoded[1]);
            let early = choice.num_tokens <= params.min_tokens;
            let (text, stop) = match is_end || is_stop {
                true => (String::new(), None),
                false => choice.detokenizer.push(tokenizer, token.token_id, early),
            };
            delta.end = stop.map(|stop| ("stop", json!(stop)));
            if let Some(parser) = &mut choice.reasoning {
                parser.note(token.token_id, choice.detokenizer.decoded[0]);
            }
            [delta.reasoning, delta.text] = choice.split(text);
            choice.record(&token);
            delta.tokens.push(token);
        }
        if delta.end.is_none() {
            delta.end = output.finish.map(|finish| match finish {
                Finish::Stop(id) if params.eos_token_ids.contains(&id) && !params.ignore_eos => ("stop", Value::Null),
                Finish::Stop(id) => ("stop", json!(id)),
                _ => ("length", Value::Null),
            });
        }
        if let Some((reason, stop)) = &delta.end {
            choice.has_ended = true;
            app.metrics.count_end(reason);
            // After a stop string, nothing more belongs to the answer.
            let [reasoning, text] = choice.finish(!stop.is_string());
            delta.reasoning += &reasoning;
            delta.text += &text;
        }
        Ok(delta)
    }

    /// Returns `system_fingerprint`. If the weights have changed since the answer began, these are the values of its
    /// beginning and of now, with a comma between them.
    pub fn fingerprint(&self) -> String {
        let now = self.app.fingerprint();
        if now == self.begun_with { now } else { format!("{},{now}", self.begun_with) }
    }

    /// Records the answer, which is complete, unless it has tokens of two models, and counts its time.
    pub fn end(&mut self) -> Api<()> {
        self.app.metrics.e2e_request_latency.observe(self.begun.elapsed().as_secs_f64());
        let Some(recorder) = &self.app.recorder else { return Ok(()) };
        if self.was_aborted || self.app.fingerprint() != self.begun_with {
            return Ok(());
        }
        let line = Line {
            id: self.request.id.clone(),
            route: self.request.route.name().to_owned(),
            system_fingerprint: self.begun_with.clone(),
            request: self.request.body.clone(),
            logprobs_mode: Some(self.app.options.logprobs_mode),
            choices: self.results(),
        };
        recorder.add(&line).map_err(|error| ApiError::internal(&error))
    }

    /// Returns what a record keeps of each choice.
    pub fn results(&self) -> Vec<RecordedChoice> {
        let of = |choice: &Choice| RecordedChoice {
            token_ids: choice.token_ids.clone(),
            logprobs: choice.hasher.finalize().to_hex().to_string(),
        };
        self.choices.iter().map(of).collect()
    }

    /// Returns the number of tokens of prompts and choices.
    pub fn usage(&self) -> Value {
        let prompt: usize = self.request.prompts.iter().map(|(prompt, _)| prompt.token_ids.len()).sum();
        let completion: usize = self.choices.iter().map(|choice| choice.token_ids.len()).sum();
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.num_cached_tokens},
        })
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.app.engine.forget(&self.request.id);
    }
}

impl Choice {
    fn observe(&mut self, app: &App, begun: Instant, time: Instant) {
        match self.last_token {
            None => app.metrics.time_to_first_token.observe((time - begun).as_secs_f64()),
            Some(last) => app.metrics.inter_token_latency.observe((time - last).as_secs_f64()),
        }
        self.last_token = Some(time);
        self.num_tokens += 1;
    }

    /// Separates reasoning from other text.
    fn split(&mut self, text: String) -> [String; 2] {
        match &mut self.reasoning {
            Some(parser) => parser.push(&text),
            None => [String::new(), text],
        }
    }

    /// Returns reasoning and other text of the end of the choice. With `has_held`, text that was held back belongs to it.
    fn finish(&mut self, has_held: bool) -> [String; 2] {
        let held = if has_held { self.detokenizer.finish() } else { String::new() };
        let [mut reasoning, mut text] = self.split(held);
        if let Some(parser) = &mut self.reasoning {
            let [more, rest] = parser.finish();
            reasoning += &more;
            text += &rest;
        }
        [reasoning, text]
    }

    fn record(&mut self, token: &SampledToken) {
        self.token_ids.push(token.token_id);
        let mut add = |value: f32| {
            self.hasher.update(&value.to_bits().to_le_bytes());
        };
        add(token.rollout_logprob);
        token.logprob.into_iter().for_each(&mut add);
        token.top_logprobs.iter().for_each(|top| add(top.logprob));
    }
}
