//! Config keys of sampling responses in RL, named after verl's and vLLM's.

use super::{Rule, Safe};

settings! {
    /// Sampling of responses, and the resources of the engine.
    pub struct RolloutConfig {
        /// Number of responses per prompt.
        n: usize = 8, rule: Rule::SEQUENCES,
            name: "verl actor_rollout_ref.rollout.n; TRL num_generations", published: "16";
        /// Sampling temperature: logits are divided by this value, in sampling and in the loss.
        temperature: f64 = 1.0, rule: Rule::AtLeast(1e-6),
            name: "verl actor_rollout_ref.rollout.temperature; TRL temperature",
            published: "1.0";
        /// Sample only from the smallest set of most likely tokens whose probabilities sum to this value. 1 = all
        /// tokens.
        top_p: f64 = 1.0, rule: Rule::Within(0.0, 1.0),
            name: "verl actor_rollout_ref.rollout.top_p; TRL top_p", published: "1.0";
        /// Sample only from this number of most likely tokens. -1 = all tokens.
        top_k: i64 = -1, rule: Rule::AtLeast(-1.0),
            name: "verl actor_rollout_ref.rollout.top_k; TRL top_k (-1 is no limit)", published: "-1";
        /// Sample only from tokens whose probability is at least this share of the highest probability. 0 = all tokens.
        min_p: f64 = 0.0, rule: Rule::Within(0.0, 1.0), name: "vLLM min_p";
        /// Maximum number of tokens per engine step. Longer prompts are prefilled in chunks.
        max_num_batched_tokens: usize = 8192, rule: Rule::TOKENS, safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.max_num_batched_tokens", published: "33792";
        /// Maximum number of sequences that run at once.
        max_num_seqs: usize = 256, rule: Rule::SEQUENCES, safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.max_num_seqs", published: "1024";
        /// Number of blocks of the KV cache, 128 tokens each. null = enough for max_num_seqs sequences of full length.
        num_kv_blocks: Option<usize> = None, rule: Rule::BLOCKS, safe: Safe::Yes,
            name: "vLLM num_gpu_blocks_override", published: "gpu_memory_utilization 0.8";
        /// Prompts with the same beginning share its KV cache blocks.
        enable_prefix_caching: bool = true, safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.enable_prefix_caching", published: "true";
    }
}
