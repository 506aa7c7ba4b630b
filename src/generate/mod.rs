//! Text generation: questions to prompts of a model, and its answers.

#![forbid(unsafe_code)]

mod answers;
mod questions;

pub use answers::{Answers, write};
pub use questions::Reader;
