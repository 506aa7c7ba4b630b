//! The configuration of a model, as data that no family owns. A family reads it from `config.json` (see
//! [`crate::nn::family`]).

pub mod quantization;

use std::sync::Arc;

use serde_json::{Value, json};

use crate::nn::family::node::Node;
use omr_base::config::{BaseConfig, QuantizationConfig};
use omr_base::error::{Error, Result};
use omr_data::image::{MediaFormat, MediaIds, PatchGrid};
use omr_data::text::ChatConfig;
use omr_runtime::ops::attend::Heads;
use omr_runtime::tensor::DType;

/// The configuration of a model.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Family of the model.
    pub family: &'static Family,
    /// Token table, decoder and output matrix.
    pub text: TextConfig,
    /// Images and videos. `None` for a text model.
    pub media: Option<MediaConfig>,
    /// Storage of the matrices in memory in 8 or 4 bits.
    pub quantization: Option<QuantizationConfig>,
    /// The `config.json` from which this was read.
    pub(super) file: Arc<Value>,
}

/// A family of models. Everything that it does not state follows from the configuration.
#[derive(Debug)]
pub struct Family {
    /// Names of released models of this family, for pages.
    pub models: &'static str,
    /// Values of `model_type` of this family.
    pub model_types: &'static [&'static str],
    /// Classes of this family in Hugging Face.
    pub classes: &'static [&'static str],
    /// Reads `config.json`.
    pub read: fn(&Node<'_>) -> Result<ModelParts>,
    /// Makes the `config.json` of a new model.
    pub new: fn(&BaseConfig, NewIds) -> Value,
    /// Ends of the names of tensors in files that may be skipped, because they follow from other tensors.
    pub ignores: &'static [&'static str],
    /// Returns the sizes to compare with the shapes of the weights before memory is allocated for them.
    pub size_checks: fn(&ModelConfig) -> Vec<SizeCheck>,
    /// Pairs of prefixes: of a module's path in memory in newer versions of transformers, and of its name in this program.
    /// A module with none of them has the same name in both.
    pub prefixes: &'static [[&'static str; 2]],
    /// True if released files have the names in memory. Otherwise they have the names in this program.
    pub stores_paths: bool,
}

/// The parts of a model in `config.json`.
#[derive(Clone, Debug)]
pub struct ModelParts {
    /// Token table, decoder and output matrix.
    pub text: TextConfig,
    /// Images and videos. `None` for a text model.
    pub media: Option<MediaConfig>,
}

/// A size of `config.json`, and where the weights have it.
#[derive(Clone, Debug)]
pub struct SizeCheck {
    /// JSON pointer of the size.
    pub key: &'static str,
    /// The size in `config.json`.
    pub declared: usize,
    /// The property of the weights that must be equal.
    pub of: Measured,
}

/// The property of the weights from which a size is read.
#[derive(Clone, Copy, Debug)]
pub enum Measured {
    /// Number of layers among the tensors whose names start with this prefix.
    Layers(&'static str),
    /// Length of the given dimension of this tensor.
    Side(&'static str, usize),
}

/// Ids of tokens of a new model.
#[derive(Clone, Copy, Debug)]
pub struct NewIds {
    /// Begins a text.
    pub bos: u32,
    /// Ends an answer.
    pub eos: u32,
    /// Images and videos. A text model has none.
    pub media: MediaIds,
}

/// The text part of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct TextConfig {
    /// Number of rows of the token table, V.
    pub vocab_size: usize,
    /// Width of the residual stream, D.
    pub hidden_size: usize,
    /// The decoder's layers.
    pub layers: Vec<LayerConfig>,
    /// Epsilon of all norms: x / rms(x), rounded, then times the weight.
    pub rms_norm_eps: f32,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Maximum sequence length for which the model was made.
    pub max_position_embeddings: usize,
    /// True if the output matrix is the token table.
    pub tie_word_embeddings: bool,
    /// Standard deviation of newly initialised matrices.
    pub initializer_range: f64,
    /// Ids that end a sequence.
    pub eos_token_id: Vec<u32>,
}

/// A layer of the decoder.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LayerConfig {
    /// Number of query heads, number of key and value heads, and dimension of a head.
    pub heads: Heads,
    /// True if q, k and v have a bias.
    pub qkv_bias: bool,
    /// True if each head of q and k is normalised before the rotation.
    pub qk_norm: bool,
    /// Width of the MLP, F.
    pub intermediate_size: usize,
}

