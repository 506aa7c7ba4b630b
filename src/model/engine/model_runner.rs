//! Executes the steps that the scheduler plans: it copies blocks, runs the vision tower on images that are not cached,
//! runs the decoder over the step's tokens with paged attention, and samples. It makes no scheduling decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::batch::Batch;
use crate::engine::block_manager::BlockCopy;
use crate::engine::decode_graphs::{DecodeGraphs, Key, padded_size};
use crate::engine::scheduler::{Scheduler, SchedulerConfig, Step};
use crate::engine::step_inputs::StepInputs;
use crate::nn::weights::linear_layer::Adapted;
use crate::nn::{Attend, Mode, Model, Tape, Var};
use omr_base::error::Result;
use omr_data::image::ImageInput;
use omr_runtime::device::{Device, Mark, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::paged_attention::{self, Decode, KvCache, Split};
use omr_runtime::ops::rows;
use omr_runtime::ops::sample::{self, Draw, NoiseKey, Ranked, RowCall, RowSample, SamplingParams};
use omr_runtime::tensor::{DType, Tensor};

/// The settings with which a step's tokens are sampled.
#[derive(Clone, Copy, Debug)]
pub struct Sampling<'a> {
    /// Ids that may be sampled.
    pub allowed: Option<Tensor>,
    /// Sampling parameters and noise, one entry per sample of the step. Entries of `kept` are [`Draw::kept`].
    pub draws: &'a [Draw],
    /// Rows that are computed from logits on the host. `None` if the engine keeps no logits.
    pub kept: Option<KeptLogits<'a>>,
}

/// The rows of a step whose logits are kept.
#[derive(Clone, Copy, Debug)]
pub struct KeptLogits<'a> {
    /// Samples that are drawn from kept logits.
    pub rows: &'a [KeptRow<'a>],
    /// Tokens of prompts whose log-probs are requested.
    pub prompt: &'a [PromptRow],
}

/// A sample that is drawn from kept logits.
#[derive(Clone, Copy, Debug)]
pub struct KeptRow<'a> {
    /// Index of the sample in the step.
    pub sample: usize,
    /// Parameters of the draw, and what it reports.
    pub call: RowCall<'a>,
}

/// A token of a prompt whose log-prob is requested.
#[derive(Clone, Copy, Debug)]
pub struct PromptRow {
    /// Index, among the step's tokens, of the token before it.
    pub row: u32,
    /// The token.
    pub token_id: u32,
    /// Number of the most likely ids to report.
    pub top: usize,
}

/// Results of a step.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Sampled {
    /// Token of each sample.
    pub token_ids: Vec<u32>,
    /// Log-prob of each of these tokens.
    pub logprobs: Vec<f32>,
    /// Results of the kept rows, in the order of [`KeptLogits::rows`]. Their tokens and log-probs are also in the lists
    /// above.
    pub rows: Vec<RowSample>,
    /// Results of [`KeptLogits::prompt`].
    pub prompt: Vec<Ranked>,
}

/// Maximum number of tokens of prompts whose logits are held at a time. Their product reads the output weight once.
const PROMPT_ROWS: usize = 64;

/// The caches in the overlay region and the buffers of a step.
#[derive(Debug)]
pub struct ModelRunner {
    caches: Arc<[KvCache]>,
    heads: Heads,
    /// Arrival counters for decode attention on a GPU.
    tickets: Option<Tensor>,
    /// Vision cache, `[vision_rows, vision_width]`.
    vision: Tensor,
    batch: Batch,
    graphs: DecodeGraphs,
    /// Draws of the step, followed by the draws of the padding sequences.
    draws: Vec<Draw>,
    mark: Mark,
}

