//! A packed batch as the model takes it: tokens of all sequences one after another, their mrope coordinates, the
//! borders between them, their images, and which tokens the images' rows replace.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::ImageInput;
use crate::model::config::ModelConfig;
use crate::model::positions::{self, AfterVideo, Medium};
use crate::tensor::Tensor;

/// Packed sequences.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Tokens `[T]`.
    pub input_ids: Vec<u32>,
    /// Time, height and width of each token, beginning anew with each sequence.
    pub position_ids: [Vec<i32>; 3],
    /// Borders of the sequences `[S + 1]`.
    pub cu_seqlens: Vec<u32>,
    /// Of each sequence: a later token at index i has position i + delta on all axes.
    pub rope_deltas: Vec<i32>,
    /// Pictures and videos in the order of their first places, each computed once.
    pub pictures: Vec<Picture>,
}

/// A picture or video of a batch.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Its pixels.
    pub image: Arc<ImageInput>,
    /// The tokens that its rows replace: those of the first sequence that shows it, then of the next.
    pub places: Vec<u32>,
    /// Set where other batches show it, too: its part of their memory.
    pub kept: Option<Kept>,
}

/// What a sequence's images have to do with those of other sequences.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared {
    /// They are those of the sequence before, and computed once for both.
    pub again: bool,
    /// Other batches show them, too.
    pub kept: Option<Kept>,
}

/// What outlasts a batch of images that the next one shows, too.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Their rows `[M, D]`: the first batch writes them.
    pub rows: Tensor,
    /// Where backward follows: sums f32 `[M, D]` of the rows' gradients so far. The last batch computes the rows once more,
    /// and backward goes through the tower there.
    pub sums: Option<Tensor>,
    /// No batch before shows them.
    pub first: bool,
    /// None after does.
    pub last: bool,
}

impl Kept {
    /// Whether a batch takes the rows as they lie there.
    pub fn stays(&self) -> bool {
        !self.last || self.sums.is_none()
    }

    /// The sums that a batch goes on from.
    pub fn before(&self) -> Option<Tensor> {
        self.sums.filter(|_| !self.first)
    }

    /// Of rows `from` to `to` alone.
    fn slice(&self, from: usize, to: usize) -> Kept {
        Kept { rows: self.rows.slice(from, to), sums: self.sums.map(|sums| sums.slice(from, to)), ..*self }
    }
}

/// What stands at the places of a picture or video.
pub fn medium(image: &ImageInput) -> Medium {
    let ImageInput { grid_thw, second_per_grid_ts, .. } = *image;
    Medium { grid_thw, video: image.is_video(), second_per_grid_ts }
}

impl Inputs {
    /// No sequence yet.
    pub fn empty() -> Inputs {
        Inputs { cu_seqlens: vec![0], ..Inputs::default() }
    }

    /// Adds a sequence. Tokens from `prompt_len` on were generated: an image id among them is a plain token.
    /// Errors on ids outside the vocabulary and when places and images do not match; nothing is added then.
    pub fn push(
        &mut self,
        config: &ModelConfig,
        input_ids: &[u32],
        images: &[Arc<ImageInput>],
        prompt_len: usize,
        shared: Shared,
    ) -> Result<()> {
        check_ids(config, input_ids)?;
        let media: Vec<Medium> = images.iter().map(|image| medium(image)).collect();
        let p = positions::sequence(config, input_ids, &media, prompt_len, AfterVideo::default())?;
        let start = self.input_ids.len() as u32;
        self.input_ids.extend_from_slice(input_ids);
        self.position_ids.iter_mut().zip(&p.position_ids).for_each(|(all, new)| all.extend_from_slice(new));
        self.cu_seqlens.push(start + input_ids.len() as u32);
        self.rope_deltas.push(p.rope_delta);
        let merge = config.vision_config.spatial_merge_size;
        if !shared.again {
            let mut row = 0;
            self.pictures.extend(images.iter().zip(&media).map(|(image, medium)| {
                let rows = row..row + medium.num_tokens(merge);
                row = rows.end;
                let kept = shared.kept.map(|kept| kept.slice(rows.start, rows.end));
                Picture { image: image.clone(), places: Vec::new(), kept }
            }));
        }
        let first = self.pictures.len() - images.len();
        let mut places = p.image_rows.iter().map(|row| start + row);
        for (picture, medium) in self.pictures[first..].iter_mut().zip(&media) {
            let rows = medium.num_tokens(merge);
            picture.places.extend(places.by_ref().take(rows));
        }
        Ok(())
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// True for no tokens at all.
    pub fn is_empty(&self) -> bool {
        self.input_ids.is_empty()
    }
}

/// Errors on an id outside the vocabulary.
pub fn check_ids(config: &ModelConfig, input_ids: &[u32]) -> Result<()> {
    match input_ids.iter().position(|&id| id as usize >= config.vocab_size) {
        None => Ok(()),
        Some(i) => {
            let expected = format!("ids below vocab_size {}", config.vocab_size);
            Err(Error::input(format!("token {i}"), input_ids[i].to_string(), expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tiny::tiny;

    #[test]
    fn packed_sequences_begin_anew() {
        let config = ModelConfig::from_json(&tiny(), "config.json").unwrap();
        let image = Arc::new(ImageInput::picture([2, 4], vec![0; 28 * 56 * 3]));
        let with_image = [5, 82, 80, 80, 83, 6];
        let images = [image];
        let mut inputs = Inputs::empty();
        inputs.push(&config, &[1, 2, 3], &[], 3, Shared::default()).unwrap();
        inputs.push(&config, &with_image, &images, 6, Shared::default()).unwrap();
        assert_eq!(inputs.cu_seqlens, [0, 3, 9]);
        assert_eq!(inputs.pictures[0].places, [5, 6]);
        assert_eq!(inputs.position_ids[2], [0, 1, 2, 0, 1, 2, 3, 4, 5]);
        assert_eq!(inputs.position_ids[0], [0, 1, 2, 0, 1, 2, 2, 4, 5]);
        assert_eq!(inputs.rope_deltas, [0, 0]);
    }

    #[test]
    fn faults_name_the_token() {
        let config = ModelConfig::from_json(&tiny(), "config.json").unwrap();
        let add = |ids: &[u32]| Inputs::empty().push(&config, ids, &[], ids.len(), Shared::default());
        let text = |ids: &[u32]| add(ids).unwrap_err().to_string();
        assert_eq!(text(&[1, 90]), "token 1: found 90, expected ids below vocab_size 90");
        assert!(text(&[82, 80, 83]).starts_with("token 1: found an image or video place"));
    }
}
