//! Texts, images, rows, benchmarks and rewards. Nothing here uses a device.

pub mod image;
pub mod reward;
pub mod rows;
pub mod task;
pub mod text;
