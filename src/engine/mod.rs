//! The sampler's engine: continuous batching over a paged KV cache, with the trainer's weights in place.
//!
//! Policy and mechanism are apart, in vLLM's words: [`sequence`], [`block_manager`], [`vision_cache`],
//! [`scheduler`], [`draft`] and [`batch`] are host code that never touches a tensor; the [`model_runner`] executes the steps
//! they plan; [`llm_engine`] takes requests and gives rollouts.

mod allowed;
pub mod batch;
pub mod block_manager;
mod decode_graphs;
pub mod draft;
pub mod llm_engine;
pub mod model_runner;
mod schedule;
pub mod scheduler;
pub mod sequence;
mod step_inputs;
pub mod vision_cache;

pub use allowed::allowed_ids;
pub use llm_engine::{Engine, EngineConfig, Event, Output, Request, stop_token_ids};
pub use sequence::{FinishReason, Prompt};