impl ModelRunner {
    /// Allocates the caches. Errors if the overlay region is too small.
    pub fn new(model: &Model, dev: &mut Device, config: &SchedulerConfig) -> Result<ModelRunner> {
        let mark = dev.mark(Region::Overlay);
        let (model_config, dtype) = (&model.config, model.layout.dtype);
        let mut caches = Vec::with_capacity(model_config.text.layers.len());
        for layer in &model_config.text.layers {
            // One additional block receives the keys of padding.
            let cache = KvCache::alloc(dev, Region::Overlay, dtype, config.num_blocks + 1, layer.heads)?;
            if dev.kind().is_gpu() {
                // GPU kernels multiply whole blocks. Keys that were never stored get probability zero, but their values
                // must be finite.
                dev.fill_zero(cache.k)?;
                dev.fill_zero(cache.v)?;
            }
            caches.push(cache);
        }
        // The layers of a model have the same heads, so their work is divided in the same way.
        let heads = model_config.text.layers[0].heads;
        let size = padded_size(config.max_num_seqs);
        let tickets = dev.kind().is_gpu().then(|| Decode::tickets(dev, Region::Overlay, size, heads)).transpose()?;
        let vision = dev.alloc(Region::Overlay, dtype, &[config.vision_rows, model.vision_width()])?;
        let (batch, graphs) = (Batch::new(model_config), DecodeGraphs::default());
        let caches = caches.into();
        Ok(ModelRunner { caches, heads, tickets, vision, batch, graphs, draws: Vec::new(), mark })
    }

    /// Frees the caches and the captured steps.
    pub fn release(self, dev: &mut Device) {
        self.graphs.release(dev);
        dev.release(self.mark);
    }

    /// Executes `step`, and returns the token and its log-prob for each sample, among others. Everything that this
    /// function allocates is freed before it returns, even after an error.
    pub fn run(
        &mut self,
        model: &Model,
        dev: &mut Device,
        scheduler: &Scheduler,
        step: &Step,
        sampling: Sampling<'_>,
    ) -> Result<Sampled> {
        self.batch.fill(scheduler, step);
        let mut tape = Tape::new(dev, Mode::Infer);
        let decode = self.batch.is_decode();
        let done = dev.range(format_args!("{}", if decode { "decode" } else { "prefill" }), |dev| {
            self.copy_blocks(dev, &step.copies)?;
            for (of_base, adapted) in [(false, Adapted::All), (true, Adapted::None)] {
                let (images, to) = self.fresh_images(scheduler, step, of_base);
                tape.adapted = adapted;
                self.encode(model, dev, &mut tape, &images, &to)?;
            }
            match dev.kind().is_gpu() && decode {
                true => self.replay(model, dev, &mut tape, scheduler.config(), sampling),
                false => self.compute(model, dev, &mut tape, sampling, None),
            }
        });
        tape.finish(dev);
        done
    }

    /// Computes the batch without padding.
    fn compute(
        &self,
        model: &Model,
        dev: &mut Device,
        tape: &mut Tape,
        sampling: Sampling<'_>,
        split: Option<&Split>,
    ) -> Result<Sampled> {
        let vocab = sampling.kept.map(|_| model.decoder.lm_head.weight.n);
        let split = split.zip(self.tickets);
        let inputs = StepInputs::upload(dev, tape, &self.batch, sampling.draws, vocab, split)?;
        let hidden = self.launch(model, dev, tape, &inputs, sampling)?;
        let prompt = self.rank_prompt(model, dev, hidden, sampling)?;
        Ok(Sampled { prompt, ..read(model, dev, &inputs, sampling)? })
    }

