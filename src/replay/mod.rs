//! Steps of a run computed again and held against what the run kept of them.

#![forbid(unsafe_code)]

mod compare;
mod compute;
mod recorded;
mod run;

pub use run::{Steps, run};
