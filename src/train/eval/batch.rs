//! Log-probs of the sequences of a training batch.

use std::path::Path;
use std::sync::Arc;

use super::logprobs::LOWER;
use crate::training::plan::blank;
use crate::training::step::{self, Sequence};
use omr_base::config;
use omr_base::error::Result;
use omr_data::image::{Grid, ImageInput};
use omr_data::rows::{Sample, Shape};
use omr_model::llm::fits;
use omr_model::nn::{LayerPolicy, Model, ModelConfig, Policy};
use omr_runtime::device::Device;
use omr_runtime::machine::Machine;
use omr_runtime::tensor::DType;

/// A sequence of a training batch, which owns its tokens and images.
pub struct Trained {
    /// Token ids, with image placeholders expanded.
    pub input_ids: Vec<u32>,
    /// Images of the sequence.
    pub images: Vec<Arc<ImageInput>>,
    /// Number of prompt tokens.
    pub prompt_len: usize,
    /// True for each token whose prediction counts.
    pub loss_mask: Vec<bool>,
}

impl From<Sequence<'_>> for Trained {
    fn from(sequence: Sequence<'_>) -> Trained {
        let Sequence { input_ids, images, prompt_len, loss_mask, .. } = sequence;
        Trained { input_ids: input_ids.to_vec(), images: images.to_vec(), prompt_len, loss_mask: loss_mask.to_vec() }
    }
}

impl Trained {
    fn sequence(&self) -> Sequence<'_> {
        let Trained { input_ids, images, prompt_len, loss_mask } = self;
        Sequence { input_ids, images, prompt_len: *prompt_len, loss_mask, same_prompt: false }
    }
}

/// Computes the log-probs, at temperature 1, of the tokens that count in `batch`, under the model in the directory `dir`
/// with weights of the type `dtype`.
pub fn logprobs(dir: &Path, batch: &[Trained], dtype: config::Dtype, machine: &Machine) -> Result<Vec<f64>> {
    let config = ModelConfig::load(&dir.join("config.json"))?;
    let dtype = DType::of(dtype, machine.target.kind);
    let (_, plan) = fits::within(machine.target, dtype, LOWER, |dtype| {
        let mut dev = Device::count_for(machine.target);
        let model = Model::empty_of(&mut dev, dir, config.clone(), dtype)?;
        of_model(&mut dev, &model, batch)?;
        Ok(((), dev.high_water()))
    })?;
    let mut dev = (machine.device)(&plan)?;
    let model = Model::load_shown(&mut dev, dir, config.clone(), dtype, machine.observer)?;
    of_model(&mut dev, &model, batch)
}

/// Does the same as [`logprobs`] for a loaded model.
pub fn of_model(dev: &mut Device, model: &Model, batch: &[Trained]) -> Result<Vec<f64>> {
    let policy = Policy { allowed: None, temperature: 1.0 };
    let mut found = Vec::new();
    for trained in batch {
        let forward = step::forward(dev, model, &[trained.sequence()], policy, LayerPolicy::Inputs, false)?;
        found.extend(forward.read(dev)?.into_iter().flatten().map(f64::from));
    }
    Ok(found)
}

/// Returns `count` tokens from the whole vocabulary, after a black image if the model has a vision tower.
pub fn made_up(config: &ModelConfig, count: usize) -> Trained {
    let side = config.grid().merge_size as u16;
    let grids = vec![Grid::image(side, side); config.media.iter().count()];
    // The start, the only token, and the end of the image.
    let prompt_len = 3 * grids.len();
    let Sample { mut input_ids, loss_mask, images } =
        blank(config, Shape { tokens: prompt_len + count, targets: count, grids: &grids });
    let text = input_ids[prompt_len..].iter_mut().enumerate();
    text.for_each(|(i, id)| *id = (i * config.text.vocab_size / count) as u32);
    Trained { input_ids, images, prompt_len, loss_mask }
}
