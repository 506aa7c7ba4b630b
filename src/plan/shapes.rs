//! Made-up inputs of the sizes a config allows, and the floor of rollouts.

use super::floor::Floor;
use super::gpus::Ceilings;
use crate::config::RlConfig;
use crate::data::{Index, Shape};
use crate::error::{Error, Result};
use crate::image::{Grid, Processor};
use crate::model::ModelConfig;
use crate::ops::attend::BLOCK;

/// Tokens around a picture: it is opened and closed, and at least one is left to be predicted.
pub const AROUND: usize = 4;

/// One picture of `wanted` tokens, or of as many as `max_pixels` and `room` tokens allow; none of 0.
pub fn grids(model: &ModelConfig, wanted: Option<usize>, max_pixels: Option<usize>, room: usize) -> Result<Vec<Grid>> {
    let vision = &model.vision_config;
    let side = vision.patch_size * vision.spatial_merge_size;
    let most = room.saturating_sub(AROUND);
    let [h, w] = match wanted {
        Some(tokens) if tokens > most => {
            let expected = format!("at most {most}, in {room} tokens");
            return Err(Error::input("--image-tokens", tokens.to_string(), expected));
        }
        // Exactly so many, as nearly square as they divide.
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
    let merge = vision.spatial_merge_size;
    let fits = |n: usize| u16::try_from(n * merge).ok();
    let grid = fits(h).zip(fits(w)).map(|(h, w)| vec![Grid::picture(h, w)]);
    grid.ok_or_else(|| {
        Error::input("--image-tokens", format!("{h} x {w} tokens"), "a picture of fewer than 65,536 patches a side")
    })
}

/// Bytes of the pixels of pictures.
pub fn pixels(model: &ModelConfig, grids: &[Grid]) -> usize {
    let patches: usize = grids.iter().map(|grid| grid.frame_patches()).sum();
    patches * model.vision_config.patch_size.pow(2) * 3
}

/// So many questions of `tokens` tokens with such pictures.
pub fn questions(count: usize, tokens: usize, grids: &[Grid]) -> Index {
    let mut index = Index::default();
    (0..count).for_each(|_| index.push(Shape { tokens, targets: 0, grids }));
    index
}

/// `, one picture of N tokens in each`.
pub fn described(model: &ModelConfig, grids: &[Grid]) -> String {
    let merge = model.vision_config.spatial_merge_size;
    match grids.first() {
        Some(grid) => {
            let tokens = grid.patches() / (merge * merge);
            format!(", with one picture of {tokens} tokens")
        }
        None => ", text alone".to_owned(),
    }
}

/// A step's rollouts, all of full length.
pub struct Rollouts {
    prompts: f64,
    n: f64,
    prompt: f64,
    response: f64,
    /// Rollouts that decode at once.
    pub batch: f64,
    kv_tokens: usize,
    /// Weights a token passes.
    weights: f64,
    /// Bytes of a token's keys and values.
    kv_bytes: f64,
}

impl Rollouts {
    /// Of `config` for prompts of `prompt` tokens, with so many blocks of keys; none: as many as can be used.
    pub fn new(model: &ModelConfig, config: &RlConfig, prompt: usize, num_kv_blocks: Option<usize>) -> Rollouts {
        let (d, f, h) = (model.hidden_size, model.intermediate_size, model.head_dim());
        let (q, kv) = (model.num_attention_heads * h, model.num_key_value_heads * h);
        let layer = d * (q + 2 * kv) + q * d + 3 * d * f;
        let r = &config.rollout;
        let length = config.max_prompt_length + config.max_response_length;
        let blocks = num_kv_blocks.unwrap_or(length.div_ceil(BLOCK) * r.max_num_seqs);
        let kv_tokens = blocks * BLOCK;
        let shared = if r.enable_prefix_caching { r.n } else { 1 };
        // What a rollout holds on average: its part of the prompt, half of its response.
        let held = prompt as f64 / shared as f64 + config.max_response_length as f64 / 2.0;
        let at_once = (kv_tokens as f64 / held).floor().max(1.0);
        Rollouts {
            prompts: config.train_batch_size as f64,
            n: r.n as f64,
            prompt: prompt as f64,
            response: config.max_response_length as f64,
            batch: at_once.min(r.max_num_seqs as f64).min((config.train_batch_size * r.n) as f64),
            kv_tokens,
            weights: (model.num_hidden_layers * layer + model.vocab_size * d) as f64,
            kv_bytes: (model.num_hidden_layers * 2 * kv * 2) as f64,
        }
    }

    /// Prompts once each.
    pub fn prefill(&self, card: &Ceilings) -> Floor {
        Floor::of(2.0 * self.weights * self.prompts * self.prompt, 2.0 * self.weights, card)
    }

    /// Steps of decoding.
    pub fn steps(&self) -> f64 {
        self.prompts * self.n * self.response / self.batch
    }

    /// The prompts, then steps of `batch` tokens that read all weights and the keys of their sequences.
    pub fn floor(&self, card: &Ceilings) -> Floor {
        let keys = (self.prompt + self.response / 2.0) * self.kv_bytes;
        let step = Floor::of(2.0 * self.weights * self.batch, 2.0 * self.weights + self.batch * keys, card);
        self.prefill(card).and(step.times(self.steps()))
    }

    /// For people.
    pub fn describe(&self) -> String {
        format!("{} tokens in blocks of {BLOCK}: {} rollouts at once on average", self.kv_tokens, self.batch)
    }
}
