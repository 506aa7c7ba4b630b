//! The integration tests in one binary: `cargo test --release golden` runs the golden tests, and so on.

#![allow(clippy::unwrap_used)]

mod answers;
mod cli;
mod cuda;
mod data;
mod emulated;
mod engine;
mod faults;
mod golden;
mod hub;
mod image;
mod kernels;
mod layering;
mod losses;
mod math;
mod model;
mod models;
mod ops;
mod optim;
mod pages;
mod philox;
mod pipeline;
mod ptx;
mod ranks;
mod reward;
mod rl;
mod seed;
mod serve;
mod text;
mod train;