/// The decoder's rotary embedding.
#[derive(Clone, PartialEq, Debug)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Number of columns of a head that rotate.
    pub dim: usize,
    /// Change of the frequencies, if any.
    pub scaling: Option<Llama3Scaling>,
    /// The position that each frequency uses.
    pub axes: RopeAxes,
}

/// Scaling of Llama 3: low frequencies are divided by a factor, high ones stay, those between are interpolated.
#[derive(Clone, PartialEq, Debug)]
pub struct Llama3Scaling {
    /// Divisor of low frequencies.
    pub factor: f64,
    /// A frequency is low if fewer periods than this fit into the original length.
    pub low_freq_factor: f64,
    /// A frequency is high if more periods than this fit into the original length.
    pub high_freq_factor: f64,
    /// Length of sequences before the scaling.
    pub original_max_position_embeddings: f64,
}

/// The positions that the rotary frequencies use.
#[derive(Clone, PartialEq, Debug)]
pub enum RopeAxes {
    /// Each token has one position.
    One,
    /// Numbers of consecutive frequencies for time, for height and for width.
    Sections([usize; 3]),
    /// Numbers of frequencies for time, for height and for width, which take turns: frequency i uses the height if
    /// i % 3 is 1, and the width if i % 3 is 2, as long as i is below three times their number. All others use the time.
    Interleaved([usize; 3]),
}

/// The part of a model for images and videos. It is the only owner of their ids, grid and positions.
#[derive(Clone, PartialEq, Debug)]
pub struct MediaConfig {
    /// Ids of tokens.
    pub ids: MediaIds,
    /// Sizes of patches.
    pub grid: PatchGrid,
    /// Position steps per second of video. `None` if each temporal patch of a video is an image of its own, after its time
    /// as text.
    pub tokens_per_second: Option<usize>,
    /// The vision tower.
    pub tower: TowerConfig,
}

/// The vision tower. Names are those of `vision_config`.
#[derive(Clone, PartialEq, Debug)]
pub struct TowerConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width, C.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of heads.
    pub num_heads: usize,
    /// Width of the merger's output, which is the decoder's hidden size.
    pub out_hidden_size: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Kind of the blocks and of the output.
    pub kind: TowerKind,
}

/// Kind of a vision tower.
#[derive(Clone, PartialEq, Debug)]
pub enum TowerKind {
    /// Blocks with RMSNorm and SwiGLU, most of which attend within windows. One merger.
    Windowed {
        /// Width and height of an attention window in pixels.
        window_size: usize,
        /// Indices of the blocks that attend to a whole frame.
        fullatt_block_indexes: Vec<usize>,
    },
    /// Blocks with LayerNorm and GELU that attend to whole frames, after a patch embedding with a bias and learned
    /// positions. Besides the merger, some blocks have one of their own, whose rows the decoder adds after its first layers.
    DeepStack {
        /// Width and height of the grid of learned positions.
        grid_side: usize,
        /// Indices of the blocks with a merger of their own. The decoder adds the rows of entry k after its layer k.
        deepstack_visual_indexes: Vec<usize>,
    },
}

impl MediaConfig {
    /// Returns how images and videos stand in a sequence.
    pub fn format(&self) -> MediaFormat {
        MediaFormat { ids: self.ids, grid: self.grid, timestamps: self.tokens_per_second.is_none() }
    }
}

impl TowerConfig {
    /// Returns the width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Returns the indices of the blocks with a merger of their own.
    pub fn deepstack(&self) -> &[usize] {
        match &self.kind {
            TowerKind::Windowed { .. } => &[],
            TowerKind::DeepStack { deepstack_visual_indexes, .. } => deepstack_visual_indexes,
        }
    }

