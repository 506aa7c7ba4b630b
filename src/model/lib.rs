//! Models, the optimizer, checkpoints and the inference engine.

pub mod checkpoint;
pub mod engine;
pub mod llm;
pub mod nn;
pub mod optim;
pub mod rollout;
