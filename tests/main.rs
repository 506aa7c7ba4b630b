//! All integration tests, one binary: `cargo test --release golden` runs the golden tests, and so on.

#![allow(clippy::unwrap_used)]

mod data;
mod engine;
mod golden;
mod ops;
mod rl;
mod seed;