    /// Returns the width of the rows that the tower computes: a row for the decoder, and one for each entry of
    /// [`TowerConfig::deepstack`].
    pub fn row_width(&self) -> usize {
        (1 + self.deepstack().len()) * self.out_hidden_size
    }
}

impl PartialEq for ModelConfig {
    /// Compares everything that a computation depends on.
    fn eq(&self, other: &ModelConfig) -> bool {
        std::ptr::eq(self.family, other.family) && self.text == other.text && self.media == other.media
    }
}

impl ModelConfig {
    /// Returns true if `config.json` states that the weights are stored as bf16.
    pub fn is_stored_as_bf16(&self) -> bool {
        let keys = ["/dtype", "/torch_dtype", "/text_config/dtype", "/text_config/torch_dtype"];
        keys.iter().find_map(|key| self.file.pointer(key)).is_some_and(|dtype| dtype == "bfloat16")
    }

    /// Returns the configuration of the model with the storage that the key `quantization` of a config selects. Errors
    /// if the files of the model have another, or if a tied matrix should be quantised.
    pub fn quantized(self, wanted: Option<&QuantizationConfig>) -> Result<ModelConfig> {
        const KEY: &str = "quantization";
        let Some(wanted) = wanted else { return Ok(self) };
        if let Some(own) = self.quantization.as_ref().filter(|own| *own != wanted) {
            let expected = format!("{}, the storage of the model or of its adapter's base (or null)", own.describe());
            return Err(Error::input(KEY, wanted.describe(), expected));
        }
        if self.text.tie_word_embeddings && !wanted.skips("lm_head") {
            let expected = "lm_head in the list: it is the token table (tie_word_embeddings), which is never quantised";
            return Err(Error::input(format!("{KEY}.skip_modules"), wanted.skip_modules.join(", "), expected));
        }
        Ok(ModelConfig { quantization: Some(wanted.clone()), ..self })
    }

    /// Returns the file, as it was read, except for the type and the storage of the weights.
    pub fn to_json(&self, dtype: DType) -> Value {
        let mut file = Value::clone(&self.file);
        let key = if file.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
        match &self.quantization {
            Some(quantization) => file[quantization::KEY] = quantization::to_json(quantization),
            None => drop(file.as_object_mut().and_then(|file| file.remove(quantization::KEY))),
        }
        file[key] = json!(if dtype == DType::Bf16 { "bfloat16" } else { "float32" });
        file
    }

    /// Returns the bytes that the engine keeps for a token, in all layers together, with keys and values stored as `dtype`.
    pub fn token_bytes(&self, dtype: DType) -> usize {
        let keys = |layer: &LayerConfig| {
            let Heads { kv, dim, .. } = layer.heads;
            2 * kv * dim * dtype.size()
        };
        self.text.layers.iter().map(keys).sum()
    }

    /// Returns what encoding a conversation needs.
    pub fn chat(&self) -> ChatConfig {
        ChatConfig {
            vocab_size: self.text.vocab_size,
            eos_token_id: self.text.eos_token_id.clone(),
            media: self.media.as_ref().map(MediaConfig::format),
        }
    }

    /// Returns the sizes of patches. For a text model, which has no patches, all are 1.
    pub fn grid(&self) -> PatchGrid {
        let none = PatchGrid { patch_size: 1, temporal_patch_size: 1, merge_size: 1 };
        self.media.as_ref().map_or(none, |media| media.grid)
    }

    /// Returns the number of ids below the first id of images and videos.
    pub fn plain_ids(&self) -> usize {
        let first = |media: &MediaConfig| media.ids.image.min(media.ids.video).min(media.ids.start).min(media.ids.end);
        self.media.as_ref().map_or(self.text.vocab_size, |media| first(media) as usize)
    }

    /// Returns the number of blocks of the vision tower.
    pub fn tower_depth(&self) -> usize {
        self.media.as_ref().map_or(0, |media| media.tower.depth)
    }
}
