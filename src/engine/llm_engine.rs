//! The engine's interface: accepts requests, runs the steps, and returns rollouts.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::base_model;
use crate::device::Device;
use crate::engine::draft::Recorded;
use crate::engine::in_flight::Serving;
use crate::engine::model_runner::{KeptLogits, ModelRunner, Sampling};
use crate::engine::scheduler::{Scheduler, SchedulerConfig, SchedulerStats, SeqId, Step};
use crate::engine::sequence::{FinishReason, GroupRequest, Prompt};
use crate::error::{Error, Result};
use crate::files;
use crate::model::Model;
use crate::ops::attend::BLOCK;
use crate::ops::sample::{Draw, NoiseKey, SamplingParams};
use crate::tensor::Tensor;

/// Limits of an engine and the seeds of its noise.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Maximum number of rollouts in flight.
    pub max_num_seqs: usize,
    /// Maximum number of tokens computed in a step. Longer prompts are prefilled in chunks.
    pub max_num_batched_tokens: usize,
    /// Maximum number of tokens of a sequence, including the prompt.
    pub max_model_len: usize,
    /// Number of KV cache blocks with 128 keys each. `None` allocates enough for `max_num_seqs` sequences of full
    /// length.
    pub num_kv_blocks: Option<usize>,
    /// Number of rows of the vision cache. Must be at least the number of rows of the largest image.
    pub vision_rows: usize,
    /// True if computed blocks are found again by content (prefix caching).
    pub enable_prefix_caching: bool,
    /// Number of rows up to which drafted tokens are added to a step with fewer rollouts; see
    /// [`crate::engine::draft::rows`]. 0 disables drafts. Results are bitwise identical for any value.
    pub draft_rows: usize,
    /// Ids that may be sampled, as a u32 bitmap `[ceil(V / 32)]`. `None` allows all.
    pub allowed: Option<Tensor>,
    /// True if requests may need logits on the host; see [`Engine::add_request`]. Their memory is allocated for each
    /// step.
    pub keep_logits: bool,
    /// Seed of the run.
    pub seed: u64,
    /// Training step. Each step has different noise.
    pub step: u64,
}

impl EngineConfig {
    /// Returns limits for sequences of at most `max_model_len` tokens, without images and with seed 0.
    pub fn new(max_model_len: usize) -> EngineConfig {
        EngineConfig {
            max_num_seqs: 256,
            max_num_batched_tokens: 8192,
            max_model_len,
            num_kv_blocks: None,
            vision_rows: 0,
            enable_prefix_caching: true,
            draft_rows: 0,
            allowed: None,
            keep_logits: false,
            seed: 0,
            step: 0,
        }
    }

    /// Returns the number of blocks of the KV cache.
    pub fn num_kv_blocks(&self) -> usize {
        let full = self.max_model_len.div_ceil(BLOCK).saturating_mul(self.max_num_seqs);
        self.num_kv_blocks.unwrap_or(full)
    }

    fn scheduler(&self) -> SchedulerConfig {
        SchedulerConfig {
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_model_len: self.max_model_len,
            num_blocks: self.num_kv_blocks(),
            block_size: BLOCK,
            vision_rows: self.vision_rows,
            enable_prefix_caching: self.enable_prefix_caching,
            draft_rows: self.draft_rows,
        }
    }
}

/// Returns the ids that end an answer: `eos_token_id` (one id or a list) in the model directory's
/// generation_config.json, or `fallback` if it is missing.
pub fn stop_token_ids(dir: &Path, fallback: &[u32]) -> Result<Arc<[u32]>> {
    const NAME: &str = "generation_config.json";
    let path = base_model::holder(dir, NAME)?.join(NAME);
    if !path.exists() {
        return Ok(fallback.into());
    }
    let text = files::read_to_string(&path).map_err(Error::io(&path))?;
    let config: Value = serde_json::from_str(&text).map_err(|e| Error::format(&path, format!("not JSON: {e}")))?;
    let wrong =
        || Error::format(&path, format!("eos_token_id is {}, expected an id or a list of ids", config["eos_token_id"]));
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
    match &config["eos_token_id"] {
        Value::Null => Ok(fallback.into()),
        Value::Array(list) if list.is_empty() => Ok(fallback.into()),
        Value::Array(list) => list.iter().map(id).collect(),
        one => Ok(Arc::from([id(one)?])),
    }
}

