//! Batches and weights of models, for any test.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use omr_base::config::{BaseConfig, ImageConfig};
use omr_base::philox::{Purpose, Random};
use omr_data::image::ImageInput;
use omr_data::rows::Encoder;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::text::{ChatConfig, Tokenizer};
use omr_model::nn::adapter::attach::Masters;
use omr_model::nn::family::qwen2_5_vl;
use omr_model::nn::weights::params::{Param, Piece};
use omr_model::nn::{Inputs, Model, ModelConfig, ParamLayout, Tape, Var};
use omr_runtime::device::Device;
use omr_runtime::ops::linear;
use omr_runtime::tensor::{DType, Elem, Tensor};

/// Masters that are neither zero nor short in bf16. Every second one lies half-way between two bf16 values.
pub struct Rough;

impl Masters for Rough {
    fn row(&self, piece: &Piece, r: usize, out: &mut [f32]) {
        static SEED: LazyLock<u64> = LazyLock::new(omr_base_tests::seed::seed);
        let mut random = Random::new(*SEED, Purpose::Test, (piece.name.len() * 1000 + r) as u64);
        for (i, x) in out.iter_mut().enumerate() {
            *x = 0.4 * random.uniform_f32() - 0.2;
            if i % 2 == 1 {
                *x = f32::from_bits(x.to_bits() & 0xffff_0000 | 0x8000);
            }
        }
    }
}

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
    omr_model::llm::new_model::model_config(&qwen2_5_vl::FAMILY, &base, tokenizer).unwrap().chat()
}

/// Computes the logits `[T, V]` f32 of hidden rows, with the same order of summation as log-probs and the sampler.
pub fn logits(model: &Model, tape: &mut Tape, dev: &mut Device, hidden: Var) -> Tensor {
    let head = model.decoder.lm_head.weight;
    let logits = dev.alloc(tape.region(), DType::F32, &[hidden.tensor.rows(), head.n]).unwrap();
    linear::fwd_f32(dev, hidden.tensor, &head, logits).unwrap();
    logits
}
