//! Sequences: one prompt (a [`Group`]) and its rollouts (a [`Sequence`] each), as the scheduler sees them.
//! Pure host data.

use std::sync::Arc;

use crate::error::Result;
use crate::image::ImageInput;
use crate::model::positions::{self, AfterVideo, Medium};
use crate::model::{ModelConfig, inputs};

/// Identity of an image: a hash of its pixels, grid and frame count, and of a video of its rate.
pub type ImageKey = [u8; 32];

/// Identity of a block's content: its tokens and images and everything before it.
pub type BlockHash = blake3::Hash;

/// The key of an image.
pub fn image_key(image: &ImageInput) -> ImageKey {
    let mut hasher = blake3::Hasher::new();
    for n in image.grid_thw.iter().chain([&image.frames]) {
        hasher.update(&n.to_le_bytes());
    }
    hasher.update(&image.pixels);
    // Keys of the KV cache are rotated by it.
    if image.is_video() {
        hasher.update(&image.second_per_grid_ts.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

/// Why a rollout ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum FinishReason {
    /// A stop token was sampled (it is the last of the token ids).
    Stop,
    /// The token limit or the model's context length was reached.
    Length,
}

impl FinishReason {
    /// The one of this word, see [`FinishReason::as_str`].
    pub fn named(word: &str) -> Option<FinishReason> {
        [FinishReason::Stop, FinishReason::Length].into_iter().find(|reason| reason.as_str() == word)
    }

    /// The word in result files, as vLLM and OpenAI write it.
    pub fn as_str(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
        }
    }
}

/// Where an image's rows stand among the prompt's tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageSpan {
    /// Which image.
    pub key: ImageKey,
    /// Index of its first placeholder token.
    pub start: usize,
    /// Number of placeholder tokens: rows after the merger.
    pub rows: usize,
}

impl ImageSpan {
    /// True when the tokens `start..end` contain one of the image's.
    pub fn overlaps(&self, start: usize, end: usize) -> bool {
        self.start < end && start < self.start + self.rows
    }
}

/// A prompt, shared by its rollouts.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Token ids, image placeholders expanded.
    pub token_ids: Vec<u32>,
    /// Images in the order of their tokens.
    pub images: Vec<ImageSpan>,
    /// The same images' pixels.
    pub pixels: Vec<Arc<ImageInput>>,
    /// mrope positions (temporal, height, width) of each token.
    pub position_ids: [Vec<i32>; 3],
    /// A token behind the prompt at index `i` has position `i + rope_delta` on all three axes.
    pub rope_delta: i32,
    /// File and row, for messages to the user; empty where nobody gave it a name.
    pub place: String,
}

impl Prompt {
    /// A prompt as the model sees it: `token_ids` with expanded placeholders that match `pixels` in order.
    /// Errors when their counts differ or an id is outside the vocabulary.
    pub fn new(config: &ModelConfig, token_ids: &[u32], pixels: &[Arc<ImageInput>]) -> Result<Prompt> {
        inputs::check_ids(config, token_ids)?;
        let media: Vec<Medium> = pixels.iter().map(|image| inputs::medium(image)).collect();
        let places = positions::sequence(config, token_ids, &media, token_ids.len(), AfterVideo::default())?;
        let merge = config.vision_config.spatial_merge_size;
        let mut images = Vec::with_capacity(pixels.len());
        let mut taken = 0;
        for (image, medium) in pixels.iter().zip(&media) {
            let (start, rows) = (places.image_rows[taken] as usize, medium.num_tokens(merge));
            images.push(ImageSpan { key: image_key(image), start, rows });
            taken += rows;
        }
        Ok(Prompt {
            token_ids: token_ids.to_vec(),
            images,
            pixels: pixels.to_vec(),
            position_ids: places.position_ids,
            rope_delta: places.rope_delta,
            place: String::new(),
        })
    }

    /// The same prompt, named for messages to the user.
    pub fn named(self, place: &str) -> Prompt {
        Prompt { place: place.to_owned(), ..self }
    }