    /// Pads the batch and computes it by replaying a captured step.
    fn replay(
        &mut self,
        model: &Model,
        dev: &mut Device,
        tape: &mut Tape,
        limits: &SchedulerConfig,
        sampling: Sampling<'_>,
    ) -> Result<Sampled> {
        let n = self.batch.num_seqs();
        let size = padded_size(n);
        self.batch.pad(size, limits.max_blocks(), limits.block_size, limits.num_blocks as u32);
        let split = self.split(dev)?;
        let mark = dev.mark(Region::Workspace);
        let (shares, adapted) = (split.shares(), self.batch.adapted());
        let key = Key { size, mark, allowed: sampling.allowed, shares, adapted };
        self.draws.clear();
        self.draws.extend_from_slice(sampling.draws);
        self.draws.resize(key.size, Draw::new(SamplingParams::greedy(), NoiseKey::default(), 0, 0));
        let (vocab, parts) = (sampling.kept.map(|_| model.decoder.lm_head.weight.n), Some(&split).zip(self.tickets));
        let inputs = StepInputs::upload(dev, tape, &self.batch, &self.draws, vocab, parts)?;
        let sampling = Sampling { draws: &self.draws, ..sampling };
        let mut graphs = std::mem::take(&mut self.graphs);
        let done = graphs.run(dev, key, |dev| {
            dev.scope(Region::Workspace, |dev| self.launch(model, dev, tape, &inputs, sampling)).map(|_| ())
        });
        self.graphs = graphs;
        done?;
        let mut sampled = read(model, dev, &inputs, sampling)?;
        sampled.token_ids.truncate(n);
        sampled.logprobs.truncate(n);
        Ok(sampled)
    }

    /// Returns the attention work items of the batch, which must be a decode step.
    fn split(&self, dev: &mut Device) -> Result<Split> {
        Split::new(self.batch.decode_step(), paged_attention::together(dev, self.heads))
    }

    /// Launches decoder and sampler, and returns the hidden rows. It uploads nothing, so that it can be captured.
    fn launch(
        &self,
        model: &Model,
        dev: &mut Device,
        tape: &mut Tape,
        inputs: &StepInputs,
        sampling: Sampling<'_>,
    ) -> Result<Var> {
        let hidden = self.decode(model, dev, tape, inputs)?;
        self.sample(model, dev, inputs, hidden, sampling)?;
        Ok(hidden)
    }

    /// Copies blocks. All sources are read before any destination is written. If several copies have the same
    /// destination, the last one counts. The result is the same as if the copies were made one by one, because no copy
    /// reads a block that an earlier copy of the step has written.
    fn copy_blocks(&self, dev: &mut Device, copies: &[BlockCopy]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let last = copies.iter().copied().map(|(from, to)| (to, from)).collect::<BTreeMap<u32, u32>>();
        let (to, from): (Vec<u32>, Vec<u32>) = last.into_iter().unzip();
        dev.scope(Region::Workspace, |dev| {
            let count = to.len();
            let from = dev.upload(Region::Workspace, &from, &[count])?;
            let to = dev.upload(Region::Workspace, &to, &[count])?;
            let block_len = self.caches[0].k.cols();
            let held = dev.alloc(Region::Workspace, self.caches[0].k.dtype, &[count, block_len])?;
            for cache in self.caches.iter() {
                for half in [cache.k, cache.v] {
                    let half = half.reshape(&[half.rows(), block_len]);
                    rows::gather(dev, half, from, held)?;
                    rows::scatter(dev, held, to, half)?;
                }
            }
            Ok(())
        })
    }

