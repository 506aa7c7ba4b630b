//! Helpers of tests of the program.

pub mod model_server;