/// A prompt and the settings for answering it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// Number of rollouts.
    pub n: usize,
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// Maximum number of tokens of a rollout.
    pub max_tokens: usize,
    /// Stop tokens. A rollout ends with the first of these.
    pub stop_token_ids: Arc<[u32]>,
    /// Number of the prompt in the noise key. Requests with equal prompts get different rollouts if this number
    /// differs.
    pub noise: u32,
    /// Number of the first rollout in the noise key. If the rollouts of a prompt are requested in parts, each part
    /// continues the numbering of the previous one.
    pub first_rollout: u32,
}

/// A finished rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Index of the request.
    pub request: usize,
    /// Index of the rollout within the request.
    pub rollout: usize,
    /// The sampled tokens, including a final stop token.
    pub token_ids: Vec<u32>,
    /// Log-prob of each token under the policy. Temperature and allowed ids are applied; top-k, top-p and min-p are
    /// not.
    pub logprobs: Vec<f32>,
    /// Reason why the rollout ended.
    pub finish_reason: FinishReason,
}

/// An event during generation. Events arrive in a fixed order.
#[derive(Debug)]
pub enum Event<'a> {
    /// A token was sampled.
    Token {
        /// Index of the request.
        #[cfg_attr(private_tree, expect(dead_code, reason = "servers distinguish their clients' streams with it"))]
        request: usize,
        /// Index of the rollout within the request.
        #[cfg_attr(private_tree, expect(dead_code, reason = "servers distinguish their clients' streams with it"))]
        rollout: usize,
        /// The token.
        #[cfg_attr(private_tree, expect(dead_code, reason = "tests compare the tokens of events with the outputs"))]
        token_id: u32,
    },
    /// A rollout has ended.
    Finished(&'a Output),
}

/// An engine for continuous batching over a KV cache in the overlay region. It uses the caller's weights in place and
/// borrows nothing between calls. After the weights change, create a new engine.
#[derive(Debug)]
pub struct Engine {
    pub(super) config: EngineConfig,
    pub(super) scheduler: Scheduler,
    pub(super) runner: ModelRunner,
    /// Sampling parameters and noise key of each request of [`Engine::generate`] or [`Engine::stream`].
    requests: Vec<(SamplingParams, NoiseKey)>,
    draws: Vec<Draw>,
    pub(super) serving: Serving,
}

impl Engine {
    /// Allocates the caches on top of the overlay region; [`Engine::release`] frees them. On a counting device, this
    /// and [`Engine::generate`] compute the memory plan. Errors if a limit is zero or memory is short.
    pub fn new(model: &Model, dev: &mut Device, config: EngineConfig) -> Result<Engine> {
        let scheduler = Scheduler::new(config.scheduler())?;
        let runner = ModelRunner::new(model, dev, scheduler.config())?;
        let serving = Serving::new(model.config.text.vocab_size);
        Ok(Engine { config, scheduler, runner, requests: Vec::new(), draws: Vec::new(), serving })
    }

    /// Frees the caches, and everything else that was allocated in the overlay region after [`Engine::new`].
    pub fn release(self, dev: &mut Device) {
        self.runner.release(dev);
    }

    /// Sets recorded tokens as drafts for the rollouts of later requests, as far as [`EngineConfig::draft_rows`]
    /// allows. Sampled tokens are compared with the record, several per step. Results are bitwise identical.
    pub fn expect(&mut self, recorded: Recorded) {
        self.scheduler.expect(recorded);
    }

