//! Models: configuration, families, weights and their layout, positions, vision tower, decoder, and the tape for backward. In
//! this module a row is the vector of one token: token rows enter the decoder, and hidden rows leave it after the last
//! norm.
//!
//! A training pass runs in this order:
//!
//! 1. `tape = Tape::new(&dev, Mode::train(keep))` starts the record.
//! 2. [`Model::forward`] computes the hidden rows.
//! 3. [`Tape::gather`] selects the rows whose next token is a target.
//! 4. [`Tape::linear_logprob`] computes the log-probs of these targets, and the caller's loss gives the derivative by
//!    each log-prob.
//! 5. [`Tape::backward`] adds the gradients to [`Grads`].
//! 6. [`Tape::finish`] frees the activations.
//!
//! The inference engine calls [`Model::encode_images`], [`Model::embed`] and [`Model::decode`] with
//! [`tape::layers::Attend::Paged`] on a tape in inference mode. Training and inference run the same code.

pub mod adapter;
pub mod config;
pub mod decoder;
pub mod family;
pub mod inputs;
pub mod positions;
pub mod rotary;
pub mod tape;
#[cfg(test)]
mod tiny;
pub mod vision;
pub mod weights;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::nn::family::names::stored_name;
use crate::nn::rotary::{RopeTable, Rotary};
use crate::nn::weights::part::Init;
use omr_base::error::{Error, Result};
use omr_base::identity::Written;
use omr_base::observe::Silent;
use omr_base::philox::{Purpose, Random};
use omr_data::image::ImageInput;
use omr_runtime::device::Device;
use omr_runtime::ops::quantized::Quantized;
use omr_runtime::ops::rows::Segments;
use omr_runtime::tensor::{DType, Tensor};

pub use config::{MediaConfig, ModelConfig};
pub use decoder::Decoder;
pub use inputs::Inputs;
pub use tape::grads::{GradMemory, GradientSink, Grads};
pub use tape::layers::{Attend, Policy, Rope};
pub use tape::spread::DeepStack;
pub use tape::{CheckpointPolicy, LayerPolicy, Mode, Stack, Tape, Var};
pub use vision::VisionTower;
pub use weights::layout::ParamLayout;
pub use weights::outgoing::OutModel;

/// A model in a device's memory.
pub struct Model {
    /// Configuration.
    pub config: ModelConfig,
    /// Parameters.
    pub layout: ParamLayout,
    /// Decoder, from token rows to hidden rows, with the output matrix.
    pub decoder: Decoder,
    /// Vision tower, from pixels to token rows. `None` for a text model.
    pub vision: Option<VisionTower>,
}

impl Model {
    /// Creates a model with all weights zero. `dtype` is F32 or Bf16. Errors on F32 on a GPU.
    pub fn empty(dev: &mut Device, config: ModelConfig, dtype: DType) -> Result<Model> {
        if dev.kind().is_gpu() && dtype != DType::Bf16 {
            let expected = format!("bf16: the kernels of --device {} support no other dtype", dev.kind().name());
            return Err(Error::input("dtype", format!("{dtype:?}").to_lowercase(), expected));
        }
        let mut layout = ParamLayout { quantization: config.quantization.clone(), ..ParamLayout::new(dtype) };
        let decoder = Decoder::new(dev, &mut layout, &config)?;
        let tower = |media: &MediaConfig| VisionTower::new(dev, &mut layout, media);
        let vision = config.media.as_ref().map(tower).transpose()?;
        Ok(Model { config, layout, decoder, vision })
    }

