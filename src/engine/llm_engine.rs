//! The engine: requests in, rollouts out, step by step.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::device::Device;
use crate::engine::draft::Recorded;
use crate::engine::model_runner::{ModelRunner, Sampling};
use crate::engine::scheduler::{Scheduler, SchedulerConfig, SchedulerStats, SeqId, Step};
use crate::engine::sequence::{FinishReason, GroupRequest, Prompt};
use crate::error::{Error, Result};
use crate::files;
use crate::model::Model;
use crate::ops::attend::BLOCK;
use crate::ops::sample::{Draw, NoiseKey, SamplingParams};
use crate::tensor::Tensor;

/// Limits of an engine and what its noise is drawn from.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Most rollouts in flight.
    pub max_num_seqs: usize,
    /// Most tokens computed in a step; longer prompts are prefilled in chunks.
    pub max_num_batched_tokens: usize,
    /// Most tokens of a sequence, prompt included.
    pub max_model_len: usize,
    /// Blocks of 128 keys; `None` makes as many as `max_num_seqs` sequences of full length need.
    pub num_kv_blocks: Option<usize>,
    /// Rows of the vision cache: at least those of the largest image.
    pub vision_rows: usize,
    /// Find computed blocks again by content.
    pub enable_prefix_caching: bool,
    /// Steps of fewer rollouts are filled up to so many rows with drafted tokens, see [`crate::engine::draft::rows`]; 0
    /// drafts none. Changes no token and no bit.
    pub draft_rows: usize,
    /// Ids that may be sampled, u32 bitmap `[ceil(V / 32)]`; `None`: all.
    pub allowed: Option<Tensor>,
    /// The run's seed.
    pub seed: u64,
    /// The training step: each has noise of its own.
    pub step: u64,
}

impl EngineConfig {
    /// Limits for sequences of at most `max_model_len` tokens, no images, seed 0.
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
            seed: 0,
            step: 0,
        }
    }

    fn scheduler(&self) -> SchedulerConfig {
        let full = self.max_model_len.div_ceil(BLOCK).saturating_mul(self.max_num_seqs);
        SchedulerConfig {
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_model_len: self.max_model_len,
            num_blocks: self.num_kv_blocks.unwrap_or(full),
            block_size: BLOCK,
            vision_rows: self.vision_rows,
            enable_prefix_caching: self.enable_prefix_caching,
            draft_rows: self.draft_rows,
        }
    }
}

/// The ids that end an answer: `eos_token_id` (one or a list) of the model directory's generation_config.json,
/// else `fallback`.
pub fn stop_token_ids(dir: &Path, fallback: &[u32]) -> Result<Arc<[u32]>> {
    let path = dir.join("generation_config.json");
    if !path.exists() {
        return Ok(fallback.into());
    }
    let text = files::read_to_string(&path).map_err(Error::io(&path))?;
    let config: Value = serde_json::from_str(&text).map_err(|e| Error::format(&path, format!("not JSON: {e}")))?;
    let wrong = || Error::format(&path, format!("eos_token_id is {}, not an id or ids", config["eos_token_id"]));
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
    match &config["eos_token_id"] {
        Value::Null => Ok(fallback.into()),
        Value::Array(list) if list.is_empty() => Ok(fallback.into()),
        Value::Array(list) => list.iter().map(id).collect(),
        one => Ok(Arc::from([id(one)?])),
    }
}

/// One prompt and how to answer it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// Number of rollouts.
    pub n: usize,
    /// How to pick tokens.
    pub sampling: SamplingParams,
    /// Most tokens of a rollout.
    pub max_tokens: usize,
    /// A rollout ends with the first of these.
    pub stop_token_ids: Arc<[u32]>,
    /// Names the prompt in the noise: rollouts of equal prompts differ when this does.
    pub noise: u32,
    /// The number of the first rollout in the noise: where a prompt's rollouts are asked for in parts, each part goes on
    /// from the one before.
    pub first_rollout: u32,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Index of the request.
    pub request: usize,
    /// Index among the request's rollouts.
    pub rollout: usize,
    /// The sampled tokens, a final stop token included.
    pub token_ids: Vec<u32>,
    /// Log-probability of each under the policy: temperature and allowed ids applied, top-k, top-p and min-p not.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// What happens while the engine runs, in a fixed order.
#[derive(Debug)]
pub enum Event<'a> {
    /// A token was sampled.
    Token {
        /// Index of the request.
        #[cfg_attr(private_tree, expect(dead_code, reason = "a server tells its clients' streams apart by it"))]
        request: usize,
        /// Index among its rollouts.
        #[cfg_attr(private_tree, expect(dead_code, reason = "a server tells its clients' streams apart by it"))]
        rollout: usize,
        /// The token.
        token_id: u32,
    },
    /// A rollout has ended.
    Finished(&'a Output),
}

/// Continuous batching over a KV cache in the overlay region. It borrows nothing between calls: the weights are
/// the caller's, used in place. When they change, begin with a fresh engine.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    scheduler: Scheduler,
    runner: ModelRunner,
    /// How tokens of each request are picked, and the name of its noise.
    requests: Vec<(SamplingParams, NoiseKey)>,
    draws: Vec<Draw>,
}

