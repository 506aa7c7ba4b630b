//! Evaluation: questions measured, answers kept, intervals.

pub mod prompts;
pub mod recorded;
pub mod run;
pub mod samples;
pub mod stats;
pub mod validation;
