//! Rollouts: generation and scoring ([`generate::generate`]), storage ([`mod@file`], [`journal`]), and exchange between ranks
//! ([`wire`]). RL and evaluation use the same functions, from prompts to scored rollouts.

#![forbid(unsafe_code)]

pub mod file;
pub mod generate;
pub mod journal;
pub mod wire;

pub use generate::{Question, Rollout, RolloutRequest};
