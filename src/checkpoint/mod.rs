//! Whole-or-nothing state of a run.
//!
//! A run's checkpoints are folders `checkpoints/global_step_N` that appear in one rename ([`Store`]): a model
//! directory and `trainer/` with [`State`] and the optimizer's state by Hugging Face name and shape. Killed at
//! any moment, a run finds the newest whole checkpoint and nothing half-written; a `MANIFEST` tells what was changed since.

#![forbid(unsafe_code)]

mod state;
mod store;

pub use state::State;
pub use store::{Cadence, Checkpoint, Draft, Resume, Retention, Store};
