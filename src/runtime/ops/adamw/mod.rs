//! AdamW with decoupled weight decay, as in `torch.optim.AdamW`, elementwise over a weight and its state. Moments are
//! f32, bf16 or 8-bit codes; weights are f32, bf16 with an exact f32 master, or bf16 alone. All variants use the same
//! update of an element and differ only in how they read and write it.

pub mod code8;
mod factors;
pub mod master;
mod parameter;
mod step;
mod update;

pub use parameter::{AdamW, Coded, Moments, Parameter};
pub use step::step;
