//! Integration tests of the crate `omr-runtime` (`cargo test --release -p omr-runtime-tests`), and helpers for the tests of the crates
//! above it.

#![allow(missing_docs, clippy::unwrap_used)]
// Without its tests, this library consists of the helpers that the tests of upper crates use.
#![cfg_attr(not(test), allow(unused))]

pub mod device;
pub mod emulated;
pub mod golden;
pub mod kernels;
pub mod losses;
pub mod machine;
pub mod ops;
pub mod ptx;
pub mod ranks;
pub mod tensor;
