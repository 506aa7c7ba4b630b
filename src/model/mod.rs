//! Qwen2.5-VL: configuration, weights and their layout, positions, vision tower, decoder.

pub mod config;
pub mod positions;

pub use config::{ModelConfig, VisionConfig};
