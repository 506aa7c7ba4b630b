//! A model directory that answers prompts: from rows to the engine's requests, and from its tokens to texts. Rollouts,
//! evaluation, validation, the stage `passrate` and the server use it.

#![forbid(unsafe_code)]

mod answerer;
pub mod fits;
mod prompts;

pub use answerer::{Answerer, Llm, Workload};
pub use prompts::{largest, prompt, prompt_text, response_text, vision_rows};
