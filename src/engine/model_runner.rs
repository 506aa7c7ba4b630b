//! Executes the scheduler's steps: copies blocks, runs the vision tower on images that are not cached, runs the
//! decoder over the step's tokens with paged attention, samples. It decides nothing.

use std::sync::Arc;

use crate::device::{Device, Mark, Region};
use crate::engine::batch::Batch;
use crate::engine::block_manager::BlockCopy;
use crate::engine::scheduler::{Scheduler, SchedulerConfig, Step};
use crate::error::Result;
use crate::image::ImageInput;
use crate::model::Model;
use crate::model::layers::{Attend, Paging, Rope};
use crate::model::tape::{Mode, Tape, Var};
use crate::ops::attend::Heads;
use crate::ops::paged_attention::KvCache;
use crate::ops::rows;
use crate::ops::sample::{self, NoiseKey, SamplingParams};
use crate::tensor::{DType, Tensor};

/// How a step's tokens are picked: parallel to its samples.
#[derive(Clone, Copy, Debug)]
pub struct Sampling<'a> {
    /// Ids that may be sampled.
    pub allowed: Option<Tensor>,
    /// How each sample is picked.
    pub params: &'a [SamplingParams],
    /// What names each sample's noise.
    pub noise: &'a [NoiseKey],
    /// The run's seed and the training step.
    pub seed: (u64, u64),
}

/// The caches in the overlay region and the buffers of a step.
#[derive(Debug)]
pub struct ModelRunner {
    caches: Arc<[KvCache]>,
    /// `[vision_rows, D]`.
    vision: Tensor,
    batch: Batch,
    mark: Mark,
}

impl ModelRunner {
    /// Allocates the caches. Errors when the overlay region is too small.
    pub fn new(model: &Model, dev: &mut Device, config: &SchedulerConfig) -> Result<ModelRunner> {
        let mark = dev.mark(Region::Overlay);
        let (model_config, dtype) = (&model.config, model.layout.dtype);
        let heads = Heads {
            q: model_config.num_attention_heads,
            kv: model_config.num_key_value_heads,
            dim: model_config.head_dim(),
        };
        let mut caches = Vec::with_capacity(model_config.num_hidden_layers);
        for _ in 0..model_config.num_hidden_layers {
            caches.push(KvCache::alloc(dev, Region::Overlay, dtype, config.num_blocks, heads)?);
        }
        let vision = dev.alloc(Region::Overlay, dtype, &[config.vision_rows, model_config.hidden_size])?;
        Ok(ModelRunner { caches: caches.into(), vision, batch: Batch::new(model_config), mark })
    }

    /// Frees the caches.
    pub fn release(self, dev: &mut Device) {
        dev.release(self.mark);
    }

    /// Executes `step` and returns the token and its log-probability for each of its samples. All it allocates
    /// is freed again, also on an error.
    pub fn run(
        &mut self,
        model: &Model,
        dev: &mut Device,
        scheduler: &Scheduler,
        step: &Step,
        sampling: Sampling<'_>,
    ) -> Result<(Vec<u32>, Vec<f32>)> {
        self.batch.fill(&model.config, scheduler, step);
        let (images, to) = self.fresh_images(scheduler, step);
        let mut tape = Tape::new(dev, Mode::Infer);
        let done = self
            .copy_blocks(dev, &step.copies)
            .and_then(|()| self.encode(model, dev, &mut tape, &images, &to))
            .and_then(|()| self.decode(model, dev, &mut tape))
            .and_then(|hidden| self.sample(model, dev, &tape, hidden, sampling));
        tape.finish(dev);
        done
    }

    /// All sources are read before any destination is written, and of copies to one block the last stands:
    /// the outcome of making them one by one, as the scheduler planned them.
    fn copy_blocks(&self, dev: &mut Device, copies: &[BlockCopy]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let (from, to): (Vec<u32>, Vec<u32>) = copies.iter().copied().unzip();
        let mark = dev.mark(Region::Workspace);
        let from = dev.upload(Region::Workspace, &from, &[copies.len()])?;
        let to = dev.upload(Region::Workspace, &to, &[copies.len()])?;
        let block_len = self.caches[0].k.cols();
        let held = dev.alloc(Region::Workspace, self.caches[0].k.dtype, &[copies.len(), block_len])?;
        for cache in self.caches.iter() {
            for half in [cache.k, cache.v] {
                let half = half.reshape(&[half.rows(), block_len]);
                rows::gather(dev, half, from, held)?;
                rows::scatter(dev, held, to, half)?;
            }
        }
        dev.release(mark);
        Ok(())
    }

