//! Evaluation: questions measured, answers kept, intervals.

pub mod samples;
pub mod stats;
