//! A packed batch in the form that the model takes: the tokens of all sequences one after another, their M-RoPE
//! positions, the sequence boundaries, the images, and the tokens that the images' rows replace.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::ImageInput;
use crate::model::config::ModelConfig;
use crate::model::positions::{self, AfterVideo, Medium};

/// Packed sequences.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Token ids `[T]`.
    pub input_ids: Vec<u32>,
    /// Time, height and width position of each token. They start anew with each sequence.
    pub position_ids: [Vec<i32>; 3],
    /// Start offsets of the sequences, followed by `T`, `[S + 1]`.
    pub cu_seqlens: Vec<u32>,
    /// Position offset of each sequence: a later token at index i has position i + delta on all axes.
    pub rope_deltas: Vec<i32>,
    /// Pictures and videos in the order of their first placeholders. Each one is computed once.
    pub pictures: Vec<Picture>,
}

/// A picture or video of a batch.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Pixels of the picture.
    pub image: Arc<ImageInput>,
    /// Indices of the tokens that the picture's rows replace, sequence after sequence for all sequences that contain
    /// the picture.
    pub places: Vec<u32>,
}

/// Describes the images that a sequence shares with other sequences.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shared {
    /// True if the sequence has the same images as the previous sequence. The images are then computed once for both.
    pub again: bool,
}

/// Returns the kind and grid of a picture or video.
pub fn medium(image: &ImageInput) -> Medium {
    let ImageInput { grid_thw, second_per_grid_ts, .. } = *image;
    Medium { grid_thw, video: image.is_video(), second_per_grid_ts }
}

impl Inputs {
    /// Creates a batch without sequences.
    pub fn empty() -> Inputs {
        Inputs { cu_seqlens: vec![0], ..Inputs::default() }
    }

    /// Adds a sequence. Tokens from `prompt_len` on were generated: an image token id among them is treated as a plain
    /// token. Errors, without adding anything, on ids outside the vocabulary and if image placeholders and images do
    /// not match.
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
            self.pictures.extend(images.iter().map(|image| Picture { image: image.clone(), places: Vec::new() }));
        }
        let first = self.pictures.len() - images.len();
        let mut places = p.image_rows.iter().map(|row| start + row);
        for (picture, medium) in self.pictures[first..].iter_mut().zip(&media) {
            let rows = medium.num_tokens(merge);
            picture.places.extend(places.by_ref().take(rows));
        }
        Ok(())
    }

    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.input_ids.len()
    }

    /// Returns true if there are no tokens.
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
