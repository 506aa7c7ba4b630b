//! A model directory that answers prompts: from rows to the engine's requests, and from its tokens to texts. Rollouts,
//! evaluation, validation, the stage `passrate` and the server use it. Also files of questions, and their answers on disk.

#![forbid(unsafe_code)]

mod answerer;
pub mod fits;
mod journal;
pub mod new_model;
mod prompts;
mod questions;

pub use answerer::{Answerer, Llm, Workload};
pub use journal::{Journal, is_answered};
pub use prompts::{largest, prompt, vision_rows};
pub use questions::{Line, Reader};