    /// Runs the largest possible steps on a counting device: a step of the maximum size, with as many of `images` as
    /// the vision cache holds (largest first), and then the largest decode step. With `mixed`, adapters apply to some of
    /// the tokens.
    pub fn plan(
        &mut self,
        model: &Model,
        dev: &mut Device,
        limits: &SchedulerConfig,
        images: &[Arc<ImageInput>],
        sampling: Sampling<'_>,
        mixed: bool,
    ) -> Result<()> {
        let merge = model.config.grid().merge_size as u32;
        let mut images = images.to_vec();
        images.sort_by_key(|image| std::cmp::Reverse(image.tokens(merge)));
        let mut room = limits.vision_rows;
        images.retain(|image| {
            let fits = image.tokens(merge) <= room;
            room -= if fits { image.tokens(merge) } else { 0 };
            fits
        });
        self.batch.fill_largest(limits, false, mixed);
        let samples = padded_size(sampling.draws.len());
        let mut draws = sampling.draws.to_vec();
        draws.resize(samples, Draw::new(SamplingParams::default(), NoiseKey::default(), 0, 0));
        let prompt = vec![PromptRow { row: 0, token_id: 0, top: 0 }; PROMPT_ROWS.min(self.batch.input_ids.len())];
        let kept = sampling.kept.map(|_| KeptLogits { rows: &[], prompt: &prompt });
        let sampling = Sampling { draws: &draws, kept, ..sampling };
        self.batch.sample_rows.truncate(samples);
        let copies: Vec<BlockCopy> = (0..limits.max_num_seqs as u32).map(|i| (i, i)).collect();
        let mut tape = Tape::new(dev, Mode::Infer);
        let done = self
            .copy_blocks(dev, &copies)
            .and_then(|()| self.encode(model, dev, &mut tape, &images, &vec![0; limits.vision_rows - room]))
            .and_then(|()| self.compute(model, dev, &mut tape, sampling, None));
        tape.finish(dev);
        done?;
        // With long sequences, a decode step needs more memory than a small prefill step.
        self.batch.fill_largest(limits, true, mixed);
        self.batch.sample_rows.truncate(samples);
        let split = self.split(dev)?;
        let mut tape = Tape::new(dev, Mode::Infer);
        let done = self.compute(model, dev, &mut tape, sampling, Some(&split));
        tape.finish(dev);
        done.map(|_| ())
    }

    /// Returns the images of prompts for the base, or of other prompts, that this step must compute, and the rows of the
    /// vision cache for their output.
    fn fresh_images(&self, scheduler: &Scheduler, step: &Step, of_base: bool) -> (Vec<Arc<ImageInput>>, Vec<u32>) {
        let mut images: Vec<Arc<ImageInput>> = Vec::with_capacity(step.encode.len());
        let mut to: Vec<u32> = Vec::new();
        for encode in &step.encode {
            let prompt = &scheduler.group(encode.group).request.prompt;
            if prompt.of_base != of_base {
                continue;
            }
            images.push(prompt.pixels[encode.image].clone());
            let key = &prompt.images[encode.image].key;
            to.extend_from_slice(scheduler.vision().rows(key).expect("required by the scheduler"));
        }
        (images, to)
    }

    /// Runs the vision tower on `images` and writes its output to the rows `to` of the vision cache.
    fn encode(
        &self,
        model: &Model,
        dev: &mut Device,
        tape: &mut Tape,
        images: &[Arc<ImageInput>],
        to: &[u32],
    ) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        dev.scope(Region::Workspace, |dev| {
            let merged = dev.alloc(Region::Workspace, self.vision.dtype, &[to.len(), self.vision.cols()])?;
            model.encode_images(tape, dev, images, merged)?;
            let to = dev.upload(Region::Workspace, to, &[to.len()])?;
            rows::scatter(dev, merged, to, self.vision)
        })
    }

    /// Computes the hidden rows `[T, D]` of the step's tokens, and stores their keys and values in the cache.
    fn decode(&self, model: &Model, dev: &mut Device, tape: &mut Tape, inputs: &StepInputs) -> Result<Var> {
        let x = tape.embedding(dev, inputs.input_ids, None, model.decoder.embed_tokens)?;
        let mut vision = Vec::new();
        // A decode step, which is captured, has no images.
        if let Some((from, to)) = inputs.vision {
            let rows = dev.alloc(Region::Workspace, self.vision.dtype, &[from.len(), self.vision.cols()])?;
            rows::gather(dev, self.vision, from, rows)?;
            let rows = tape.var(rows);
            vision.push(model.place_rows(tape, dev, rows, to, x, false)?);
        }
        tape.adapted = inputs.adapted;
        let attend = Attend::Paged { caches: self.caches.clone(), paging: Box::new(inputs.paging) };
        model.decoder.forward(tape, dev, x, inputs.rope, attend, vision.into())
    }

    /// Samples tokens and computes their log-probs, from the rows of `hidden` that the samples use.
    fn sample(
        &self,
        model: &Model,
        dev: &mut Device,
        inputs: &StepInputs,
        hidden: Var,
        sampling: Sampling<'_>,
    ) -> Result<()> {
        let Some(samples) = inputs.samples else { return Ok(()) };
        let n = samples.rows.len();
        let rows = dev.alloc(Region::Workspace, hidden.tensor.dtype, &[n, hidden.tensor.cols()])?;
        rows::gather(dev, hidden.tensor, samples.rows, rows)?;
        let lm_head = model.decoder.lm_head.weight;
        let Sampling { allowed, draws, .. } = sampling;
        let outs = sample::Outs { ids: samples.token_ids, logprobs: samples.logprobs, logits: samples.logits };
        sample::fwd(dev, rows, &lm_head, allowed, draws, samples.table, outs)
    }

    /// Computes the log-probs of the prompts' tokens that are requested, [`PROMPT_ROWS`] at a time.
    fn rank_prompt(&self, model: &Model, dev: &mut Device, hidden: Var, sampling: Sampling<'_>) -> Result<Vec<Ranked>> {
        let wanted = sampling.kept.map_or(&[][..], |kept| kept.prompt);
        let mut ranked = Vec::with_capacity(wanted.len());
        for part in wanted.chunks(PROMPT_ROWS) {
            let rank = |dev: &mut Device| rank_rows(model, dev, hidden.tensor, part, sampling.allowed);
            ranked.extend(dev.scope(Region::Workspace, rank)?);
        }
        Ok(ranked)
    }
}

