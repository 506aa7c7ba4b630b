//! Tests of `omr export` after training.

pub mod quantized;
