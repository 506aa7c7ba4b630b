//! Training: the step (micro-batches, accumulation, clipping, the update) and the SFT loop. The step is
//! generic over the loss, so this room never hears of rewards.

pub mod metrics;
mod tensorboard;
