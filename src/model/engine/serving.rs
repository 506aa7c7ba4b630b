//! A running engine that requests join and leave between steps: [`Engine::add_request`] and [`Engine::step`].
//!
//! The result of a choice depends on weights, arithmetic, request and index of the choice only. The row that a token is
//! drawn from has the same bits in any batch, the noise is keyed by seed, choice and position, and everything else is
//! computed from the choice's own tokens.

use crate::engine::in_flight::{InFlight, Sample};
use crate::engine::llm_engine::Engine;
use crate::engine::model_runner::{KeptLogits, Sampled, Sampling};
use crate::engine::requests::{
    CompletionOutput, EngineCoreOutput, EngineCoreRequest, EngineLoad, Finish, PromptLogprob, RequestId,
};
use crate::engine::scheduler::{Finished, Scheduled, SeqId};
use crate::engine::sequence::{FinishReason, GroupRequest};
use crate::nn::Model;
use omr_base::error::{Error, Result};
use omr_runtime::device::Device;
use omr_runtime::ops::sample::Ranked;

impl Engine {
    /// Adds a request, between any two steps. Errors, without adding it, if it could never be answered: if a parameter
    /// is outside its range, if it needs logits and [`EngineConfig::keep_logits`](super::EngineConfig) is false, or if
    /// its prompt is empty, too long for the model's context or the KV cache, or has too large an image.
    pub fn add_request(&mut self, request: EngineCoreRequest) -> Result<RequestId> {
        let EngineCoreRequest { prompt, n, first_choice, params } = request;
        params.validate(self.serving.vocab_size)?;
        if params.needs_logits() && !self.config.keep_logits {
            return Err(Error::Failed("the engine keeps no logits (keep_logits is false)".to_owned()));
        }
        let ends = params.eos_token_ids.iter().filter(|_| !params.ignore_eos);
        let id = self.serving.next;
        let slot = self.scheduler.add(GroupRequest {
            request: id as usize,
            prompt: prompt.clone(),
            n,
            max_tokens: params.max_tokens,
            stop_token_ids: params.stop_token_ids.iter().chain(ends).copied().collect(),
            drafts: !params.keeps_logits(0),
            prompt_logprobs: params.prompt_logprobs.is_some(),
            is_wide: params.is_wide,
        })?;
        let in_flight = InFlight::new(slot, n, first_choice, params, &prompt, self.serving.vocab_size);
        self.serving.requests.insert(id, in_flight);
        self.serving.next += 1;
        Ok(RequestId(id))
    }

    /// Returns true if a request of [`Engine::add_request`] is in flight.
    pub fn has_unfinished_requests(&self) -> bool {
        !self.serving.requests.is_empty()
    }

    /// Drops a request and frees its blocks. It gets no further output. Returns false if it is not in flight.
    pub fn abort_request(&mut self, id: RequestId) -> bool {
        let Some(in_flight) = self.serving.requests.remove(&id.0) else { return false };
        self.scheduler.abort_group(in_flight.slot);
        true
    }

    /// Drops one choice of a request and frees its blocks. It gets no further output. Returns false if it is not in
    /// flight.
    pub fn abort_choice(&mut self, id: RequestId, choice: usize) -> bool {
        let Some(in_flight) = self.serving.requests.get_mut(&id.0) else { return false };
        let group = self.scheduler.group(in_flight.slot);
        if choice >= group.request.n || in_flight.dropped.contains(&choice) {
            return false;
        }
        if choice >= group.started {
            in_flight.dropped.push(choice);
        } else if self.scheduler.abort_sequence(SeqId { group: in_flight.slot, rollout: choice }) {
            in_flight.remaining -= 1;
        } else {
            return false;
        }
        self.forget_ended(id);
        true
    }

    /// Forgets a request if none of its choices can get another output.
    fn forget_ended(&mut self, id: RequestId) {
        if self.serving.requests.get(&id.0).is_some_and(|request| request.remaining == request.dropped.len()) {
            self.abort_request(id);
        }
    }

    /// Records that a choice of a request has ended.
    fn choice_ended(&mut self, id: RequestId) {
        if let Some(in_flight) = self.serving.requests.get_mut(&id.0) {
            in_flight.remaining -= 1;
            self.forget_ended(id);
        }
    }

    /// Drops the prefix cache and the vision cache. Must be called after the weights have changed in place. Requests in
    /// flight keep their tokens; their keys and the log-probs of their prompts are computed again.
    pub fn update_weights(&mut self) {
        let requests = &self.serving.requests;
        self.scheduler.recompute(|id| requests.get(&(id as u64)).is_some_and(|request| request.prompt.is_some()));
        self.serving.requests.values_mut().filter_map(|request| request.prompt.as_mut()).for_each(Vec::clear);
    }

    /// Returns how much of the engine is occupied.
    pub fn load(&self) -> EngineLoad {
        let [num_running, num_waiting] = self.scheduler.num_running_and_waiting();
        let num_blocks = self.scheduler.config().num_blocks;
        let num_used_blocks = num_blocks - self.scheduler.blocks().num_free_blocks();
        EngineLoad { num_running, num_waiting, num_used_blocks, num_blocks }
    }

