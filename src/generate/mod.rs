//! Text generation: converts questions to prompts and generates the answers of a model.

#![forbid(unsafe_code)]

mod answers;
mod questions;

pub use answers::{Answers, write};
pub use questions::Reader;
