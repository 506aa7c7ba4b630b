//! Tests of the engine: parity with training.

pub mod families;
pub mod parity;
pub mod request_params;
pub mod serving;
