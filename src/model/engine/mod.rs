//! The inference engine for rollouts: continuous batching over a paged KV cache. It uses the trainer's weights in
//! place, without a copy.
//!
//! Planning and execution are separate, with the same terms as in vLLM: [`sequence`], [`block_manager`],
//! [`vision_cache`], [`scheduler`], [`draft`] and [`batch`] are host code that never touches a tensor. The
//! [`model_runner`] executes the steps that they plan. [`requests`] join and leave the engine between two steps, and
//! [`llm_engine`] answers many of them to their end.

mod allowed;
pub mod batch;
pub mod block_manager;
mod decode_graphs;
pub mod draft;
mod fit;
mod in_flight;
pub mod llm_engine;
pub mod model_runner;
pub mod requests;
mod schedule;
pub mod scheduler;
pub mod sequence;
mod serving;
mod step_inputs;
pub mod vision_cache;

pub use allowed::allowed_ids;
pub use llm_engine::{Engine, EngineConfig};
pub use requests::{
    CompletionOutput, EngineCoreOutput, EngineCoreRequest, Finish, MAX_LOGPROBS, Noise, PromptLogprob, RequestId,
    RequestParams, SampledToken,
};
pub use sequence::{FinishReason, Prompt};
