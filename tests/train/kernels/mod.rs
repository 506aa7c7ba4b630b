//! Tests of kernels in models, the engine and training.

pub mod engine;
pub mod lanes;
pub mod lengths;
pub mod limits;
pub mod lora_train;
pub mod model;
pub mod model_bwd;
pub mod plan;
pub mod policy_loss;
pub mod questions;
pub mod ranges;
pub mod slice;
pub mod steps_sync;
pub mod sums;
pub mod train;