    /// Returns the counts since the engine was created.
    pub fn stats(&self) -> SchedulerStats {
        self.scheduler.stats()
    }

    /// Runs, on a counting device, the largest step that answering `requests` can require. The high-water mark of the
    /// device is then the memory plan of [`Engine::new`] and [`Engine::generate`]. If a prompt is for the base of a model
    /// with adapters, other prompts may be for the model.
    pub fn plan(&mut self, model: &Model, dev: &mut Device, requests: &[Request]) -> Result<()> {
        let rollouts = requests.iter().map(|r| r.n).sum::<usize>();
        let samples = self.config.max_num_seqs.min(rollouts.max(self.config.draft_rows));
        let all = requests.iter().flat_map(|r| std::iter::repeat_n(r.sampling, r.n)).cycle();
        let draws: Vec<Draw> = all.take(samples).map(|p| Draw::new(p, NoiseKey::default(), 0, 0)).collect();
        let kept = self.config.keep_logits.then_some(KeptLogits { rows: &[], prompt: &[] });
        let sampling = Sampling { allowed: self.config.allowed, draws: &draws, kept };
        let images: Vec<_> = requests.iter().flat_map(|r| r.prompt.pixels.iter().cloned()).collect();
        let mixed = requests.iter().any(|request| request.prompt.of_base);
        self.runner.plan(model, dev, self.scheduler.config(), &images, sampling, mixed)
    }

