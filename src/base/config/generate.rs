//! Config keys of `omr generate`, named after vLLM's options.

use serde_json::{Map, Value, json};

use super::{ChatTemplateKwargs, Config, Dtype, ImageConfig, Place, QuantizationConfig, Rule, Safe, ServeConfig};
use crate::error::Result;

settings! {
    /// Sampling and engine settings of `omr generate`.
    pub struct GenerateConfig with images: ImageConfig {
        /// Sampling temperature: logits are divided by this value. 0 = greedy decoding.
        temperature: f64 = 1.0, rule: Rule::AtLeast(0.0), name: "vLLM SamplingParams.temperature";
        /// Sample only from the smallest set of most likely tokens whose probabilities sum to this value. 1 = all
        /// tokens.
        top_p: f64 = 1.0, rule: Rule::Within(0.0, 1.0), name: "vLLM SamplingParams.top_p";
        /// Sample only from this number of most likely tokens. -1 = all tokens.
        top_k: i64 = -1, rule: Rule::AtLeast(-1.0), name: "vLLM SamplingParams.top_k";
        /// Sample only from tokens whose probability is at least this share of the highest probability. 0 = all tokens.
        min_p: f64 = 0.0, rule: Rule::Within(0.0, 1.0), name: "vLLM SamplingParams.min_p";
        /// Maximum number of tokens per answer.
        max_tokens: usize = 1024, rule: Rule::TOKENS, name: "vLLM SamplingParams.max_tokens";
        /// Continue after the token that ends an answer.
        ignore_eos: bool = false, name: "vLLM SamplingParams.ignore_eos";
        /// Allow every token id of the vocabulary, also ids without text and ids that stand for images.
        all_ids: bool = false;
        /// System prompt for `--prompt` and for lines with the key `prompt`. null = the system prompt of the chat
        /// template.
        system_prompt: Option<String> = None;
        /// Variables of the chat template.
        chat_template_kwargs: ChatTemplateKwargs = ChatTemplateKwargs::default();
        /// Seed for sampling.
        seed: u64 = 42, name: "vLLM SamplingParams.seed";
        /// Share of the lines of `--jsonl` that may have errors. They are skipped, and their places in the output state
        /// the errors.
        max_bad_rows: f64 = 1.0, rule: Rule::Within(0.0, 1.0), safe: Safe::Yes;
        /// Data type of weights, activations and KV cache; `auto` = bf16 on a GPU, and on a CPU that has units for it
        /// if the weights are stored so; else f32.
        dtype: Dtype = Dtype::Auto, name: "vLLM --dtype";
        /// Storage of the weights in 8 or 4 bits. null = in `dtype`, or as the model's files are.
        quantization: Option<QuantizationConfig> = None;
        /// Maximum number of tokens of a prompt with its answer. null = the limit in the model's config.
        max_model_len: Option<usize> = None, rule: Rule::Within(2.0, 1_048_576.0), name: "vLLM --max-model-len";
        /// Maximum number of tokens per engine step. Longer prompts are prefilled in chunks.
        max_num_batched_tokens: usize = 8192, rule: Rule::TOKENS, safe: Safe::Yes, name: "vLLM --max-num-batched-tokens";
        /// Maximum number of answers that are generated at once.
        max_num_seqs: usize = 256, rule: Rule::SEQUENCES, safe: Safe::Yes, name: "vLLM --max-num-seqs";
        /// Number of blocks of the KV cache, 128 tokens each. null = as many as the answers can need.
        num_kv_blocks: Option<usize> = None, rule: Rule::BLOCKS, safe: Safe::Yes, name: "vLLM num_gpu_blocks_override";
        /// Prompts with the same beginning share its KV cache blocks.
        enable_prefix_caching: bool = true, safe: Safe::Yes, name: "vLLM --enable-prefix-caching";
        ..images;
    }
}

impl Config for GenerateConfig {
    const NAME: &'static str = "generate";

    fn validate(&self, place: &Place) -> Result<()> {
        place.check_sampling("", self.top_k, self.top_p)?;
        self.images.check_parts(place, "")
    }
}

impl GenerateConfig {
    /// Returns the settings of the engine.
    pub fn engine(&self) -> ServeConfig {
        ServeConfig {
            all_ids: self.all_ids,
            dtype: self.dtype,
            quantization: self.quantization.clone(),
            max_model_len: self.max_model_len,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_num_seqs: self.max_num_seqs,
            num_kv_blocks: self.num_kv_blocks,
            enable_prefix_caching: self.enable_prefix_caching,
            images: self.images.clone(),
        }
    }

    /// Returns the sampling parameters as fields of a request, without the seed and the number of tokens.
    pub fn parameters(&self) -> Map<String, Value> {
        let fields = [
            ("temperature", json!(self.temperature)),
            ("top_p", json!(self.top_p)),
            ("top_k", json!(self.top_k)),
            ("min_p", json!(self.min_p)),
            ("ignore_eos", json!(self.ignore_eos)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
