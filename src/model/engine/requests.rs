//! Requests that join and leave a running engine, and what each step returns for them. Names are vLLM's.

use std::sync::Arc;

use crate::engine::sequence::{FinishReason, Prompt};
use omr_base::error::{Error, Result};
use omr_runtime::ops::sample::{LogprobsMode, Penalties, SamplingParams, TopLogprob};

/// Maximum number of most likely ids for each token.
pub const MAX_LOGPROBS: usize = 20;

/// Identifies a request. An engine never reuses an id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// A prompt and how its choices are sampled. A choice is one response to the prompt.
#[derive(Clone, Debug)]
pub struct EngineCoreRequest {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// Number of choices. The prompt is computed once for all of them.
    pub n: usize,
    /// Index of the first choice in the noise. A choice that is requested alone has the bits that it has among others.
    pub first_choice: u32,
    /// How the choices are sampled and what is reported.
    pub params: RequestParams,
}

impl EngineCoreRequest {
    /// Creates a request for the first `n` choices.
    pub fn new(prompt: Arc<Prompt>, n: usize, params: RequestParams) -> EngineCoreRequest {
        EngineCoreRequest { prompt, n, first_choice: 0, params }
    }
}

/// Key of the noise of a request. The noise also depends on the index of the choice and the position of the token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Noise {
    /// Seed of the run or of the request.
    pub seed: u64,
    /// Training step. Each step has different noise.
    pub step: u64,
    /// Number of the prompt. Equal prompts get different responses if this number differs.
    pub prompt: u32,
}

impl Noise {
    /// Returns the noise of a request that has a seed of its own.
    pub fn of_seed(seed: u64) -> Noise {
        // A key of the noise has 32 bits for the seed, so the seed's upper half is in the counter.
        Noise { seed, step: 0, prompt: (seed >> 32) as u32 }
    }
}

/// Parameters of a request.
#[derive(Clone, Debug, Default)]
pub struct RequestParams {
    /// True for a request with many choices: it leaves a sixteenth of `max_num_seqs` to other requests.
    pub is_wide: bool,
    /// Temperature, top-p, top-k and min-p.
    pub sampling: SamplingParams,
    /// The noise.
    pub noise: Noise,
    /// Maximum number of tokens of a choice.
    pub max_tokens: usize,
    /// Number of tokens before which no stop token and no end-of-sequence token may be sampled.
    pub min_tokens: usize,
    /// Ids that end a choice, beside those of the model.
    pub stop_token_ids: Vec<u32>,
    /// The model's end-of-sequence tokens.
    pub eos_token_ids: Arc<[u32]>,
    /// True if the model's end-of-sequence tokens do not end a choice.
    pub ignore_eos: bool,
    /// Penalties of ids that occurred before.
    pub penalties: Penalties,
    /// Values that are added to the logits of ids.
    pub logit_bias: Vec<(u32, f32)>,
    /// The only ids that may be sampled. `None` allows those of the policy.
    pub allowed_token_ids: Option<Vec<u32>>,
    /// Number of most likely ids that are reported for each sampled token, at most [`MAX_LOGPROBS`]. With 0, only the
    /// log-prob of the token is reported, and with `None` nothing.
    pub logprobs: Option<usize>,
    /// Number of most likely ids that are reported for each token of the prompt, at most [`MAX_LOGPROBS`]. With 0, only
    /// the log-probs and ranks of the prompt's tokens are reported, and with `None` nothing.
    pub prompt_logprobs: Option<usize>,
    /// Distribution of the reported log-probs of sampled tokens. Those of the prompt are always raw.
    pub logprobs_mode: LogprobsMode,
}

impl RequestParams {
    /// Returns parameters that sample from the model's distribution and report nothing.
    pub fn new(max_tokens: usize, eos_token_ids: Arc<[u32]>) -> RequestParams {
        RequestParams { max_tokens, eos_token_ids, ..RequestParams::default() }
    }

