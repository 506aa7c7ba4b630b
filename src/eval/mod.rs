//! Evaluation: questions measured, answers kept, intervals.

pub mod run;
pub mod samples;
pub mod stats;