impl Engine {
    /// Lays the caches out on top of the overlay region; [`Engine::release`] takes them down. On a device that
    /// only counts this and [`Engine::generate`] are the plan. Errors when a limit is zero or memory is short.
    pub fn new(model: &Model, dev: &mut Device, config: EngineConfig) -> Result<Engine> {
        let scheduler = Scheduler::new(config.scheduler())?;
        let runner = ModelRunner::new(model, dev, scheduler.config())?;
        Ok(Engine { config, scheduler, runner, requests: Vec::new(), draws: Vec::new() })
    }

    /// Frees the caches. What was allocated in the overlay region since [`Engine::new`] goes with them.
    pub fn release(self, dev: &mut Device) {
        self.runner.release(dev);
    }

    /// Rollouts of the requests that come are drafted from the record, where [`EngineConfig::draft_rows`] leaves room: what
    /// is drawn is compared with it, several tokens a step. Changes no token and no bit.
    pub fn expect(&mut self, recorded: Recorded) {
        self.scheduler.expect(recorded);
    }

    /// Counts since the engine was made.
    pub fn stats(&self) -> SchedulerStats {
        self.scheduler.stats()
    }

    /// On a device that only counts: runs a step as large as answering `requests` can need, so that the device's
    /// high-water mark is the plan of [`Engine::new`] and [`Engine::generate`].
    pub fn plan(&mut self, model: &Model, dev: &mut Device, requests: &[Request]) -> Result<()> {
        let rollouts = requests.iter().map(|r| r.n).sum::<usize>();
        let samples = self.config.max_num_seqs.min(rollouts.max(self.config.draft_rows));
        let all = requests.iter().flat_map(|r| std::iter::repeat_n(r.sampling, r.n)).cycle();
        let draws: Vec<Draw> = all.take(samples).map(|p| Draw::new(p, NoiseKey::default(), 0, 0)).collect();
        let sampling = Sampling { allowed: self.config.allowed, draws: &draws };
        let images: Vec<_> = requests.iter().flat_map(|r| r.prompt.pixels.iter().cloned()).collect();
        self.runner.plan(model, dev, self.scheduler.config(), &images, sampling)
    }

    /// Answers all requests. The outputs come ordered by request and rollout; `on_event` hears of each token and
    /// each end as they happen. An error, also one from `on_event`, ends all.
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

    /// Answers requests that `next` gives, numbered in that order, until it has no more. No more are taken than the next
    /// step can begin with, so that prompts need not be in memory together; outputs are given to `on_event` alone.
    pub fn stream(
        &mut self,
        model: &Model,
        dev: &mut Device,
        next: impl FnMut() -> Result<Option<Request>>,
        on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        self.answer(model, dev, self.config.max_num_batched_tokens, next, on_event)
    }

    /// Answers what `next` gives, with at most about `ahead` tokens of prompts waiting.
    fn answer(
        &mut self,
        model: &Model,
        dev: &mut Device,
        ahead: usize,
        next: impl FnMut() -> Result<Option<Request>>,
        on_event: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let done = self.run(model, dev, ahead, next, on_event);
        self.scheduler.abort();
        self.requests.clear();
        if done.is_err() {
            // A step that was planned and not computed has left promises in the caches.
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
            self.step(model, dev, &mut on_event)?;
        }
    }

    fn add(&mut self, request: Request) -> Result<()> {
        let index = self.requests.len();
        let Request { prompt, n, sampling, max_tokens, stop_token_ids, noise, first_rollout } = request;
        sampling.validate(&format!("prompt {index}"))?;
        self.scheduler.add(GroupRequest { request: index, prompt, n, max_tokens, stop_token_ids })?;
        self.requests.push((sampling, NoiseKey { prompt: noise, rollout: first_rollout, position: 0 }));
        Ok(())
    }

    /// Plans a step, computes it and reports it.
    fn step(
        &mut self,
        model: &Model,
        dev: &mut Device,
        on_event: &mut impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut step = self.scheduler.schedule()?;
        self.draw(&step);
        let sampling = Sampling { allowed: self.config.allowed, draws: &self.draws };
        let (mut token_ids, mut logprobs) = self.runner.run(model, dev, &self.scheduler, &step, sampling)?;
        step.verify(&mut token_ids, &mut logprobs);
        if let Some(bad) = logprobs.iter().position(|logprob| !logprob.is_finite()) {
            return Err(self.not_finite(&step.samples[..=bad]));
        }
        let whose = |id: &SeqId| (self.scheduler.group(id.group).request.request, id.rollout);
        let whose: Vec<(usize, usize)> = step.samples.iter().map(whose).collect();
        let finished = self.scheduler.postprocess(&step, &token_ids, &logprobs);
        for (&(request, rollout), &token_id) in whose.iter().zip(&token_ids) {
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

    /// How each of a step's samples is drawn.
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

    /// The last of `samples` has no finite log-probability.
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