/// Computes the log-probs of `wanted` from their logits.
fn rank_rows(
    model: &Model,
    dev: &mut Device,
    hidden: Tensor,
    wanted: &[PromptRow],
    allowed: Option<Tensor>,
) -> Result<Vec<Ranked>> {
    let (n, w) = (wanted.len(), model.decoder.lm_head.weight);
    let at: Vec<u32> = wanted.iter().map(|token| token.row).collect();
    let at = dev.upload(Region::Workspace, &at, &[n])?;
    let rows = dev.alloc(Region::Workspace, hidden.dtype, &[n, hidden.cols()])?;
    rows::gather(dev, hidden, at, rows)?;
    let draws = vec![Draw::kept(); n];
    let table = Draw::upload(dev, Region::Workspace, &draws)?;
    let logits = dev.alloc(Region::Workspace, DType::F32, &[n, sample::logit_columns(w.n)])?;
    let ids = dev.alloc(Region::Workspace, DType::U32, &[n])?;
    let logprobs = dev.alloc(Region::Workspace, DType::F32, &[n])?;
    let outs = sample::Outs { ids, logprobs, logits: Some(logits) };
    sample::fwd(dev, rows, &w, allowed, &draws, table, outs)?;
    let all: Vec<usize> = (0..n).collect();
    sample::with_rows(dev, logits, w.n, &all, |isa, i, z| sample::rank_row(isa, z, wanted[i].token_id, wanted[i].top))
}

/// Returns the results of the samples: what the step wrote, and what is drawn from kept logits. Waits for the step.
fn read(model: &Model, dev: &mut Device, inputs: &StepInputs, sampling: Sampling<'_>) -> Result<Sampled> {
    let (mut token_ids, mut logprobs) = inputs.read(dev)?;
    let kept = sampling.kept.map_or(&[][..], |kept| kept.rows);
    let logits = inputs.samples.and_then(|samples| samples.logits);
    let (Some(logits), false) = (logits, kept.is_empty()) else {
        return Ok(Sampled { token_ids, logprobs, ..Sampled::default() });
    };
    let (at, vocab) = (kept.iter().map(|row| row.sample).collect::<Vec<_>>(), model.decoder.lm_head.weight.n);
    let rows = sample::with_rows(dev, logits, vocab, &at, |isa, i, z| sample::sample_row(isa, z, &kept[i].call))?;
    for (&at, row) in at.iter().zip(&rows) {
        (token_ids[at], logprobs[at]) = (row.token_id, row.logprob);
    }
    Ok(Sampled { token_ids, logprobs, rows, prompt: Vec::new() })
}
