//! Rollouts: generation and scoring ([`ask`]), storage ([`mod@file`], [`journal`]), and exchange between ranks
//! ([`wire`]). RL and evaluation use the same functions, from prompts to scored rollouts.

#![forbid(unsafe_code)]

pub mod ask;
pub mod file;
pub mod journal;
pub mod wire;

pub use ask::{Asking, Question, Rollout};
