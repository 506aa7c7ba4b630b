//! Integration tests of the crate `omr-base` (`cargo test --release -p omr-base-tests`), and helpers for the tests of the crates
//! above it.

#![allow(missing_docs, clippy::unwrap_used)]
// Without its tests, this library consists of the helpers that the tests of upper crates use.
#![cfg_attr(not(test), allow(unused))]

pub mod answers;
pub mod cli;
pub mod faults;
pub mod golden;
pub mod heap;
pub mod hub;
pub mod layering;
pub mod math;
pub mod paths;
pub mod philox;
pub mod reward;
pub mod seed;
pub mod wait;

pub use paths::{root, sources, tmp};
