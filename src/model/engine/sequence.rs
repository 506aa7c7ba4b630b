//! Sequences as the scheduler uses them: a [`Group`] is one prompt with its rollouts, and each rollout is a
//! [`Sequence`]. They are host data without tensors.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::nn::positions::{self, Medium};
use crate::nn::{ModelConfig, inputs};
use omr_base::choice::choice;
use omr_base::error::Result;
use omr_data::image::ImageInput;

/// Identity of an image or video: a hash of its pixels, grid and frame count, and of the frame rate for a video.
pub type ImageKey = [u8; 32];

/// Identity of a block's content: its tokens, its images, and everything before them.
pub type BlockHash = blake3::Hash;

/// Bytes that distinguish what the base of a model computes from what the model computes.
pub(super) const OF_BASE: &[u8] = b"base";

/// Returns the key of an image.
pub fn image_key(image: &ImageInput) -> ImageKey {
    let mut hasher = blake3::Hasher::new();
    for n in image.grid_thw.iter().chain([&image.frames]) {
        hasher.update(&n.to_le_bytes());
    }
    hasher.update(&image.pixels);
    // The rotation of the cached keys depends on the frame rate of a video.
    if image.is_video() {
        hasher.update(&image.second_per_grid_ts.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}

choice! {
    /// The reason why a rollout ended. The names are those of vLLM and OpenAI.
    #[derive(Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum FinishReason {
        /// A stop token was sampled. It is the last of the token ids.
        Stop = "stop",
        /// The token limit or the model's context length was reached.
        Length = "length",
    }
}

/// The position of an image's rows among the prompt's tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImageSpan {
    /// Key of the image.
    pub key: ImageKey,
    /// Index of the image's first placeholder token.
    pub start: usize,
    /// Number of placeholder tokens, which is the number of rows after the merger.
    pub rows: usize,
}

impl ImageSpan {
    /// Returns true if the tokens `start..end` include a placeholder of this image.
    pub fn overlaps(&self, start: usize, end: usize) -> bool {
        self.start < end && start < self.start + self.rows
    }
}

/// A prompt, shared by its rollouts.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Token ids, with image placeholders expanded.
    pub token_ids: Vec<u32>,
    /// Images in the order of their tokens.
    pub images: Vec<ImageSpan>,
    /// Pixels of the same images.
    pub pixels: Vec<Arc<ImageInput>>,
    /// M-RoPE positions (temporal, height, width) of each token.
    pub position_ids: [Vec<i32>; 3],
    /// Offset for tokens after the prompt: the token at index `i` has position `i + rope_delta` on all three axes.
    pub rope_delta: i32,
    /// True if the adapters of the model do not apply to this prompt and its answers.
    pub of_base: bool,
    /// File and row for messages to the user. Empty if unknown.
    pub place: String,
}

impl Prompt {
    /// Creates a prompt from `token_ids`, whose expanded placeholders must match `pixels` in order. Errors if their
    /// counts differ or an id is outside the vocabulary.
    pub fn new(config: &ModelConfig, token_ids: &[u32], pixels: &[Arc<ImageInput>]) -> Result<Prompt> {
        inputs::check_ids(config, token_ids)?;
        let pixels = match &config.media {
            // The placeholders of the temporal patches of a video are not adjacent.
            Some(media) if media.tokens_per_second.is_none() => {
                let split = |image: &Arc<ImageInput>| match image.is_video() {
                    true => image.temporal_patches().into_iter().map(Arc::new).collect(),
                    false => vec![image.clone()],
                };
                pixels.iter().flat_map(split).collect()
            }
            _ => pixels.to_vec(),
        };
        let media: Vec<Medium> = pixels.iter().map(|image| inputs::medium(image)).collect();
        let places = positions::sequence(config, token_ids, &media, token_ids.len())?;
        let merge = config.grid().merge_size;
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
            pixels,
            position_ids: places.position_ids,
            rope_delta: places.rope_delta,
            ..Prompt::default()
        })
    }

    /// Returns the same prompt for the base of a model with adapters. Its images have other keys, because the vision
    /// tower may have adapters.
    pub fn for_base(mut self) -> Prompt {
        for image in &mut self.images {
            image.key = *blake3::hash(&[&image.key[..], OF_BASE].concat()).as_bytes();
        }
        Prompt { of_base: true, ..self }
    }

    /// Returns the same prompt with a name for messages to the user.
    pub fn named(self, place: &str) -> Prompt {
        Prompt { place: place.to_owned(), ..self }
    }

    /// Returns the name for messages to the user. A prompt without a name is called by its `number`.
    pub fn place_or(&self, number: usize) -> String {
        if self.place.is_empty() { format!("prompt {number}") } else { self.place.clone() }
    }

    /// Creates a prompt that consists of text only.
    pub fn text(token_ids: Vec<u32>) -> Prompt {
        let positions: Vec<i32> = (0..token_ids.len() as i32).collect();
        let position_ids = [positions.clone(), positions.clone(), positions];
        Prompt { token_ids, position_ids, ..Prompt::default() }
    }

    /// Returns the position of the token at index `i` of a sequence with this prompt.
    pub fn position(&self, axis: usize, i: usize) -> i32 {
        self.position_ids[axis].get(i).copied().unwrap_or(i as i32 + self.rope_delta)
    }
}

