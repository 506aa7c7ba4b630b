//! Batches and weights of models, for any test.

use std::path::Path;
use std::sync::Arc;

use omr::config::{BaseConfig, ImageConfig};
use omr::data::Encoder;
use omr::data::encoder::EncodingPurpose;
use omr::device::Device;
use omr::image::{Backend, ImageInput, PatchGrid, Processor};
use omr::model::family::qwen2_5_vl;
use omr::model::params::Param;
use omr::model::{Inputs, Model, ModelConfig, ParamLayout, Tape, Var};
use omr::ops::linear;
use omr::tensor::{DType, Elem, Tensor};
use omr::text::{ChatConfig, Tokenizer};

/// Sizes of the patches of Qwen2.5-VL.
pub const GRID: PatchGrid = PatchGrid { patch_size: 14, temporal_patch_size: 2, merge_size: 2 };

/// Returns a batch of sequences with their images. All tokens of a sequence count as its prompt.
pub fn inputs(config: &ModelConfig, sequences: &[(&[u32], &[Arc<ImageInput>])]) -> Inputs {
    let mut inputs = Inputs::empty();
    for (input_ids, images) in sequences {
        inputs.push(config, input_ids, images, input_ids.len()).unwrap();
    }
    inputs
}

/// Returns the parameter that contains the tensor called `name` (released naming), and the number of its piece.
pub fn find<'a>(layout: &'a ParamLayout, name: &str) -> (&'a Param, usize) {
    let (param, piece, _) = layout.pieces().find(|(_, _, piece)| piece.name == name).unwrap();
    (&layout.params[param], piece)
}

/// Returns piece number `piece` of `tensor`, row-major. The tensor has one element for each of `param`'s weights.
pub fn piece<T: Elem>(dev: &mut Device, param: &Param, tensor: Tensor, piece: usize) -> Vec<T> {
    param.take_run(&dev.read::<T>(tensor).unwrap(), 0, piece, 0..param.pieces[piece].num_elements())
}

/// Returns the encoder of the model in `dir`.
pub fn encoder(dir: &Path, purpose: EncodingPurpose) -> Encoder {
    let config = ModelConfig::load(&dir.join("config.json")).unwrap().chat();
    Encoder::load(dir, &config, purpose, &ImageConfig::default()).unwrap()
}

/// Returns what the `config.json` of a recipe's model with this tokenizer says about its tokens.
pub fn chat_config(tokenizer: &Tokenizer) -> ChatConfig {
    let base = BaseConfig { vocab_size: 1 << 18, ..BaseConfig::default() };
    omr::recipe::new_model::model_config(&qwen2_5_vl::FAMILY, &base, tokenizer).unwrap().chat()
}

/// Computes the logits `[T, V]` f32 of hidden rows, with the same order of summation as log-probs and the sampler.
pub fn logits(model: &Model, tape: &mut Tape, dev: &mut Device, hidden: Var) -> Tensor {
    let head = model.decoder.lm_head.weight;
    let logits = dev.alloc(tape.region(), DType::F32, &[hidden.tensor.rows(), head.n]).unwrap();
    linear::fwd_f32(dev, hidden.tensor, &head, logits).unwrap();
    logits
}

/// Returns the normalized patches, `[t * h * w][3 * temporal_patch_size * patch_size^2]` (channel, frame, row, column), one
/// merge block after another. They equal `pixel_values` of Hugging Face.
pub fn patches(processor: &Processor, input: &ImageInput) -> Vec<f32> {
    let [grid_t, grid_h, grid_w] = input.grid_thw.map(|n| n as usize);
    let [patch, merge, depth] =
        [processor.patch_size, processor.merge_size, processor.temporal_patch_size].map(|n| n as usize);
    let (mean, std) = (processor.image_mean, processor.image_std);
    let value = |byte: u8, channel: usize| match processor.backend {
        // As in Hugging Face, the byte is rescaled in f64 and rounded to f32 before it is normalized.
        Backend::Pil => ((f64::from(byte) * processor.rescale_factor) as f32 - mean[channel]) / std[channel],
        Backend::Torchvision => (f32::from(byte) - mean[channel] * 255.0) / (std[channel] * 255.0),
    };
    let stride = grid_w * patch * 3;
    let frame_len = grid_h * patch * stride;
    let product = |a: usize, b: usize| (0..a).flat_map(move |i| (0..b).map(move |j| (i, j)));
    let mut rows = Vec::with_capacity(grid_t * grid_h * grid_w * 3 * depth * patch * patch);
    for t in 0..grid_t {
        for ((block_h, block_w), (h, w)) in
            product(grid_h / merge, grid_w / merge).flat_map(|block| product(merge, merge).map(move |at| (block, at)))
        {
            let (top, left) = ((block_h * merge + h) * patch, (block_w * merge + w) * patch);
            for (channel, frame) in product(3, depth) {
                let frame = if input.frames == 1 { 0 } else { t * depth + frame };
                for y in top..top + patch {
                    let start = frame * frame_len + y * stride + left * 3 + channel;
                    rows.extend(input.pixels[start..].iter().step_by(3).take(patch).map(|&byte| value(byte, channel)));
                }
            }
        }
    }
    rows
}
