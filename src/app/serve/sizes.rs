//! Sizes of the engine and of its memory plan: from the settings of a server, or from requests that are known.

use std::sync::Arc;

use super::requests::Prepared;
use omr_base::config::ServeConfig;
use omr_base::error::{Error, Result};
use omr_data::image::{Grid, ImageInput, Processor};
use omr_data::rows::index::{Index, Shape, grids};
use omr_model::engine::{EngineConfig, EngineCoreRequest, Prompt, RequestParams};
use omr_model::llm;
use omr_model::nn::ModelConfig;
use omr_runtime::device::Kind;
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::tensor::DType;

/// Maximum bytes of the KV cache on the CPU unless `num_kv_blocks` is set.
const CPU_CACHE: usize = 4 << 30;

/// Returns the limits of a server's engine.
pub fn limits(
    config: &ServeConfig,
    model: &ModelConfig,
    processor: Option<&Processor>,
    kind: Kind,
) -> Result<EngineConfig> {
    let max_model_len = config.max_model_len.unwrap_or(model.text.max_position_embeddings);
    if max_model_len > model.text.max_position_embeddings {
        let expected = format!("at most {}, max_position_embeddings of the model", model.text.max_position_embeddings);
        return Err(Error::input("max_model_len", max_model_len.to_string(), expected));
    }
    let (one, token) = (max_model_len.div_ceil(BLOCK), model.token_bytes(DType::of(config.dtype, kind)));
    let most = if kind == Kind::Cuda { usize::MAX } else { CPU_CACHE / (token * BLOCK) };
    let blocks = one.saturating_mul(config.max_num_seqs).min(most).max(one);
    let rows = |processor| largest_image(processor, max_model_len).max(2 * config.max_num_batched_tokens);
    Ok(EngineConfig {
        max_num_seqs: config.max_num_seqs,
        max_num_batched_tokens: config.max_num_batched_tokens,
        num_kv_blocks: Some(blocks),
        vision_rows: processor.map_or(0, rows),
        enable_prefix_caching: config.enable_prefix_caching,
        keep_logits: true,
        ..EngineConfig::new(max_model_len)
    })
}

/// Returns the number of tokens of the largest image that fits into a prompt.
fn largest_image(processor: &Processor, max_model_len: usize) -> usize {
    let side = u64::from(processor.patch_size * processor.merge_size);
    (processor.max_pixels.div_ceil(side * side) as usize).clamp(1, max_model_len)
}

/// Returns requests that need the most memory of a server: with as many of the largest images, or of the smallest, as
/// fit into the engine's cache. Requests for a text model have no images.
pub fn largest(
    limits: &EngineConfig,
    processor: Option<&Processor>,
    model: &ModelConfig,
) -> Result<Vec<Vec<EngineCoreRequest>>> {
    let Some(processor) = processor else {
        return Ok(vec![vec![request(Arc::new(Prompt::text(vec![0])), limits.max_num_seqs)]]);
    };
    let merge = processor.merge_size;
    let side = (largest_image(processor, limits.max_model_len) as f64).sqrt().ceil() as u32 * merge;
    let request = |[h, w]: [u32; 2]| {
        let grid = Grid::image(h as u16, w as u16);
        let image = Arc::new(ImageInput::blank(grid, model.grid().patch_size));
        let count = limits.vision_rows / image.tokens(merge).max(1);
        vec![request(Arc::new(Prompt { pixels: vec![image; count], ..Prompt::text(vec![0]) }), limits.max_num_seqs)]
    };
    Ok(vec![request([side, side]), request(processor.grid(1, 1)?)])
}

fn request(prompt: Arc<Prompt>, n: usize) -> EngineCoreRequest {
    EngineCoreRequest::new(prompt, n, RequestParams::new(1, Arc::from([])))
}

/// Sizes of requests that are known before the model is loaded.
#[derive(Default)]
pub struct Needs {
    index: Index,
    /// Number of tokens of the longest prompt with its answer.
    longest: usize,
    /// Number of blocks of the KV cache that each choice can need.
    blocks: Vec<u32>,
    /// Number of tokens of the largest image or video, and of all of them.
    image: usize,
    images: usize,
    keep_logits: bool,
}

impl Needs {
    /// Adds a request.
    pub fn add(&mut self, prepared: &Prepared) {
        for (prompt, params) in &prepared.prompts {
            let tokens = prompt.token_ids.len();
            self.index.push(Shape { tokens, targets: 0, grids: &grids(&prompt.pixels) });
            self.longest = self.longest.max(tokens + params.max_tokens);
            let blocks = (tokens + params.max_tokens).div_ceil(BLOCK) as u32;
            self.keep_logits |= params.needs_logits();
            self.blocks.extend(std::iter::repeat_n(blocks, prepared.sampling.n));
            self.image = prompt.images.iter().map(|image| image.rows).fold(self.image, usize::max);
            self.images += prompt.images.iter().map(|image| image.rows).sum::<usize>();
        }
    }

    /// Returns limits that are no larger than these requests can use.
    pub fn narrowed(&self, limits: EngineConfig) -> EngineConfig {
        let mut blocks = self.blocks.clone();
        blocks.sort_unstable_by_key(|&n| std::cmp::Reverse(n));
        let needed = blocks.iter().take(limits.max_num_seqs).map(|&n| n as usize).sum::<usize>().max(1);
        EngineConfig {
            max_num_seqs: limits.max_num_seqs.min(blocks.len().max(1)),
            max_model_len: self.longest.max(1),
            num_kv_blocks: Some(needed),
            keep_logits: self.keep_logits,
            vision_rows: self.images.min(self.image.max(2 * limits.max_num_batched_tokens)),
            ..limits
        }
    }

    /// Returns the requests with the most pixels, with placeholder content.
    pub fn largest(&self, limits: &EngineConfig, model: &ModelConfig) -> Vec<Vec<EngineCoreRequest>> {
        let largest = llm::largest(model, &self.index, limits.max_num_seqs);
        vec![largest.into_iter().map(|prompt| request(prompt, limits.max_num_seqs)).collect()]
    }
}
