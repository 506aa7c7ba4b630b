//! Tests of checkpoints.

pub mod checkpoint;
