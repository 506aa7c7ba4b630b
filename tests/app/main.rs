//! Integration tests of the program, and of the crate `omr-app`: `cargo test --release -p omr`.

#![allow(clippy::unwrap_used)]

mod cli;
mod cuda;
mod faults;
mod golden;
mod hub;
mod pages;
mod pipeline;
mod rows;
mod serve;
mod training;