    /// Returns an input error, whose place is the field's name, unless every value is in its range.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        self.sampling.validate("")?;
        let Penalties { repetition, frequency, presence } = self.penalties;
        let numbers = [
            ("presence_penalty", presence, (-2.0..=2.0).contains(&presence), "-2 to 2"),
            ("frequency_penalty", frequency, (-2.0..=2.0).contains(&frequency), "-2 to 2"),
            ("repetition_penalty", repetition, repetition > 0.0 && repetition.is_finite(), "above 0"),
        ];
        for (name, value, holds, expected) in numbers {
            if !holds {
                return Err(Error::input(name, value.to_string(), expected));
            }
        }
        if self.max_tokens == 0 {
            return Err(Error::input("max_tokens", "0", "at least 1"));
        }
        if self.min_tokens > self.max_tokens {
            let expected = format!("at most max_tokens={}", self.max_tokens);
            return Err(Error::input("min_tokens", self.min_tokens.to_string(), expected));
        }
        for (name, count) in [("logprobs", self.logprobs), ("prompt_logprobs", self.prompt_logprobs)] {
            if let Some(count) = count.filter(|&count| count > MAX_LOGPROBS) {
                return Err(Error::input(name, count.to_string(), format!("at most {MAX_LOGPROBS}")));
            }
        }
        if let Some((id, bias)) = self.logit_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            return Err(Error::input("logit_bias", format!("{bias} for id {id}"), "a finite number"));
        }
        if self.allowed_token_ids.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::input("allowed_token_ids", "no ids", "at least one id"));
        }
        let is_end = |id: &u32| self.eos_token_ids.contains(id) || self.stop_token_ids.contains(id);
        if self.min_tokens > 0 && self.allowed_token_ids.as_ref().is_some_and(|ids| ids.iter().all(is_end)) {
            let expected = "an id that does not end the answer, because of min_tokens";
            return Err(Error::input("allowed_token_ids", "only ids that end the answer", expected));
        }
        let biased: Vec<u32> = self.logit_bias.iter().map(|&(id, _)| id).collect();
        let lists = [
            ("stop_token_ids", &self.stop_token_ids),
            ("logit_bias", &biased),
            ("allowed_token_ids", self.allowed_token_ids.as_ref().unwrap_or(&self.stop_token_ids)),
        ];
        for (name, ids) in lists {
            if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
                let expected = format!("ids below {vocab_size}, the size of the vocabulary");
                return Err(Error::input(name, format!("id {id}"), expected));
            }
        }
        Ok(())
    }

    /// Returns true if the logits of the token after `sampled` tokens must be kept. If only the token's own log-prob is
    /// requested and the fused sampler's log-prob is that one, they need not be.
    pub(super) fn keeps_logits(&self, sampled: usize) -> bool {
        let changed = self.penalties != Penalties::NONE
            || !self.logit_bias.is_empty()
            || self.allowed_token_ids.is_some()
            || sampled < self.min_tokens;
        let t = self.sampling.temperature;
        let fused = match self.logprobs_mode {
            LogprobsMode::Raw => t == 0.0 || t == 1.0,
            LogprobsMode::Processed => t == 0.0 || !self.sampling.narrows(),
        };
        changed || self.logprobs.is_some_and(|top| top > 0 || !fused)
    }

    /// Returns true if some logits must be kept to answer the request.
    pub fn needs_logits(&self) -> bool {
        self.keeps_logits(0) || self.prompt_logprobs.is_some()
    }
}

/// The reason why a choice ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finish {
    /// This stop token or end-of-sequence token was sampled. It is the last token.
    Stop(u32),
    /// The limit of tokens or the model's context length was reached.
    Length,
    /// The model's logits are not finite, or the request's restrictions leave no id. Other choices continue.
    Failed(String),
}

/// A sampled token.
#[derive(Clone, PartialEq, Debug)]
pub struct SampledToken {
    /// The id.
    pub token_id: u32,
    /// Log-prob as the trainer computes it at the request's temperature, bit for bit: without penalties, biases,
    /// restrictions of the request and filters.
    pub rollout_logprob: f32,
    /// Log-prob in the requested distribution, if `logprobs` was requested.
    pub logprob: Option<f32>,
    /// Rank in that distribution, from 1 on. Among equally likely ids the lower one comes first. `None` if it was not
    /// needed.
    pub rank: Option<u32>,
    /// The most likely ids of that distribution, most likely first. Ids without probability are left out.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token of the prompt, given the tokens before it, at temperature 1.
#[derive(Clone, PartialEq, Debug)]
pub struct PromptLogprob {
    /// The id.
    pub token_id: u32,
    /// Log-prob over the policy's ids; minus infinity for other ids, for example those of images.
    pub logprob: f32,
    /// Rank, from 1 on.
    pub rank: u32,
    /// The most likely ids, most likely first.
    pub top_logprobs: Vec<TopLogprob>,
}

/// Result of a step for one choice.
#[derive(Clone, PartialEq, Debug)]
pub struct EngineCoreOutput {
    /// The request.
    pub request: RequestId,
    /// Index of the choice within the request.
    pub choice: usize,
    /// The token. `None` if the choice failed.
    pub token: Option<SampledToken>,
    /// Reason why the choice ended. `None` while it continues.
    pub finish: Option<Finish>,
    /// The whole choice when it has ended. `None` while it continues, and if it failed.
    pub completion: Option<CompletionOutput>,
    /// The prompt's tokens from the second on, if they were requested. Only the request's first output has them.
    pub prompt_logprobs: Option<Vec<PromptLogprob>>,
    /// Number of the prompt's tokens that the prefix cache supplied.
    pub num_cached_tokens: usize,
}

/// A choice that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionOutput {
    /// Number of the request: its index in a run, and its id otherwise.
    pub request: usize,
    /// Index of the choice within the request.
    pub index: usize,
    /// The sampled tokens, including a final stop token.
    pub token_ids: Vec<u32>,
    /// Log-prob of each token under the policy; see [`SampledToken::rollout_logprob`].
    pub logprobs: Vec<f32>,
    /// Reason why the choice ended.
    pub finish_reason: FinishReason,
}

/// Occupation of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineLoad {
    /// Number of choices that are running.
    pub num_running: usize,
    /// Number of choices that wait for room, including preempted ones.
    pub num_waiting: usize,
    /// Number of blocks that choices hold.
    pub num_used_blocks: usize,
    /// Number of blocks of the KV cache.
    pub num_blocks: usize,
}