    /// A prompt of text alone.
    pub fn text(token_ids: Vec<u32>) -> Prompt {
        let positions: Vec<i32> = (0..token_ids.len() as i32).collect();
        let position_ids = [positions.clone(), positions.clone(), positions];
        Prompt { token_ids, images: Vec::new(), pixels: Vec::new(), position_ids, rope_delta: 0, place: String::new() }
    }

    /// The position of the token at index `i` of a sequence with this prompt.
    pub fn position(&self, axis: usize, i: usize) -> i32 {
        self.position_ids[axis].get(i).copied().unwrap_or(i as i32 + self.rope_delta)
    }
}

/// What is asked for: a prompt, how often, and when to stop.
#[derive(Clone, Debug)]
pub struct GroupRequest {
    /// The caller's name for it; comes back with each result.
    pub request: usize,
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// Number of rollouts.
    pub n: usize,
    /// Most tokens sampled in a rollout; at least one.
    pub max_tokens: usize,
    /// A rollout ends when one of these is sampled.
    pub stop_token_ids: Arc<[u32]>,
}

/// A prompt with its rollouts while they are in the engine.
#[derive(Debug)]
pub struct Group {
    /// What was asked.
    pub request: GroupRequest,
    /// Hashes of the prompt's whole blocks (empty without prefix caching).
    pub block_hashes: Vec<BlockHash>,
    /// Rollouts that have started: those below this number.
    pub started: usize,
    /// Rollouts that have ended.
    pub finished: usize,
    /// The rollout that is prefilling the prompt for the others, if one is.
    pub prefilling: Option<usize>,
    /// The computed prompt's blocks, held for rollouts that have not started.
    pub pinned: Option<Vec<u32>>,
    /// Rollouts in flight, by rollout index.
    pub sequences: Vec<Option<Sequence>>,
}

/// One rollout.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Index among the group's rollouts.
    pub rollout: usize,
    /// Prompt, then sampled tokens.
    pub token_ids: Vec<u32>,
    /// How many of `token_ids` are the prompt's.
    pub num_prompt_tokens: usize,
    /// Log-probability of each sampled token.
    pub logprobs: Vec<f32>,
    /// Blocks that hold its keys and values, in order.
    pub block_table: Vec<u32>,
    /// Tokens whose keys and values are in the cache.
    pub num_computed_tokens: usize,
    /// Of these, how many the prefix cache gave when the sequence was last admitted.
    pub num_cached_tokens: usize,
    /// Hashes of its computed whole blocks (empty without prefix caching).
    pub block_hashes: Vec<BlockHash>,
    /// Set when it has ended.
    pub finish_reason: Option<FinishReason>,
}

impl Sequence {
    /// Rollout `rollout` of `group`, with nothing computed.
    pub fn new(group: &Group, rollout: usize) -> Sequence {
        let prompt = &group.request.prompt;
        let mut token_ids = Vec::with_capacity(prompt.token_ids.len() + group.request.max_tokens.min(1024));
        token_ids.extend_from_slice(&prompt.token_ids);
        Sequence {
            rollout,
            num_prompt_tokens: token_ids.len(),
            token_ids,
            logprobs: Vec::new(),
            block_table: Vec::new(),
            num_computed_tokens: 0,
            num_cached_tokens: 0,
            block_hashes: group.block_hashes.clone(),
            finish_reason: None,
        }
    }

    /// Returns the number of its tokens, of the prompt and sampled.
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// The sampled tokens.
    pub fn completion(&self) -> &[u32] {
        &self.token_ids[self.num_prompt_tokens..]
    }

    /// Tokens still to be computed before the next one can be sampled; between two steps never zero, because
    /// the token sampled last is not in the cache.
    pub fn num_pending_tokens(&self) -> usize {
        self.token_ids.len() - self.num_computed_tokens
    }

    /// Takes a sampled token and says whether the sequence has ended.
    pub fn append(&mut self, token_id: u32, logprob: f32, request: &GroupRequest, max_model_len: usize) -> bool {
        self.token_ids.push(token_id);
        self.logprobs.push(logprob);
        if request.stop_token_ids.contains(&token_id) {
            self.finish_reason = Some(FinishReason::Stop);
        } else if self.completion().len() >= request.max_tokens || self.num_tokens() >= max_model_len {
            self.finish_reason = Some(FinishReason::Length);
        }
        self.finish_reason.is_some()
    }
}
