//! Evaluation: generates and stores answers, scores them, and computes metrics with confidence intervals.

pub mod lmms_eval;
pub mod local;
pub mod measured;
pub mod prompts;
mod questions;
pub mod recorded;
pub mod rescore;
pub mod samples;
pub mod server;
mod source_sums;
pub mod stats;
mod subsets;
pub mod summary;
mod survey;
mod task_requests;
pub mod validation;
