//! Integration tests of the crate `omr-model` (`cargo test --release -p omr-model-tests`), and helpers for the tests of the crates
//! above it.

#![allow(missing_docs, clippy::unwrap_used)]
// Without its tests, this library consists of the helpers that the tests of upper crates use.
#![cfg_attr(not(test), allow(unused))]

pub mod engine;
pub mod golden;
pub mod models;
pub mod nn;
pub mod ops;
pub mod rows;
pub mod text;
pub mod training;
