//! Config keys of `omr generate`, named after vLLM's options.

use super::{Config, Dtype, Place, Rule};
use crate::error::{Error, Result};

settings! {
    /// How `omr generate` samples, and what the engine may use for it.
    pub struct GenerateConfig {
        /// Logits are divided by this; 0 is greedy.
        temperature: f64 = 1.0, rule: Rule::AtLeast(0.0), name: "vLLM SamplingParams.temperature";
        /// Sample from the fewest tokens whose probabilities reach this.
        top_p: f64 = 1.0, rule: Rule::Within(0.0, 1.0), name: "vLLM SamplingParams.top_p";
        /// Sample from this many tokens; -1 from all.
        top_k: i64 = -1, rule: Rule::AtLeast(-1.0), name: "vLLM SamplingParams.top_k";
        /// Sample from tokens at least this share of the likeliest one.
        min_p: f64 = 0.0, rule: Rule::Within(0.0, 1.0), name: "vLLM SamplingParams.min_p";
        /// Answers are cut here.
        max_tokens: usize = 1024, rule: Rule::AtLeast(1.0), name: "vLLM SamplingParams.max_tokens";
        /// Go on after the token that ends an answer.
        ignore_eos: bool = false, name: "vLLM SamplingParams.ignore_eos";
        /// Sample any id of the vocabulary, also those that no text has and those that stand for pictures.
        all_ids: bool = false;
        /// System prompt of `--prompt` and of lines with `prompt`; null takes the chat template's own.
        system_prompt: Option<String> = None;
        /// Seed of sampling.
        seed: u64 = 42, name: "vLLM SamplingParams.seed";
        /// Storage of weights, activations and cache; `auto` is bf16 where kernels run, f32 on the CPU.
        dtype: Dtype = Dtype::Auto, name: "vLLM --dtype";
        /// Most tokens of prompt and answer; null takes what the model was made for.
        max_model_len: Option<usize> = None, rule: Rule::AtLeast(2.0), name: "vLLM --max-model-len";
        /// Tokens of one engine step: prompts longer than what is left are prefilled in chunks.
        max_num_batched_tokens: usize = 8192, rule: Rule::AtLeast(1.0), name: "vLLM --max-num-batched-tokens";
        /// Answers that are written at once.
        max_num_seqs: usize = 256, rule: Rule::AtLeast(1.0), name: "vLLM --max-num-seqs";
        /// Blocks of 128 keys in the cache; null makes as many as the answers can need.
        num_kv_blocks: Option<usize> = None, rule: Rule::AtLeast(1.0), name: "vLLM num_gpu_blocks_override";
        /// Prompts that begin alike share the cache of what they share.
        enable_prefix_caching: bool = true, name: "vLLM --enable-prefix-caching";
        /// Smallest picture after resizing, in pixels; null keeps the model's preprocessor_config.json.
        image_min_pixels: Option<usize> = None, rule: Rule::AtLeast(784.0);
        /// Largest picture after resizing, in pixels; null keeps the model's preprocessor_config.json.
        image_max_pixels: Option<usize> = None, rule: Rule::AtLeast(784.0);
    }
}

impl Config for GenerateConfig {
    const NAME: &'static str = "generate";

    fn validate(&self, place: &Place) -> Result<()> {
        if self.top_k == 0 {
            return Err(Error::input(place.of("top_k"), "0", "-1 (all tokens) or 1 and more"));
        }
        if self.top_p == 0.0 {
            return Err(Error::input(place.of("top_p"), "0", "more than 0"));
        }
        super::sft::check_pixels(place, "", self.image_min_pixels, self.image_max_pixels)
    }
}
