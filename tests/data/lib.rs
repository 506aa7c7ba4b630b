//! Integration tests of the crate `omr-data` (`cargo test --release -p omr-data-tests`), and helpers for the tests of the crates
//! above it.

#![allow(missing_docs, clippy::unwrap_used)]
// Without its tests, this library consists of the helpers that the tests of upper crates use.
#![cfg_attr(not(test), allow(unused))]

pub mod golden;
pub mod image;
pub mod patches;
pub mod reward;
pub mod rows;
