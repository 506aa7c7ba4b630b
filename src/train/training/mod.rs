//! The training step (micro-batches, gradient accumulation, clipping, the parameter update) and the SFT loop. The step
//! is generic over the loss and does not depend on rewards.

#![forbid(unsafe_code)]

pub mod best;
pub mod broken;
pub mod exchange;
pub mod job;
pub mod lanes;
pub mod largest;
pub mod levels;
pub mod loading;
pub mod metrics;
pub mod nll;
pub mod plan;
pub mod record;
pub mod reporters;
pub mod saving;
pub mod sft;
pub mod slow_rank;
pub mod step;
mod tensorboard;
pub mod timeline;
pub mod trainer;
pub mod trainer_config;
pub mod updates;
pub mod val_loss;
pub mod validation;
