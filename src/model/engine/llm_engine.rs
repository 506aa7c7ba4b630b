//! The engine, its limits, and the loop that answers requests to their end.

use crate::engine::draft::Recorded;
use crate::engine::in_flight::Serving;
use crate::engine::model_runner::{KeptLogits, ModelRunner, Sampling};
use crate::engine::requests::{CompletionOutput, EngineCoreRequest, Finish};
use crate::engine::scheduler::{Scheduler, SchedulerConfig, SchedulerStats};
use crate::nn::Model;
use omr_base::error::{Error, Result};
use omr_runtime::device::Device;
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::ops::sample::{Draw, NoiseKey};
use omr_runtime::tensor::Tensor;

/// Limits of an engine.
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
    /// Number of rows up to which recorded tokens are added to a step with fewer rollouts as drafts; see
    /// [`Engine::expect`]. 0 disables drafts. Results are bitwise identical for any value.
    pub draft_rows: usize,
    /// Ids that may be sampled, as a u32 bitmap `[ceil(V / 32)]`. `None` allows all.
    pub allowed: Option<Tensor>,
    /// True if requests may need logits on the host; see [`Engine::add_request`]. Their memory is allocated for each
    /// step.
    pub keep_logits: bool,
}

impl EngineConfig {
    /// Returns limits for sequences of at most `max_model_len` tokens, without images.
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

/// An engine for continuous batching over a KV cache in the overlay region. It uses the caller's weights in place and
/// borrows nothing between calls. After the weights change, create a new engine.
#[derive(Debug)]
pub struct Engine {
    pub(super) config: EngineConfig,
    pub(super) scheduler: Scheduler,
    pub(super) runner: ModelRunner,
    pub(super) serving: Serving,
}

impl Engine {
    /// Allocates the caches on top of the overlay region; [`Engine::release`] frees them. On a counting device, this
    /// and [`Engine::generate`] compute the memory plan. Errors if a limit is zero or memory is short.
    pub fn new(model: &Model, dev: &mut Device, config: EngineConfig) -> Result<Engine> {
        let scheduler = Scheduler::new(config.scheduler())?;
        let runner = ModelRunner::new(model, dev, scheduler.config())?;
        let serving = Serving::new(model.config.text.vocab_size);
        Ok(Engine { config, scheduler, runner, serving })
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
    pub fn plan(&mut self, model: &Model, dev: &mut Device, requests: &[EngineCoreRequest]) -> Result<()> {
        let rollouts = requests.iter().map(|r| r.n).sum::<usize>();
        let samples = self.config.max_num_seqs.min(rollouts.max(self.config.draft_rows));
        let all = requests.iter().flat_map(|r| std::iter::repeat_n(r.params.sampling, r.n)).cycle();
        let draws: Vec<Draw> = all.take(samples).map(|p| Draw::new(p, NoiseKey::default(), 0, 0)).collect();
        let kept = self.config.keep_logits.then_some(KeptLogits { rows: &[], prompt: &[] });
        let sampling = Sampling { allowed: self.config.allowed, draws: &draws, kept };
        let images: Vec<_> = requests.iter().flat_map(|r| r.prompt.pixels.iter().cloned()).collect();
        let mixed = requests.iter().any(|request| request.prompt.of_base);
        self.runner.plan(model, dev, self.scheduler.config(), &images, sampling, mixed)
    }

    /// Answers all requests. The outputs are ordered by request and choice.
    pub fn generate(
        &mut self,
        model: &Model,
        dev: &mut Device,
        requests: &[EngineCoreRequest],
    ) -> Result<Vec<CompletionOutput>> {
        let (mut rest, mut outputs) = (requests.iter().cloned(), Vec::new());
        let keep = |ended: Vec<CompletionOutput>| {
            outputs.extend(ended);
            Ok(())
        };
        self.stream(model, dev, usize::MAX, || Ok(rest.next()), keep)?;
        outputs.sort_unstable_by_key(|output| (output.request, output.index));
        Ok(outputs)
    }

    /// Answers the requests that `next` returns, numbered in that order, until `next` returns `None`. A request is
    /// fetched only while fewer than about `ahead` tokens of prompts wait. A step can use no more than
    /// `max_num_batched_tokens`, so with this number the prompts need not all be in memory at the same time. After each
    /// step, `on_step` receives the choices that ended in it, which may be none. An error, including one from `next` or
    /// `on_step`, drops all requests.
    pub fn stream(
        &mut self,
        model: &Model,
        dev: &mut Device,
        ahead: usize,
        mut next: impl FnMut() -> Result<Option<EngineCoreRequest>>,
        mut on_step: impl FnMut(Vec<CompletionOutput>) -> Result<()>,
    ) -> Result<()> {
        if self.has_unfinished_requests() {
            return Err(Error::Failed("the engine is answering requests of add_request".to_owned()));
        }
        let mut answer = || {
            let (first, mut places, mut more) = (self.serving.next, Vec::new(), true);
            loop {
                while more && (ahead == usize::MAX || self.scheduler.waiting_tokens() < ahead) {
                    match next()? {
                        Some(request) => {
                            places.push(request.prompt.place_or(places.len()));
                            self.add_request(request)?;
                        }
                        None => more = false,
                    }
                }
                if !self.has_unfinished_requests() {
                    return Ok(());
                }
                let mut ended = Vec::new();
                for output in self.step(model, dev)? {
                    let request = (output.request.0 - first) as usize;
                    if let Some(Finish::Failed(why)) = output.finish {
                        return Err(Error::Failed(format!("{}: {why}", places[request])));
                    }
                    ended.extend(output.completion.map(|completion| CompletionOutput { request, ..completion }));
                }
                on_step(ended)?;
            }
        };
        let done = answer();
        if done.is_err() {
            self.abort();
        }
        done
    }
}
