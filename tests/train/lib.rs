//! Integration tests of the crate `omr-train` (`cargo test --release -p omr-train-tests`), and helpers for the tests of the crates
//! above it.

#![allow(missing_docs, clippy::unwrap_used)]
// Without its tests, this library consists of the helpers that the tests of upper crates use.
#![cfg_attr(not(test), allow(unused))]

pub mod engine;
pub mod faults;
pub mod golden;
pub mod kernels;
pub mod nn;
pub mod optim;
pub mod ranks;
pub mod reward;
pub mod rl;
pub mod rows;
pub mod training;
#[cfg(test)]
mod verdict;
