//! Adapters (LoRA): their layers, their files, and their sum with the weights of the base.

pub mod adapter_files;
pub mod attach;
pub mod linear;
pub mod merge;