    /// Creates a model with random weights: matrices N(0, initializer_range), biases 0, norms 1. A weight depends only
    /// on the seed, its tensor and its position in the tensor.
    pub fn init(dev: &mut Device, config: ModelConfig, dtype: DType, seed: u64) -> Result<Model> {
        let model = Model::empty(dev, config, dtype)?;
        let std = model.config.text.initializer_range as f32;
        let mut first_piece = 0;
        for param in &model.layout.params {
            let row = |piece: usize, r: usize, out: &mut [f32]| match param.init {
                Init::Zeros => out.fill(0.0),
                Init::Ones => out.fill(1.0),
                Init::Normal => {
                    let counter = ((first_piece + piece) as u64) << 32 | r as u64;
                    let mut random = Random::new(seed, Purpose::Init, counter);
                    out.iter_mut().for_each(|w| *w = random.normal() * std);
                }
            };
            match param.quantized {
                Some(Quantized { format, .. }) => param.fill_codes(dev, |piece, r, out| {
                    let mut values = vec![0.0; out.codes.len()];
                    row(piece, r, &mut values);
                    weights::reading::encode_row(param.name(), r, &values, format, out)
                })?,
                None => param.fill_in_dtype(dev, param.tensor, row)?,
            }
            first_piece += param.pieces.len();
        }
        Ok(model)
    }

    /// Loads the model of a Hugging Face directory and converts its weights to `dtype`. Errors name the file and the
    /// fault.
    pub fn load(dev: &mut Device, dir: &Path, dtype: DType) -> Result<Model> {
        Model::load_shown(dev, dir, ModelConfig::load(&dir.join("config.json"))?, dtype, &Silent)
    }

    /// Writes `config.json` and the weights as `dtype` into the existing directory `dir`. Returns what was written to the
    /// weight files.
    pub fn save(&self, dev: &mut Device, dir: &Path, dtype: DType) -> Result<Vec<Written>> {
        let own: Vec<_> = self.layout.lens().into_iter().map(|len| 0..len).collect();
        self.outgoing(&Arc::new(self.layout.clone()), dtype, &own).write(dir, dev)
    }

    /// Plans the files that [`Model::save`] writes, so that another thread can write them later. `layout` must be the
    /// model's own. `own` contains the range of each parameter that this process writes.
    pub fn outgoing(&self, layout: &Arc<ParamLayout>, dtype: DType, own: &[Range<usize>]) -> OutModel {
        let mut weights = weights::outgoing::weights(layout, dtype, own);
        let tensors = weights.iter_mut().flat_map(|file| &mut file.tensors);
        tensors.for_each(|tensor| tensor.name = stored_name(self.config.family, &tensor.name));
        OutModel { configs: vec![self.config_file(dtype)], weights }
    }

    /// Returns the name and the text of `config.json` for weights of `dtype`.
    fn config_file(&self, dtype: DType) -> (&'static str, String) {
        ("config.json", format!("{:#}\n", self.config.to_json(dtype)))
    }

    /// Computes the hidden rows `[T, D]` of a packed batch. Errors, before anything is computed, if there are no
    /// tokens, if an id is outside the vocabulary, or if image placeholders and images do not match.
    pub fn forward(&self, tape: &mut Tape, dev: &mut Device, inputs: &Inputs) -> Result<Var> {
        if inputs.is_empty() {
            return Err(Error::input("batch", "no tokens", "at least one token"));
        }
        let merge = self.config.grid().merge_size as u32;
        for (i, image) in inputs.images.iter().enumerate() {
            let (places, rows) = (image.places.len(), image.image.tokens(merge));
            if places != rows {
                let expected = format!("the image's {rows} tokens");
                return Err(Error::input(format!("image {i}"), format!("{places} placeholders"), expected));
            }
        }
        tape.trains_base = self.layout.adapters.is_empty();
        let x = self.embed(tape, dev, &inputs.input_ids)?;
        let vision = self.place_images(tape, dev, inputs, x)?;
        let attend = match inputs.shares_prompts() {
            true => Attend::sharing(tape, dev, &inputs.cu_seqlens, &inputs.prompt_of)?,
            false => Attend::packed(tape, dev, &inputs.cu_seqlens, true)?,
        };
        self.decode(tape, dev, x, &inputs.position_ids, attend, vision)
    }

