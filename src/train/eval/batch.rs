//! Log-probs of the sequences of a training batch.

use std::path::Path;
use std::sync::Arc;

use super::logprobs::LOWER;
use crate::training::step::{self, Sequence};
use omr_base::config;
use omr_base::error::Result;
use omr_data::image::ImageInput;
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
    let compute = |dev: &mut Device, model: &Model| -> Result<Vec<f64>> {
        let policy = Policy { allowed: None, temperature: 1.0 };
        let mut found = Vec::new();
        for trained in batch {
            let forward = step::forward(dev, model, &[trained.sequence()], policy, LayerPolicy::Inputs, false)?;
            found.extend(forward.read(dev)?.into_iter().flatten().map(f64::from));
        }
        Ok(found)
    };
    let dtype = DType::of(dtype, machine.target.kind);
    let (_, plan) = fits::within(machine.target, dtype, LOWER, |dtype| {
        let mut dev = Device::count_for(machine.target);
        let model = Model::empty_of(&mut dev, dir, config.clone(), dtype)?;
        compute(&mut dev, &model)?;
        Ok(((), dev.high_water()))
    })?;
    let mut dev = (machine.device)(&plan)?;
    let model = Model::load_shown(&mut dev, dir, config.clone(), dtype, machine.observer)?;
    compute(&mut dev, &model)
}