    /// Answers all requests. The outputs are ordered by request and rollout. `on_event` is called for each token and
    /// each finished rollout as they occur. An error, including one from `on_event`, ends the generation.
    pub fn generate(
        &mut self,
        model: &Model,
        dev: &mut Device,
        requests: &[Request],
        mut on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Vec<Output>> {
        let mut first = Vec::with_capacity(requests.len());
        let mut total = 0;
        for request in requests {
            first.push(total);
            total += request.n;
        }
        let mut outputs: Vec<Option<Output>> = vec![None; total];
        let mut rest = requests.iter().cloned();
        self.answer(
            model,
            dev,
            usize::MAX,
            || Ok(rest.next()),
            |event| {
                if let Event::Finished(output) = &event {
                    outputs[first[output.request] + output.rollout] = Some((*output).clone());
                }
                on_event(event)
            },
        )?;
        let lost = || Error::Failed("a rollout was lost by the scheduler".into());
        outputs.into_iter().collect::<Option<Vec<Output>>>().ok_or_else(lost)
    }

    /// Answers the requests that `next` returns, numbered in that order, until `next` returns `None`. A request is
    /// fetched only when the next step can use it, so the prompts need not all be in memory at the same time. Outputs
    /// are passed only to `on_event`.
    pub fn stream(
        &mut self,
        model: &Model,
        dev: &mut Device,
        next: impl FnMut() -> Result<Option<Request>>,
        on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        self.answer(model, dev, self.config.max_num_batched_tokens, next, on_event)
    }

    /// Answers the requests that `next` returns. At most about `ahead` tokens of prompts wait at any time.
    fn answer(
        &mut self,
        model: &Model,
        dev: &mut Device,
        ahead: usize,
        next: impl FnMut() -> Result<Option<Request>>,
        on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        if self.has_unfinished_requests() {
            return Err(Error::Failed("the engine is answering requests of add_request".to_owned()));
        }
        let done = self.run(model, dev, ahead, next, on_event);
        self.scheduler.abort();
        self.requests.clear();
        if done.is_err() {
            // A step that was planned but not computed may have left entries in the caches whose content is missing.
            self.scheduler.reset_caches();
        }
        done
    }

    fn run(
        &mut self,
        model: &Model,
        dev: &mut Device,
        ahead: usize,
        mut next: impl FnMut() -> Result<Option<Request>>,
        mut on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut more = true;
        loop {
            while more && (ahead == usize::MAX || self.scheduler.waiting_tokens() < ahead) {
                match next()? {
                    Some(request) => self.add(request)?,
                    None => more = false,
                }
            }
            if self.scheduler.is_finished() {
                return Ok(());
            }
            self.event_step(model, dev, &mut on_event)?;
        }
    }

    fn add(&mut self, request: Request) -> Result<()> {
        let index = self.requests.len();
        let Request { prompt, n, sampling, max_tokens, stop_token_ids, noise, first_rollout } = request;
        sampling.validate(&format!("prompt {index}"))?;
        let group = GroupRequest {
            request: index,
            prompt,
            n,
            max_tokens,
            stop_token_ids,
            drafts: true,
            prompt_logprobs: false,
            is_wide: false,
        };
        self.scheduler.add(group)?;
        self.requests.push((sampling, NoiseKey { prompt: noise, rollout: first_rollout, position: 0 }));
        Ok(())
    }

    /// Plans one step, computes it and reports its results.
    fn event_step(
        &mut self,
        model: &Model,
        dev: &mut Device,
        on_event: &mut impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut step = self.scheduler.schedule()?;
        self.draw(&step);
        let kept = self.config.keep_logits.then_some(KeptLogits { rows: &[], prompt: &[] });
        let sampling = Sampling { allowed: self.config.allowed, draws: &self.draws, kept };
        let sampled = self.runner.run(model, dev, &self.scheduler, &step, sampling)?;
        let (mut token_ids, mut logprobs) = (sampled.token_ids, sampled.logprobs);
        step.verify(&mut token_ids, &mut logprobs);
        if let Some(bad) = logprobs.iter().position(|logprob| !logprob.is_finite()) {
            return Err(self.not_finite(&step.samples[..=bad]));
        }
        let rollout_ids = |id: &SeqId| (self.scheduler.group(id.group).request.request, id.rollout);
        let rollout_ids: Vec<(usize, usize)> = step.samples.iter().map(rollout_ids).collect();
        let finished = self.scheduler.postprocess(&step, &token_ids, &logprobs);
        for (&(request, rollout), &token_id) in rollout_ids.iter().zip(&token_ids) {
            on_event(Event::Token { request, rollout, token_id })?;
        }
        for done in finished {
            let sequence = done.sequence;
            let output = Output {
                request: done.request,
                rollout: sequence.rollout,
                token_ids: sequence.completion().to_vec(),
                finish_reason: sequence.finish_reason.unwrap_or(FinishReason::Length),
                logprobs: sequence.logprobs,
            };
            on_event(Event::Finished(&output))?;
        }
        Ok(())
    }

    /// Sets sampling parameters and noise for each sample of a step.
    fn draw(&mut self, step: &Step) {
        self.draws.clear();
        for s in &step.scheduled {
            for (at, id) in s.samples.clone().zip(&step.samples[s.samples.clone()]) {
                let position = (self.scheduler.sequence(*id).completion().len() + s.ahead(at)) as u32;
                let (sampling, of) = self.requests[self.scheduler.group(id.group).request.request];
                let noise = NoiseKey { rollout: of.rollout + id.rollout as u32, position, ..of };
                self.draws.push(Draw::new(sampling, noise, self.config.seed, self.config.step));
            }
        }
    }

    /// Returns the error for the last of `samples`, whose log-prob is not finite.
    fn not_finite(&self, samples: &[SeqId]) -> Error {
        let Some(id) = samples.last() else { return Error::Failed("nothing was sampled".to_owned()) };
        let request = &self.scheduler.group(id.group).request;
        let place = match request.prompt.place.as_str() {
            "" => format!("prompt {}", request.request),
            place => place.to_owned(),
        };
        let sampled = samples.iter().filter(|sample| *sample == id).count();
        let token = self.scheduler.sequence(*id).completion().len() + sampled;
        Error::Failed(format!("{place}: the model's logits for token {token} of a response are not finite"))
    }
}
