//! Tests of training: SFT, checkpoints, memory plans and gradient lanes.

pub mod damaged;
pub mod families;
pub mod frozen;
pub mod heap;
pub mod lanes;
pub mod lora;
pub mod plan;
pub mod quantized;
pub mod rows;
pub mod sft;
pub mod tiny;
pub mod validation;
