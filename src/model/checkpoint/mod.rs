//! Checkpoints: atomically saved states of a run.
//!
//! The checkpoints of a run are folders `checkpoints/global_step_N` ([`Store`]). Each checkpoint is a model directory
//! with a folder `trainer/`, which contains [`State`] and the optimizer's state by Hugging Face name and shape. It gets
//! its final name by a single rename. After a kill at any moment, a run finds its newest complete checkpoint and no
//! partial one. A `MANIFEST` detects files that were changed later.

#![forbid(unsafe_code)]

mod state;
mod store;

pub use state::State;
pub use store::{Cadence, Checkpoint, Resume, Retention, Store, UnfinishedCheckpoint};
