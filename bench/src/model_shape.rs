//! The shapes of models that jobs are measured with.

use clap::ValueEnum;

use omr_base::config::BaseConfig;
use omr_base::config::recipe::VisionConfig;
use omr_base::error::Result;
use omr_data::image::MediaIds;
use omr_model::nn::ModelConfig;
use omr_model::nn::config::NewIds;
use omr_model::nn::family::qwen2_5_vl;

/// Model shapes: Qwen2.5-VL-3B, and those of `bench/peers/models.py` without 150m. The slice of the 7B model fits on a GPU
/// with any optimizer.
#[derive(Clone, Copy, ValueEnum)]
pub enum ModelShape {
    /// The model of the digits recipe
    Digits,
    /// 22 million parameters
    #[value(name = "22m")]
    M22,
    /// Qwen2.5-VL-3B
    #[value(name = "3b")]
    B3,
    /// Qwen2.5-VL-7B
    #[value(name = "7b")]
    B7,
    /// Four layers and eight vision blocks of Qwen2.5-VL-7B
    #[value(name = "7b-slice")]
    Slice,
}

impl ModelShape {
    /// Its name in tables of results.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Its configuration, without weights.
    pub fn config(self) -> Result<ModelConfig> {
        let ([hidden, layers, intermediate, heads, kv], [width, depth, inner, vision_heads], vocabulary) = match self {
            ModelShape::Digits => ([96, 3, 256, 3, 1], [64, 2, 128, 4], 512),
            ModelShape::M22 => ([384, 8, 1536, 6, 2], [192, 4, 768, 4], 4096),
            ModelShape::B3 => ([2048, 36, 11008, 16, 2], [1280, 32, 3420, 16], 151_936),
            ModelShape::B7 => ([3584, 28, 18944, 28, 4], [1280, 32, 3420, 16], 152_064),
            ModelShape::Slice => ([3584, 4, 18944, 28, 4], [1280, 8, 3420, 16], 152_064),
        };
        let untied = matches!(self, ModelShape::B7 | ModelShape::Slice);
        let released = untied || matches!(self, ModelShape::B3);
        let half: usize = hidden / heads / 2;
        let base = BaseConfig {
            vocab_size: vocabulary as usize,
            hidden_size: hidden,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv,
            intermediate_size: intermediate,
            mrope_section: vec![half / 4, half * 3 / 8, half * 3 / 8],
            tie_word_embeddings: !untied,
            vision: VisionConfig {
                hidden_size: width,
                depth,
                num_heads: vision_heads,
                intermediate_size: inner,
                fullatt_block_indexes: (0..depth).filter(|block| !released || block % 8 == 7).collect(),
                ..VisionConfig::default()
            },
            ..BaseConfig::default()
        };
        let [image, video, start, end, pad] = [2, 1, 3, 4, 5].map(|from_last| vocabulary - from_last);
        let ids = NewIds { bos: 0, eos: 0, media: MediaIds { image, video, start, end, pad } };
        ModelConfig::new(&qwen2_5_vl::FAMILY, &base, ids, &self.name())
    }
}