    /// Computes a step and returns what it sampled, in a fixed order. Without requests, returns an empty list. After an
    /// error, which is the device's, no request is in flight.
    pub fn step(&mut self, model: &Model, dev: &mut Device) -> Result<Vec<EngineCoreOutput>> {
        if !self.has_unfinished_requests() {
            return Ok(Vec::new());
        }
        let done = self.serving_step(model, dev);
        if done.is_err() {
            self.abort();
        }
        done
    }

    /// Drops all requests and empties the caches.
    pub(super) fn abort(&mut self) {
        self.scheduler.abort();
        self.serving.requests.clear();
        // A step that was planned but not computed may have left entries in the caches whose content is missing.
        self.scheduler.reset_caches();
    }

    fn serving_step(&mut self, model: &Model, dev: &mut Device) -> Result<Vec<EngineCoreOutput>> {
        let mut step = self.scheduler.schedule()?;
        let rows = self.serving.rows(&self.scheduler, &step);
        let kept = self.config.keep_logits.then_some(KeptLogits { rows: &rows.kept, prompt: &rows.prompt });
        let sampling = Sampling { allowed: self.config.allowed, draws: &rows.draws, kept };
        let Sampled { mut token_ids, mut logprobs, rows: results, prompt } =
            self.runner.run(model, dev, &self.scheduler, &step, sampling)?;
        let mut ranked: Vec<Option<Ranked>> = vec![None; step.samples.len()];
        for (row, result) in rows.kept.iter().zip(results) {
            ranked[row.sample] = result.ranked;
        }
        let wanted: Vec<(RequestId, u32)> =
            rows.ranked.into_iter().zip(rows.prompt.iter().map(|r| r.token_id)).collect();
        for ((request, token_id), Ranked { logprob, rank, top }) in wanted.into_iter().zip(prompt) {
            let list = self.serving.requests.get_mut(&request.0).and_then(|in_flight| in_flight.prompt.as_mut());
            list.into_iter().for_each(|list| {
                list.push(PromptLogprob { token_id, logprob, rank, top_logprobs: top.clone() });
            });
        }
        let before: Vec<usize> = step.scheduled.iter().map(|s| s.samples.start).collect();
        step.verify(&mut token_ids, &mut logprobs);
        // The samples that remain are the first ones of each sequence.
        let stay = step.scheduled.iter().zip(before).flat_map(|(s, from)| from..from + s.samples.len());
        let ranked: Vec<Option<Ranked>> = stay.map(|at| ranked[at].take()).collect();
        let sample = |(s, at): (&Scheduled, usize)| {
            let id = step.samples[at];
            let request = RequestId(self.scheduler.group(id.group).request.request as u64);
            let sequence = self.scheduler.sequence(id);
            let sampled = sequence.completion().len() + s.ahead(at);
            Sample { request, id, sampled, num_cached_tokens: sequence.num_cached_tokens }
        };
        let each = step.scheduled.iter().flat_map(|s| s.samples.clone().map(move |at| (s, at)));
        let samples: Vec<Sample> = each.map(sample).collect();
        let finished = self.scheduler.postprocess(&step, &token_ids, &logprobs);
        let mut outputs: Vec<EngineCoreOutput> = Vec::with_capacity(samples.len());
        // Sequences that end for another reason than their tokens.
        let mut ended: Vec<&Sample> = Vec::new();
        for (((sample, &token_id), &logprob), ranked) in samples.iter().zip(&token_ids).zip(&logprobs).zip(ranked) {
            let Some(in_flight) = self.serving.requests.get_mut(&sample.request.0) else { continue };
            if ended.iter().any(|other| other.id == sample.id) {
                continue;
            }
            if in_flight.dropped.contains(&sample.id.rollout) {
                in_flight.dropped.retain(|&choice| choice != sample.id.rollout);
                ended.push(sample);
            } else if logprob.is_finite() {
                outputs.push(in_flight.output(sample, token_id, logprob, ranked));
            } else {
                let finish = Some(Finish::Failed(format!(
                    "the model's logits for token {} of a response are not finite (a lower learning rate may help), or the \
                     request's restrictions leave no id",
                    sample.sampled + 1
                )));
                outputs.push(EngineCoreOutput { finish, ..in_flight.no_token(sample) });
                ended.push(sample);
            }
        }
        self.finish(finished, &mut outputs);
        for sample in ended {
            if self.scheduler.abort_sequence(sample.id) {
                self.choice_ended(sample.request);
            }
        }
        Ok(outputs)
    }

    /// Records in `outputs` which choices have ended.
    fn finish(&mut self, finished: Vec<Finished>, outputs: &mut [EngineCoreOutput]) {
        for Finished { request: number, mut sequence } in finished {
            let (request, index) = (RequestId(number as u64), sequence.rollout);
            let is_its = |o: &&mut EngineCoreOutput| o.request == request && o.choice == index;
            if let Some(output) = outputs.iter_mut().rfind(is_its)
                && output.finish.is_none()
            {
                output.finish = Some(match (sequence.finish_reason, sequence.token_ids.last()) {
                    (Some(FinishReason::Stop), Some(&token_id)) => Finish::Stop(token_id),
                    _ => Finish::Length,
                });
                output.completion = Some(CompletionOutput {
                    request: number,
                    index,
                    token_ids: sequence.token_ids.split_off(sequence.num_prompt_tokens),
                    logprobs: sequence.logprobs,
                    finish_reason: sequence.finish_reason.unwrap_or(FinishReason::Length),
                });
            }
            self.choice_ended(request);
        }
    }
}
