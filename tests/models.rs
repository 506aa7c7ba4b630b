//! Batches and weights of models, for any test.

use std::path::Path;
use std::sync::Arc;

use omr::config::BaseConfig;
use omr::data::Encoder;
use omr::data::encoder::EncodingPurpose;
use omr::device::Device;
use omr::image::ImageInput;
use omr::model::params::Param;
use omr::model::{Inputs, ModelConfig, ParamLayout};
use omr::tensor::{Elem, Tensor};
use omr::text::{ChatConfig, Tokenizer};

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
    Encoder::load(dir, &config, purpose, [None, None]).unwrap()
}

/// Returns what the `config.json` of a recipe's model with this tokenizer says about its tokens.
pub fn chat_config(tokenizer: &Tokenizer) -> ChatConfig {
    let base = BaseConfig { vocab_size: 1 << 18, ..BaseConfig::default() };
    omr::recipe::new_model::model_config(&base, tokenizer).unwrap().chat()
}
