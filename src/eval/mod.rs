//! Evaluation: questions measured, answers kept, intervals.

pub mod lmms_eval;
pub mod prompts;
pub mod recorded;
pub mod referee;
pub mod run;
pub mod samples;
pub mod stats;
pub mod validation;
