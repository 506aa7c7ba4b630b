//! Tests of the engine: its scheduler, and parity with training.

pub(crate) mod families;
pub(crate) mod parity;
mod request_params;
mod scheduler;
pub(crate) mod serving;
