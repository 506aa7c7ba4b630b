//! Requests in flight: what each of them needs for its next token, computed from its own tokens only.

use std::collections::HashMap;

use crate::engine::model_runner::{KeptRow, PromptRow};
use crate::engine::scheduler::{Scheduler, SeqId, Step};
use crate::engine::{EngineCoreOutput, Noise, Prompt, PromptLogprob, RequestId, RequestParams, SampledToken};
use omr_runtime::ops::sample::{Changes, Draw, NoiseKey, Penalties, Ranked, RowCall};

/// The requests that were added with `Engine::add_request` and have not ended.
#[derive(Debug)]
pub(super) struct Serving {
    /// Number of ids.
    pub vocab_size: usize,
    /// Id of the next request.
    pub next: u64,
    /// Requests by id.
    pub requests: HashMap<u64, InFlight>,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Slot of its group in the scheduler.
    pub slot: usize,
    params: RequestParams,
    /// Index of the first choice in the noise.
    first_choice: u32,
    /// Number of choices that have not ended.
    pub remaining: usize,
    /// Choices that were aborted before they started.
    pub dropped: Vec<usize>,
    /// The request's allowed ids as a bitmap.
    allowed: Option<Vec<u32>>,
    /// Ids that may not be sampled before `min_tokens`.
    stops: Vec<u32>,
    /// Distinct ids of the prompt, if repetition is penalized.
    prompt_ids: Vec<u32>,
    /// Occurrences of ids in the output of each choice. Empty without penalties.
    counts: Vec<HashMap<u32, u32>>,
    /// Log-probs of the prompt's tokens so far, if they were requested and not returned yet.
    pub prompt: Option<Vec<PromptLogprob>>,
    num_cached_tokens: Option<usize>,
}

impl InFlight {
    /// Creates the state of a request of `n` choices.
    pub fn new(
        slot: usize,
        n: usize,
        first_choice: u32,
        params: RequestParams,
        prompt: &Prompt,
        vocab: usize,
    ) -> InFlight {
        let allowed = params.allowed_token_ids.as_ref().map(|ids| {
            let mut bitmap = vec![0u32; vocab.div_ceil(32)];
            ids.iter().for_each(|&id| bitmap[id as usize / 32] |= 1 << (id % 32));
            bitmap
        });
        let mut prompt_ids = Vec::new();
        if params.penalties.repetition != 1.0 {
            prompt_ids.clone_from(&prompt.token_ids);
            prompt_ids.sort_unstable();
            prompt_ids.dedup();
        }
        let penalized = params.penalties != Penalties::NONE;
        InFlight {
            slot,
            first_choice,
            remaining: n,
            dropped: Vec::new(),
            allowed,
            stops: params.stop_token_ids.iter().chain(&*params.eos_token_ids).copied().collect(),
            prompt_ids,
            counts: if penalized { vec![HashMap::new(); n] } else { Vec::new() },
            prompt: params.prompt_logprobs.map(|_| Vec::with_capacity(prompt.token_ids.len())),
            num_cached_tokens: None,
            params,
        }
    }

    fn draw(&self, choice: usize, position: usize) -> Draw {
        let Noise { seed, step, prompt } = self.params.noise;
        let rollout = self.first_choice.wrapping_add(choice as u32);
        let key = NoiseKey { prompt, rollout, position: position as u32 };
        Draw::new(self.params.sampling, key, seed, step)
    }

    /// Returns how the token after `sampled` tokens of a choice is drawn from kept logits.
    fn call(&self, choice: usize, sampled: usize) -> RowCall<'_> {
        let changes = Changes {
            allowed: self.allowed.as_deref(),
            banned: if sampled < self.params.min_tokens { &self.stops } else { &[] },
            bias: &self.params.logit_bias,
            penalties: self.params.penalties,
            prompt: &self.prompt_ids,
            counts: self.counts.get(choice),
        };
        let report = self.params.logprobs.map(|top| (self.params.logprobs_mode, top));
        RowCall { draw: self.draw(choice, sampled), changes, report }
    }

    /// Returns the output for a token, and counts the token.
    pub fn output(&mut self, sample: &Sample, token_id: u32, logprob: f32, ranked: Option<Ranked>) -> EngineCoreOutput {
        if let Some(counts) = self.counts.get_mut(sample.id.rollout) {
            *counts.entry(token_id).or_default() += 1;
        }
        let (own, rank, top_logprobs) = match ranked {
            Some(ranked) => (Some(ranked.logprob), Some(ranked.rank), ranked.top),
            // The fused sampler's log-prob is the requested one; see `RequestParams::keeps_logits`.
            None => (self.params.logprobs.map(|_| logprob), None, Vec::new()),
        };
        let token = SampledToken { token_id, rollout_logprob: logprob, logprob: own, rank, top_logprobs };
        EngineCoreOutput { token: Some(token), ..self.no_token(sample) }
    }

    /// Returns an output without a token.
    pub fn no_token(&mut self, sample: &Sample) -> EngineCoreOutput {
        EngineCoreOutput {
            request: sample.request,
            choice: sample.id.rollout,
            token: None,
            finish: None,
            completion: None,
            prompt_logprobs: self.prompt.take(),
            num_cached_tokens: *self.num_cached_tokens.get_or_insert(sample.num_cached_tokens),
        }
    }
}

/// The choice that a sample of a step belongs to.
pub(super) struct Sample {
    /// The request.
    pub request: RequestId,
    /// The choice.
    pub id: SeqId,
    /// Number of the choice's tokens before this one.
    pub sampled: usize,
    /// Number of the prompt's tokens that the prefix cache supplied.
    pub num_cached_tokens: usize,
}

/// Samples of a step, and the tokens of prompts that it ranks.
pub(super) struct StepSamples<'a> {
    /// Draws of all samples.
    pub draws: Vec<Draw>,
    /// Samples from kept logits.
    pub kept: Vec<KeptRow<'a>>,
    /// Tokens of prompts.
    pub prompt: Vec<PromptRow>,
    /// Request of each entry of `prompt`.
    pub ranked: Vec<RequestId>,
}

impl Serving {
    /// Creates the state of an engine without requests.
    pub fn new(vocab_size: usize) -> Serving {
        Serving { vocab_size, next: 0, requests: HashMap::new() }
    }

    /// Returns how the samples of `step` are drawn, and which tokens of prompts it ranks.
    pub fn rows(&self, scheduler: &Scheduler, step: &Step) -> StepSamples<'_> {
        let mut rows = StepSamples { draws: Vec::new(), kept: Vec::new(), prompt: Vec::new(), ranked: Vec::new() };
        let mut first = 0;
        for s in &step.scheduled {
            let group = scheduler.group(s.seq.group);
            let request = group.request.request as u64;
            let in_flight = &self.requests[&request];
            for (sample, id) in s.samples.clone().zip(&step.samples[s.samples.clone()]) {
                let sampled = scheduler.sequence(*id).completion().len() + s.ahead(sample);
                let keeps = in_flight.params.keeps_logits(sampled);
                if keeps {
                    rows.kept.push(KeptRow { sample, call: in_flight.call(id.rollout, sampled) });
                }
                rows.draws.push(if keeps { Draw::kept() } else { in_flight.draw(id.rollout, sampled) });
            }
            for at in group.unscored(s.start, s.start + s.len) {
                let token_id = group.request.prompt.token_ids[at + 1];
                let top = in_flight.params.prompt_logprobs.unwrap_or(0);
                rows.prompt.push(PromptRow { row: (first + at - s.start) as u32, token_id, top });
                rows.ranked.push(RequestId(request));
            }
            first += s.len;
        }
        rows
    }
}
