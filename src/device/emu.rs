//! The second driver: kernels on the host, through an emulator that is stricter than a card.
//!
//! Each file of `kernels/` is compiled by the host's C++ compiler when a launch first needs it and kept in the user's
//! cache. Memory is guarded and poisoned. Work is queued and runs as late as it may, or at seeded moments; streams
//! are ordered against each other by events alone, so a missing wait shows.

pub mod compile;
mod emulator;
mod graph;
mod limits;
mod machine;
pub mod options;
mod pages;
mod runtime;
pub mod sites;
mod streams;
mod tensor_map;

pub use compile::{Cache, Compiler};
pub use emulator::Emu;
pub use options::{Completion, Options};
