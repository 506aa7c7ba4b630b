//! Evaluation: generates and stores answers, scores them, and computes metrics with confidence intervals. Also computes
//! the log-probs of given responses, and merges adapters.

mod batch;
mod changes;
mod export;
pub mod lmms_eval;
pub mod local;
mod logprobs;
pub mod measured;
mod others_logprobs;
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
pub mod task_requests;
pub mod validation;
pub mod verdict;

pub use batch::Trained;
pub use export::{Onto, Probe, export, quantize};
pub use logprobs::score;