    /// On a device that only counts: a step of the largest size, with as many of `images` as the vision cache
    /// holds, the largest first.
    pub fn plan(
        &mut self,
        model: &Model,
        dev: &mut Device,
        limits: &SchedulerConfig,
        images: &[Arc<ImageInput>],
        sampling: Sampling<'_>,
    ) -> Result<()> {
        let merge = model.config.vision_config.spatial_merge_size as u32;
        let mut images = images.to_vec();
        images.sort_by_key(|image| std::cmp::Reverse(image.tokens(merge)));
        let mut room = limits.vision_rows;
        images.retain(|image| {
            let fits = image.tokens(merge) <= room;
            room -= if fits { image.tokens(merge) } else { 0 };
            fits
        });
        self.batch.fill_largest(&model.config, limits);
        self.batch.sample_rows.truncate(sampling.params.len());
        let copies: Vec<BlockCopy> = vec![(0, 0); limits.max_num_seqs];
        let mut tape = Tape::new(dev, Mode::Infer);
        let done = self
            .copy_blocks(dev, &copies)
            .and_then(|()| self.encode(model, dev, &mut tape, &images, &vec![0; limits.vision_rows - room]))
            .and_then(|()| self.decode(model, dev, &mut tape))
            .and_then(|hidden| self.sample(model, dev, &tape, hidden, sampling));
        tape.finish(dev);
        done.map(|_| ())
    }

    /// The step's fresh images and the rows of the vision cache they go to.
    fn fresh_images(&self, scheduler: &Scheduler, step: &Step) -> (Vec<Arc<ImageInput>>, Vec<u32>) {
        let mut images: Vec<Arc<ImageInput>> = Vec::with_capacity(step.encode.len());
        let mut to: Vec<u32> = Vec::new();
        for encode in &step.encode {
            let prompt = &scheduler.group(encode.group).request.prompt;
            images.push(prompt.pixels[encode.image].clone());
            let key = &prompt.images[encode.image].key;
            to.extend_from_slice(scheduler.vision().rows(key).expect("required by the scheduler"));
        }
        (images, to)
    }

    /// Runs the vision tower on `images`; its rows go to the rows `to` of the vision cache.
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
        let mark = dev.mark(Region::Workspace);
        let merged = dev.alloc(Region::Workspace, self.vision.dtype, &[to.len(), self.vision.cols()])?;
        model.encode_images(tape, dev, images, merged)?;
        let to = dev.upload(Region::Workspace, to, &[to.len()])?;
        rows::scatter(dev, merged, to, self.vision)?;
        dev.release(mark);
        Ok(())
    }

    /// Hidden rows `[T, D]` of the step's tokens; their keys and values go to the cache.
    fn decode(&self, model: &Model, dev: &mut Device, tape: &mut Tape) -> Result<Var> {
        let batch = &self.batch;
        let (t, s) = (batch.input_ids.len(), batch.num_seqs());
        let table = [t, batch.rope.cos.len() / t];
        let rope =
            Rope { cos: tape.upload(dev, &batch.rope.cos, &table)?, sin: tape.upload(dev, &batch.rope.sin, &table)? };
        let paging = Paging {
            slot_mapping: tape.upload(dev, &batch.slot_mapping, &[t])?,
            block_tables: tape.upload(dev, &batch.block_tables, &[s, batch.max_blocks])?,
            cu_seqlens_q: tape.upload(dev, &batch.cu_seqlens_q, &[s + 1])?,
            context_lens: tape.upload(dev, &batch.context_lens, &[s])?,
        };
        let x = model.embed(tape, dev, &batch.input_ids)?;
        if !batch.vision_rows.is_empty() {
            let n = batch.vision_rows.len();
            let from = tape.upload(dev, &batch.vision_rows, &[n])?;
            let to = tape.upload(dev, &batch.vision_tokens, &[n])?;
            let rows = dev.alloc(Region::Workspace, self.vision.dtype, &[n, self.vision.cols()])?;
            rows::gather(dev, self.vision, from, rows)?;
            rows::scatter(dev, rows, to, x.tensor)?;
        }
        let caches = self.caches.clone();
        model.decoder.forward(tape, dev, x, rope, Attend::Paged { caches, paging })
    }

    fn sample(
        &self,
        model: &Model,
        dev: &mut Device,
        tape: &Tape,
        hidden: Var,
        sampling: Sampling<'_>,
    ) -> Result<(Vec<u32>, Vec<f32>)> {
        let n = self.batch.sample_rows.len();
        if n == 0 {
            return Ok((Vec::new(), Vec::new()));
        }
        let idx = tape.upload(dev, &self.batch.sample_rows, &[n])?;
        let rows = dev.alloc(Region::Workspace, hidden.tensor.dtype, &[n, hidden.tensor.cols()])?;
        rows::gather(dev, hidden.tensor, idx, rows)?;
        let token_ids = dev.alloc(Region::Workspace, DType::U32, &[n])?;
        let logprobs = dev.alloc(Region::Workspace, DType::F32, &[n])?;
        let Sampling { allowed, params, noise, seed } = sampling;
        let lm_head = model.decoder.lm_head.weight;
        sample::fwd(dev, rows, &lm_head, allowed, params, noise, seed, token_ids, logprobs)?;
        Ok((dev.read(token_ids)?, dev.read(logprobs)?))
    }
}
