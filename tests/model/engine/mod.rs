//! Tests of the scheduler of the engine.

pub mod scheduler;
