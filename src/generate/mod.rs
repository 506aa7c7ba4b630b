//! Questions and their answers: converts questions to prompts, keeps finished answers on disk, computes the log-probs of
//! given responses, and merges adapters. The room `serve` generates the answers.

#![forbid(unsafe_code)]

mod export;
mod journal;
mod logprobs;
mod questions;

pub use export::export;
pub use journal::Journal;
pub use logprobs::{score, score_to};
pub use questions::{Line, Reader, folder_of};
