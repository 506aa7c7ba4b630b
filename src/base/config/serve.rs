//! Config keys of `omr serve`, named after vLLM's options.

use super::{Config, Dtype, ImageConfig, Place, QuantizationConfig, Rule};
use crate::error::Result;

settings! {
    /// Engine settings of `omr serve`, `omr chat` and `omr replay --requests`.
    pub struct ServeConfig with images: ImageConfig {
        /// Allow every token id of the vocabulary, also ids without text and ids that stand for images.
        all_ids: bool = false;
        /// Data type of weights, activations and KV cache; `auto` = bf16 on a GPU, and on a CPU that has units for it
        /// if the weights are stored so; else f32.
        dtype: Dtype = Dtype::Auto, name: "vLLM --dtype";
        /// Storage of the weights in 8 or 4 bits. null = in `dtype`, or as the model's files are.
        quantization: Option<QuantizationConfig> = None;
        /// Maximum number of tokens of a prompt with its answer. null = the limit in the model's config.
        max_model_len: Option<usize> = None, rule: Rule::Within(2.0, 1_048_576.0), name: "vLLM --max-model-len";
        /// Maximum number of tokens per engine step. Longer prompts are prefilled in chunks.
        max_num_batched_tokens: usize = 2048, rule: Rule::TOKENS, name: "vLLM --max-num-batched-tokens";
        /// Maximum number of answers that are generated at once.
        max_num_seqs: usize = 256, rule: Rule::Within(1.0, 4096.0), name: "vLLM --max-num-seqs";
        /// Number of blocks of the KV cache, 128 tokens each. null = as many as fit into the GPU, and at most 4 GiB on
        /// the CPU.
        num_kv_blocks: Option<usize> = None, rule: Rule::BLOCKS, name: "vLLM num_gpu_blocks_override";
        /// Prompts with the same beginning share its KV cache blocks.
        enable_prefix_caching: bool = true, name: "vLLM --enable-prefix-caching";
        ..images;
    }
}

impl Config for ServeConfig {
    const NAME: &'static str = "serve";

    fn validate(&self, place: &Place) -> Result<()> {
        self.images.check_parts(place, "")
    }
}
