//! The driver that runs kernels on the host, in an emulator that is stricter than a real GPU.
//!
//! The host's C++ compiler compiles each file of `kernels/` when a launch first needs it, and the user's cache keeps
//! the result. Memory is guarded and poisoned. Queued work runs as late as possible, or at seeded random times. Only
//! events order the streams relative to each other, so a missing wait becomes visible.

pub mod compile;
mod emulator;
mod graph;
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
