//! A packed batch in the form that the model takes: the tokens of all sequences one after another, their M-RoPE
//! positions, the sequence boundaries, the images, and the tokens that the images' rows replace.

use std::sync::Arc;

use crate::nn::config::ModelConfig;
use crate::nn::positions::{self, Medium};
use omr_base::error::{Error, Result};
use omr_data::image::ImageInput;

/// Packed sequences.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Token ids `[T]`.
    pub input_ids: Vec<u32>,
    /// Time, height and width position of each token. They start anew with each sequence.
    pub position_ids: [Vec<i32>; 3],
    /// Start offsets of the sequences, followed by `T`, `[S + 1]`.
    pub cu_seqlens: Vec<u32>,
    /// Index of the sequence that holds each sequence's prompt, `[S]`. It is the sequence's own index if the sequence
    /// shares no prompt, and for a prompt.
    pub prompt_of: Vec<u32>,
    /// Position offset of each sequence: a later token at index i has position i + delta on all axes.
    pub rope_deltas: Vec<i32>,
    /// Images and videos in the order of their first placeholders. Each one is computed once.
    pub images: Vec<Image>,
}

/// An image or video of a batch.
#[derive(Clone, Debug)]
pub struct Image {
    /// Pixels of the image.
    pub image: Arc<ImageInput>,
    /// Indices of the tokens that the image's rows replace.
    pub places: Vec<u32>,
}

/// Returns the kind and grid of an image or video.
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
    ) -> Result<()> {
        check_ids(config, input_ids)?;
        let media: Vec<Medium> = images.iter().map(|image| medium(image)).collect();
        let p = positions::sequence(config, input_ids, &media, prompt_len)?;
        let start = self.input_ids.len() as u32;
        self.input_ids.extend_from_slice(input_ids);
        self.position_ids.iter_mut().zip(&p.position_ids).for_each(|(all, new)| all.extend_from_slice(new));
        self.cu_seqlens.push(start + input_ids.len() as u32);
        self.rope_deltas.push(p.rope_delta);
        self.prompt_of.push(self.prompt_of.len() as u32);
        let merge = config.grid().merge_size;
        let mut places = p.image_rows.iter().map(|row| start + row);
        for (image, medium) in images.iter().zip(&media) {
            let places = places.by_ref().take(medium.num_tokens(merge)).collect();
            self.images.push(Image { image: image.clone(), places });
        }
        Ok(())
    }

    /// Adds a response to the newest prompt as a sequence of its own, which has only the tokens of the response. The
    /// prompt is the sequence that was added by [`Inputs::push`] last. Errors, without adding anything, on ids outside
    /// the vocabulary and if there is no prompt.
    pub fn push_response(&mut self, config: &ModelConfig, response: &[u32]) -> Result<()> {
        check_ids(config, response)?;
        let Some(&prompt) = self.prompt_of.last() else {
            return Err(Error::Failed("a response needs a prompt before it".into()));
        };
        let [from, to] = [0, 1].map(|i| self.cu_seqlens[prompt as usize + i] as i32);
        let (start, first) = (self.input_ids.len() as u32, to - from + self.rope_deltas[prompt as usize]);
        let positions = first..first + response.len() as i32;
        self.input_ids.extend_from_slice(response);
        self.position_ids.iter_mut().for_each(|axis| axis.extend(positions.clone()));
        self.cu_seqlens.push(start + response.len() as u32);
        self.rope_deltas.push(self.rope_deltas[prompt as usize]);
        self.prompt_of.push(prompt);
        Ok(())
    }

    /// Returns true if some sequences share a prompt.
    pub fn shares_prompts(&self) -> bool {
        self.prompt_of.iter().enumerate().any(|(s, prompt)| *prompt as usize != s)
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
    let Some(i) = input_ids.iter().position(|&id| id as usize >= config.text.vocab_size) else { return Ok(()) };
    let expected = format!("ids below vocab_size {}", config.text.vocab_size);
    Err(Error::input(format!("token {i}"), input_ids[i].to_string(), expected))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::tiny::tiny;

    #[test]
    fn packed_sequences_begin_anew() {
        let config = ModelConfig::from_json(&tiny(), "config.json").unwrap();
        let image = Arc::new(ImageInput::image([2, 4], vec![0; 28 * 56 * 3]));
        let with_image = [5, 82, 80, 80, 83, 6];
        let images = [image];
        let mut inputs = Inputs::empty();
        inputs.push(&config, &[1, 2, 3], &[], 3).unwrap();
        inputs.push(&config, &with_image, &images, 6).unwrap();
        assert_eq!(inputs.cu_seqlens, [0, 3, 9]);
        assert_eq!(inputs.images[0].places, [5, 6]);
        assert_eq!(inputs.position_ids[2], [0, 1, 2, 0, 1, 2, 3, 4, 5]);
        assert_eq!(inputs.position_ids[0], [0, 1, 2, 0, 1, 2, 2, 4, 5]);
        assert_eq!(inputs.rope_deltas, [0, 0]);
    }

    #[test]
    fn a_prompt_with_its_responses_has_the_positions_of_whole_sequences() {
        let config = ModelConfig::from_json(&tiny(), "config.json").unwrap();
        let (prompt, responses) = ([5, 82, 80, 80, 83, 6], [&[7, 8, 80][..], &[9]]);
        let images = [Arc::new(ImageInput::image([2, 4], vec![0; 28 * 56 * 3]))];
        let mut shared = Inputs::empty();
        shared.push(&config, &[1, 2], &[], 2).unwrap();
        shared.push(&config, &prompt, &images, 6).unwrap();
        responses.iter().for_each(|response| shared.push_response(&config, response).unwrap());
        assert_eq!((shared.cu_seqlens, shared.prompt_of), (vec![0, 2, 8, 11, 12], vec![0, 1, 1, 1]));
        assert_eq!(shared.images[0].places, [4, 5]);
        let whole = |response: &[u32]| {
            let mut inputs = Inputs::empty();
            inputs.push(&config, &[&prompt, response].concat(), &images, 6).unwrap();
            inputs.position_ids.map(|axis| axis[6..].to_vec())
        };
        assert_eq!(shared.position_ids.each_ref().map(|axis| axis[8..11].to_vec()), whole(responses[0]));
        assert_eq!(shared.position_ids.each_ref().map(|axis| axis[11..].to_vec()), whole(responses[1]));
    }

    #[test]
    fn faults_name_the_token() {
        let config = ModelConfig::from_json(&tiny(), "config.json").unwrap();
        let add = |ids: &[u32]| Inputs::empty().push(&config, ids, &[], ids.len());
        let text = |ids: &[u32]| add(ids).unwrap_err().to_string();
        assert_eq!(text(&[1, 90]), "token 1: found 90, expected ids below vocab_size 90");
        assert!(text(&[82, 80, 83]).starts_with("token 1: found an image or video place"));
    }
}