    /// Writes the rows of the images over their placeholders in the token rows `x`. Returns the rows that the decoder adds.
    fn place_images(&self, tape: &mut Tape, dev: &mut Device, inputs: &Inputs, x: Var) -> Result<Vec<DeepStack>> {
        if inputs.images.is_empty() {
            return Ok(Vec::new());
        }
        let places: Vec<u32> = inputs.images.iter().flat_map(|image| &image.places).copied().collect();
        let places = tape.upload(dev, &places, &[places.len()])?;
        let images: Vec<Arc<ImageInput>> = inputs.images.iter().map(|image| image.image.clone()).collect();
        let merge = self.config.grid().merge_size as u32;
        let rows = images.iter().map(|image| image.tokens(merge)).sum();
        let out = dev.alloc(tape.region(), self.layout.dtype, &[rows, self.vision_width()])?;
        let (mut from, mut added) = (0, Vec::new());
        for piece in self.encode_images(tape, dev, &images, out)? {
            let to = from + piece.tensor.rows();
            added.push(self.place_rows(tape, dev, piece, places.slice(from, to), x, self.trains_tower())?);
            from = to;
        }
        Ok(added)
    }

    /// Writes `rows` of the vision tower over the rows `places` of the token rows `x`. Returns the rows that the decoder
    /// adds. `trains` is true if the tower is trained.
    pub fn place_rows(
        &self,
        tape: &mut Tape,
        dev: &mut Device,
        rows: Var,
        places: Tensor,
        x: Var,
        trains: bool,
    ) -> Result<DeepStack> {
        let mut levels = tape.split_levels(dev, rows, self.config.text.hidden_size)?;
        let added = levels.split_off(1);
        tape.spread(dev, levels[0], places, x, trains)?;
        Ok(DeepStack { levels: added, places, trains })
    }

    /// Returns the width of the rows that the vision tower computes, 0 for a text model.
    pub fn vision_width(&self) -> usize {
        self.vision.as_ref().map_or(0, VisionTower::row_width)
    }

    /// Returns true if any part of the vision tower is trained.
    pub fn trains_tower(&self) -> bool {
        self.vision.as_ref().is_some_and(VisionTower::trains)
    }

    /// Computes the token rows `[T, D]`. Errors on an id outside the vocabulary.
    pub fn embed(&self, tape: &mut Tape, dev: &mut Device, input_ids: &[u32]) -> Result<Var> {
        inputs::check_ids(&self.config, input_ids)?;
        let ids = tape.upload(dev, input_ids, &[input_ids.len()])?;
        let segments = tape.recording.then(|| Segments::upload(dev, tape.region(), input_ids)).transpose()?;
        tape.embedding(dev, ids, segments, self.decoder.embed_tokens)
    }

    /// Computes the token rows of the images, one image after another, into `out` `[M, vision_width]`. Returns `out` as
    /// consecutive values, one for each chunk of images.
    pub fn encode_images(
        &self,
        tape: &mut Tape,
        dev: &mut Device,
        images: &[Arc<ImageInput>],
        out: Tensor,
    ) -> Result<Vec<Var>> {
        match &self.vision {
            Some(vision) => dev.range(format_args!("vision"), |dev| vision.forward(tape, dev, images, out)),
            None if images.is_empty() => Ok(Vec::new()),
            None => Err(Error::input("image 0", "an image", "text: the model has no vision tower")),
        }
    }

    /// Computes the hidden rows of the token rows `x` at `position_ids`, with `vision` added after the first layers. The memory of `x` may be overwritten.
    pub fn decode(
        &self,
        tape: &mut Tape,
        dev: &mut Device,
        x: Var,
        position_ids: &[Vec<i32>; 3],
        attend: Attend,
        vision: Vec<DeepStack>,
    ) -> Result<Var> {
        tape.note("text.embeds", 0, x);
        let mut rotary = Rotary::new(&self.config.text.rope);
        let dims = [position_ids[0].len(), rotary.width()];
        // A plan counts hundreds of passes. Computing the angles would take most of its time for long passes.
        let table = match dev.counts_only() {
            true => RopeTable::zeros(dims[0] * dims[1]),
            false => rotary.rows(position_ids),
        };
        let rope = Rope { cos: tape.upload(dev, &table.cos, &dims)?, sin: tape.upload(dev, &table.sin, &dims)? };
        let hidden = self.decoder.forward(tape, dev, x, rope, attend, vision.into())?;
        tape.note("text.final_norm", 0, hidden);
        Ok(hidden)
    }
}
