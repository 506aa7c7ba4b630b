//! Bitmap of the token ids that the policy can generate. The sampler and the trainer use the same bitmap.

use crate::nn::ModelConfig;
use omr_data::text::Chat;

/// Returns the bitmap of the ids that may occur in an answer, `[ceil(V / 32)]`. These are all ids of the tokenizer,
/// except the special ids of images and videos. Id `id` is bit `id % 32` of word `id / 32`.
pub fn allowed_ids(config: &ModelConfig, chat: &Chat) -> Vec<u32> {
    let media = config.media.as_ref().map(|media| media.ids.all());
    let mut bitmap = vec![0u32; config.text.vocab_size.div_ceil(32)];
    for id in 0..config.text.vocab_size as u32 {
        if chat.tokenizer.token(id).is_some() && !media.iter().flatten().any(|other| *other == id) {
            bitmap[id as usize / 32] |= 1 << (id % 32);
        }
    }
    bitmap
}
