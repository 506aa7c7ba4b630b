//! Invented inputs with the sizes that a config allows, and the minimum time of rollouts.

use super::floor::Floor;
use super::gpus::Ceilings;
use omr_base::config::RlConfig;
use omr_base::error::{Error, Result};
use omr_data::image::{Grid, Processor};
use omr_model::nn::ModelConfig;
use omr_model::nn::config::{LayerConfig, MediaConfig};
use omr_runtime::ops::attend::{BLOCK, Heads};
use omr_runtime::tensor::DType;

/// Number of tokens required around an image: its start and end tokens, and at least one token to predict.
pub const AROUND: usize = 4;

/// Returns one image of `wanted` tokens, or of as many as `max_pixels` and `room` tokens allow. Returns no image for 0
/// tokens and for a text model.
pub fn grids(model: &ModelConfig, wanted: Option<usize>, max_pixels: Option<usize>, room: usize) -> Result<Vec<Grid>> {
    let Some(MediaConfig { grid, .. }) = &model.media else {
        let Some(tokens) = wanted.filter(|&tokens| tokens > 0) else { return Ok(Vec::new()) };
        return Err(Error::input("--image-tokens", tokens.to_string(), "0: the model is a text model"));
    };
    let side = grid.patch_size * grid.merge_size;
    let most = room.saturating_sub(AROUND);
    let [h, w] = match wanted {
        Some(tokens) if tokens > most => {
            let expected = format!("at most {most}, in {room} tokens");
            return Err(Error::input("--image-tokens", tokens.to_string(), expected));
        }
        // The image has exactly this number of tokens and is as close to a square as its divisors allow.
        Some(tokens) => {
            let h = (1..=tokens.isqrt()).rev().find(|h| tokens % h == 0).unwrap_or(0);
            [h, tokens.checked_div(h).unwrap_or(0)]
        }
        None => {
            let pixels = max_pixels.unwrap_or(Processor::default().max_pixels as usize);
            let tokens = (pixels / (side * side)).min(most);
            let h = tokens.isqrt();
            [h, tokens.checked_div(h).unwrap_or(0)]
        }
    };
    if h * w == 0 {
        return Ok(Vec::new());
    }
    let merge = grid.merge_size;
    let fits = |n: usize| u16::try_from(n * merge).ok();
    let grid = fits(h).zip(fits(w)).map(|(h, w)| vec![Grid::image(h, w)]);
    grid.ok_or_else(|| {
        Error::input("--image-tokens", format!("{h} x {w} tokens"), "an image with fewer than 65,536 patches per side")
    })
}

/// Returns the bytes of the pixels of images.
pub fn pixels(model: &ModelConfig, grids: &[Grid]) -> usize {
    let patches: usize = grids.iter().map(|grid| grid.frame_patches()).sum();
    patches * model.grid().patch_size.pow(2) * 3
}

/// Describes the image, like `, with one image of N tokens`.
pub fn described(model: &ModelConfig, grids: &[Grid]) -> String {
    let merge = model.grid().merge_size;
    let image = |grid: &Grid| format!(", with one image of {} tokens", grid.patches() / (merge * merge));
    grids.first().map_or(", text only".to_owned(), image)
}

/// Rollouts of a step, all of full length.
pub struct Rollouts {
    prompts: f64,
    n: f64,
    prompt: f64,
    response: f64,
    /// Number of rollouts that decode at the same time.
    pub batch: f64,
    kv_tokens: usize,
    /// Number of weights that each token uses.
    weights: f64,
    /// Bytes of the keys and values of a token.
    kv_bytes: f64,
}

impl Rollouts {
    /// Makes the rollouts of `config` for prompts of `prompt` tokens with `num_kv_blocks` cache blocks. If it is
    /// `None`, the cache has as many blocks as the rollouts can use.
    pub fn new(model: &ModelConfig, config: &RlConfig, prompt: usize, num_kv_blocks: Option<usize>) -> Rollouts {
        let d = model.text.hidden_size;
        let weights = |layer: &LayerConfig| {
            let Heads { q, kv, dim } = layer.heads;
            d * (q + 2 * kv) * dim + q * dim * d + 3 * d * layer.intermediate_size
        };
        let layers: usize = model.text.layers.iter().map(weights).sum();
        let r = &config.rollout;
        let length = config.max_prompt_length + config.max_response_length;
        let blocks = num_kv_blocks.unwrap_or(length.div_ceil(BLOCK) * r.max_num_seqs);
        let kv_tokens = blocks * BLOCK;
        let shared = if r.enable_prefix_caching { r.n } else { 1 };
        // Average number of cached tokens of a rollout: its share of the prompt, and half of its response.
        let held = prompt as f64 / shared as f64 + config.max_response_length as f64 / 2.0;
        let at_once = (kv_tokens as f64 / held).floor().max(1.0);
        Rollouts {
            prompts: config.train_batch_size as f64,
            n: r.n as f64,
            prompt: prompt as f64,
            response: config.max_response_length as f64,
            batch: at_once.min(r.max_num_seqs as f64).min((config.train_batch_size * r.n) as f64),
            kv_tokens,
            weights: (layers + model.text.vocab_size * d) as f64,
            kv_bytes: model.token_bytes(DType::Bf16) as f64,
        }
    }

    /// Returns the minimum time to prefill each prompt once.
    pub fn prefill(&self, ceilings: &Ceilings) -> Floor {
        Floor::of(2.0 * self.weights * self.prompts * self.prompt, 2.0 * self.weights, ceilings)
    }

    /// Returns the number of decoding steps.
    pub fn steps(&self) -> f64 {
        self.prompts * self.n * self.response / self.batch
    }

    /// Returns the minimum time of the prefill and of decoding steps. A step computes `batch` tokens and reads all
    /// weights and the keys of its sequences.
    pub fn floor(&self, ceilings: &Ceilings) -> Floor {
        let keys = (self.prompt + self.response / 2.0) * self.kv_bytes;
        let step = Floor::of(2.0 * self.weights * self.batch, 2.0 * self.weights + self.batch * keys, ceilings);
        self.prefill(ceilings).and(step.times(self.steps()))
    }

    /// Describes the cache and the number of concurrent rollouts.
    pub fn describe(&self) -> String {
        format!("{} tokens in blocks of {BLOCK}, for {} concurrent rollouts on average", self.kv_tokens, self.batch)
    }
}
