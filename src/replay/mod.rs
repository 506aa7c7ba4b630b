//! Recomputes steps of a run and compares them with what the run recorded.

#![forbid(unsafe_code)]

mod compare;
mod compute;
mod recorded;
mod run;

pub use run::{Steps, run};
