//! Recomputes steps of a run and compares them with what the run recorded.

#![forbid(unsafe_code)]

mod compare;
mod compute;
mod last_batch;
mod recorded;
mod run;

pub use last_batch::last_batch;
pub use run::{Steps, run};
