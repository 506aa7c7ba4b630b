//! The inference engine for rollouts: continuous batching over a paged KV cache. It uses the trainer's weights in
//! place, without a copy.
//!
//! Planning and execution are separate, with the same terms as in vLLM: [`sequence`], [`block_manager`],
//! [`vision_cache`], [`scheduler`], [`draft`] and [`batch`] are host code that never touches a tensor. The
//! [`model_runner`] executes the steps that they plan. [`llm_engine`] accepts requests and returns rollouts.

mod allowed;
pub mod batch;
pub mod block_manager;
mod decode_graphs;
pub mod draft;
mod fit;
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
