//! Qwen2.5-VL: configuration, weights and their layout, positions, tape.

pub mod config;
pub mod inputs;
pub mod params;
pub mod positions;
pub mod tape;
pub mod weights;

pub use config::{ModelConfig, VisionConfig};
pub use inputs::Inputs;
pub use params::ParamLayout;
pub use tape::{Grads, Keep, Mode, Tape, Var};
