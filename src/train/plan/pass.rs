//! The largest training pass of a run, with invented rows. It is used for plans and predictions, and `omr bench CONFIG`
//! measures it.

use std::sync::Arc;

use crate::rl::group::{Group, responses, sequences};
use crate::rl::plan;
use crate::training::nll;
use crate::training::step::{Computed, Sequence};
use omr_base::config::RlConfig;
use omr_base::error::Result;
use omr_data::image::ImageInput;
use omr_data::rows::Sample;
use omr_model::nn::{CheckpointPolicy, GradientSink, Model, ModelConfig};
use omr_runtime::device::{Device, Region};
use omr_runtime::tensor::DType;

/// A micro-batch and its loss.
pub enum Pass {
    /// A pass of fine-tuning.
    Sft {
        /// The row, which is repeated.
        row: Sample,
        /// Number of rows.
        rows: usize,
    },
    /// A pass of reinforcement learning.
    Rl {
        /// Config of the run, for the questions of one gradient lane.
        config: Box<RlConfig>,
        /// Questions and responses.
        groups: Vec<Group>,
    },
}

impl Pass {
    /// Returns the rows of fine-tuning.
    pub fn sequences(&self) -> Vec<Sequence<'_>> {
        match self {
            Pass::Sft { row, rows } => vec![Sequence::from(row); *rows],
            Pass::Rl { .. } => Vec::new(),
        }
    }

    /// Returns the number of tokens of all rows, or of prompts, each counted once, and responses.
    pub fn tokens(&self) -> usize {
        match self {
            Pass::Sft { row, rows } => rows * row.input_ids.len(),
            Pass::Rl { groups, .. } => Computed::micro_batch(&sequences(groups, &responses(groups))).tokens,
        }
    }

    /// Describes the sizes of the pass.
    pub fn describe(&self) -> String {
        let patches = |image: &Arc<ImageInput>| image.grid_thw.iter().product::<u32>() as usize;
        match self {
            Pass::Sft { row, rows } => {
                let images: usize = row.images.iter().map(patches).sum();
                format!("{rows} rows x {} with images of {images} patches", row.input_ids.len())
            }
            Pass::Rl { groups, .. } => {
                let images = groups.iter().flat_map(|group| &group.question.prompt.pixels);
                let images: usize = images.map(patches).sum();
                let answered: usize = groups.iter().map(|group| group.experience.len()).sum();
                let (asked, tokens) = (groups.len(), self.tokens());
                format!("{answered} responses to {asked} prompts, {tokens} tokens, images of {images} patches")
            }
        }
    }

    /// Runs forward and backward and adds the gradients to `grads`. Does not wait for the device.
    pub fn run(
        &self,
        dev: &mut Device,
        model: &Model,
        grads: &mut dyn GradientSink,
        levels: CheckpointPolicy,
    ) -> Result<()> {
        let mark = dev.mark(Region::Overlay);
        match self {
            Pass::Sft { .. } => {
                let loss = dev.zeros(Region::Overlay, DType::F64, &[1])?;
                nll::gradients(dev, model, grads, &self.sequences(), self.tokens(), levels, loss)?;
            }
            Pass::Rl { config, groups } => plan::pass(dev, model, grads, config, levels, groups)?,
        }
        dev.release(mark);
        Ok(())
    }

    /// Replaces ids and pixels by values that differ from one another, because a GPU is faster on equal values. The
    /// sizes stay the same.
    pub fn varied(mut self, model: &ModelConfig) -> Pass {
        match &mut self {
            Pass::Sft { row, .. } => {
                vary(&mut row.input_ids, model, 0);
                row.images.iter_mut().for_each(pixels);
            }
            Pass::Rl { groups, .. } => {
                for group in &mut *groups {
                    let question = Arc::make_mut(&mut group.question);
                    Arc::make_mut(&mut question.prompt).pixels.iter_mut().for_each(pixels);
                }
                for (i, response) in groups.iter_mut().flat_map(|group| &mut group.experience).enumerate() {
                    vary(&mut response.input_ids, model, i);
                }
            }
        }
        self
    }
}

/// Gives each text id another value.
fn vary(ids: &mut [u32], model: &ModelConfig, row: usize) {
    // Special ids of images are the last ones of the vocabulary.
    let below = model.plain_ids() as u32;
    for (t, id) in ids.iter_mut().enumerate().filter(|(_, id)| **id < below) {
        *id = ((row * 104_729 + t) * 7919 % below as usize) as u32;
    }
}

fn pixels(image: &mut Arc<ImageInput>) {
    let image = Arc::make_mut(image);
    image.pixels.iter_mut().enumerate().for_each(|(i, pixel)| *pixel = (i * 31 % 251) as u8);
}
