//! Training: the step (micro-batches, accumulation, clipping, the update) and the SFT loop. The step is
//! generic over the loss, so this room never hears of rewards.

#![forbid(unsafe_code)]

pub mod broken;
pub mod job;
pub mod lanes;
pub mod largest;
pub mod levels;
pub mod loading;
pub mod metrics;
pub mod nll;
pub mod plan;
pub mod record;
pub mod saving;
pub mod sft;
pub mod step;
mod tensorboard;
pub mod trainer;
pub mod trainer_config;
pub mod updates;
pub mod validation;
