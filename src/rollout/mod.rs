//! Rollouts: questions put to the engine, each response scored as it ends ([`ask`]), and what is kept of them
//! ([`mod@file`], [`journal`]), how ranks hand them to each other ([`wire`]). RL and evaluation both ask this way; what goes in is prompts, what comes out is rollouts.

#![forbid(unsafe_code)]

pub mod ask;
pub mod file;
pub mod journal;
pub mod wire;

pub use ask::{Asking, Question, Rollout};