/// A request for the rollouts of one prompt.
#[derive(Clone, Debug)]
pub struct GroupRequest {
    /// The caller's number for the request, returned with each result.
    pub request: usize,
    /// The prompt.
    pub prompt: Arc<Prompt>,
    /// Number of rollouts.
    pub n: usize,
    /// Maximum number of tokens sampled in a rollout, at least one.
    pub max_tokens: usize,
    /// Stop tokens. A rollout ends when one of these is sampled.
    pub stop_token_ids: Arc<[u32]>,
    /// True if tokens may be drafted. False if a token's logits depend on the sampled tokens before it.
    pub drafts: bool,
    /// True if the log-probs of the prompt's tokens are requested. Tokens that the prefix cache supplies have no rows, so
    /// tokens without log-probs are not taken from it.
    pub prompt_logprobs: bool,
    /// True if the rollouts leave a sixteenth of `max_num_seqs` to other requests.
    pub is_wide: bool,
}

/// A prompt with its rollouts while they are in the engine.
#[derive(Debug)]
pub struct Group {
    /// The request.
    pub request: GroupRequest,
    /// Hashes of the prompt's complete blocks. Empty without prefix caching.
    pub block_hashes: Vec<BlockHash>,
    /// Number of rollouts that have started; these have the lowest indices.
    pub started: usize,
    /// Number of rollouts that have ended.
    pub finished: usize,
    /// Index of the rollout that is prefilling the prompt for the others, if any.
    pub prefilling: Option<usize>,
    /// Blocks of the computed prompt, held for rollouts that have not started.
    pub pinned: Option<Vec<u32>>,
    /// Number of the sequence's first tokens whose rows are computed. It counts only if log-probs of the prompt are
    /// requested.
    pub prompt_scored: usize,
    /// Rollouts in flight, by rollout index.
    pub sequences: Vec<Option<Sequence>>,
}

impl Group {
    /// Returns true if a rollout of the group may start while `wide` sequences of wide requests run. These leave a
    /// sixteenth of the places to other requests.
    pub fn has_place(&self, wide: usize, max_num_seqs: usize) -> bool {
        !self.request.is_wide || wide < max_num_seqs - max_num_seqs / 16
    }

    /// Returns the rows among `start..end` that predict a token of the prompt and are not computed yet, if the log-probs
    /// of the prompt are requested.
    pub fn unscored(&self, start: usize, end: usize) -> Range<usize> {
        let last = if self.request.prompt_logprobs { self.request.prompt.token_ids.len() - 1 } else { 0 };
        start.max(self.prompt_scored)..end.min(last)
    }

    /// Returns how many of the `found` blocks of a sequence of `num_tokens` tokens are taken from the prefix cache.
    pub fn used_of(&self, found: usize, num_tokens: usize, block_size: usize) -> usize {
        // The last token is always computed, because the next one is sampled from its row.
        let used = found.min((num_tokens - 1) / block_size);
        let unscored = !self.unscored(0, usize::MAX).is_empty();
        if unscored { used.min(self.prompt_scored / block_size) } else { used }
    }
}

/// One rollout.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Index of the rollout within its group.
    pub rollout: usize,
    /// Prompt tokens, then sampled tokens.
    pub token_ids: Vec<u32>,
    /// Number of prompt tokens in `token_ids`.
    pub num_prompt_tokens: usize,
    /// Log-prob of each sampled token.
    pub logprobs: Vec<f32>,
    /// Blocks that hold the keys and values of this sequence, in order.
    pub block_table: Vec<u32>,
    /// Number of tokens whose keys and values are in the cache.
    pub num_computed_tokens: usize,
    /// Number of computed tokens that the prefix cache supplied when the sequence was last admitted.
    pub num_cached_tokens: usize,
    /// Hashes of the complete blocks that are computed. Empty without prefix caching.
    pub block_hashes: Vec<BlockHash>,
    /// Reason why the sequence ended. `None` while it is in flight.
    pub finish_reason: Option<FinishReason>,
}

impl Sequence {
    /// Creates rollout `rollout` of `group`, with nothing computed.
    pub fn new(group: &Group, rollout: usize) -> Sequence {
        let prompt = &group.request.prompt;
        let mut token_ids = Vec::with_capacity(prompt.token_ids.len() + group.request.max_tokens.min(1024));
        token_ids.extend_from_slice(&prompt.token_ids);
        Sequence {
            rollout,
            num_prompt_tokens: token_ids.len(),
            token_ids,
            block_hashes: group.block_hashes.clone(),
            ..Sequence::default()
        }
    }

    /// Returns the number of prompt tokens and sampled tokens.
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Returns the sampled tokens.
    pub fn completion(&self) -> &[u32] {
        &self.token_ids[self.num_prompt_tokens..]
    }

    /// Returns the number of tokens to compute before the next one can be sampled. Between two steps this is never
    /// zero, because the token sampled last is not in the cache.
    pub fn num_pending_tokens(&self) -> usize {
        self.token_ids.len() - self.num_computed_tokens
    }

    /// Appends a sampled token, and returns true if the sequence has ended.
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
