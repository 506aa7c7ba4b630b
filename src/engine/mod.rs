//! The sampler's engine: continuous batching over a paged KV cache, with the trainer's weights in place.
//!
//! Policy and mechanism are apart, in vLLM's words: [`sequence`], [`block_manager`], [`vision_cache`],
//! [`scheduler`] and [`batch`] are host code that never touches a tensor; the model runner executes the steps they plan.

pub mod batch;
pub mod block_manager;
pub mod scheduler;
pub mod sequence;
pub mod vision_cache;
