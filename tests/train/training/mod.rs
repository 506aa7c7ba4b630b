//! Tests of training: SFT, checkpoints, memory plans and gradient lanes.

pub mod checkpoint;
pub mod damaged;
mod families;
mod frozen;
pub mod heap;
mod lanes;
mod lora;
mod plan;
pub mod quantized;
mod rows;
mod sft;
pub mod tiny;
mod validation;
