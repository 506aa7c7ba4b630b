//! Policy losses: GRPO and DAPO (token ratios, dual clip), GSPO (sequence ratios), CISPO (clipped ratios as weights), KL and
//! entropy terms.
//!
//! A loss is a sum over tokens of `weight x token loss`. The weight depends on
//! [`LossAggMode`](omr_base::choice::LossAggMode), the sequence's length and the [`Denominators`] of the whole mini-batch.
//! The losses of micro-batches therefore add up to the loss of the mini-batch, however it is split. Inputs are f32 or
//! f64. All arithmetic is f64 in one fixed order (`row.rs`), with this crate's own `exp`, so that the CPU and the
//! kernels give the same bits, and equal log-probs give a ratio of exactly 1.

pub mod batch;
pub mod compute;
mod device;
mod loss;
pub mod row;
mod stats;

pub use batch::Real;
pub use device::{Io, Packed, fwd, reset, stats};
pub use loss::{Denominators, Distillation, KlLoss, PolicyLoss, kl_value_and_grad};
pub use stats::{LOSSES, PolicyStats, STATS, Stat, Sums};
