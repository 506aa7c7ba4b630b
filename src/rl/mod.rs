//! Reinforcement learning: the loop ([`run`]), its update, advantages of groups, the order of prompts ([`curriculum`]), group filtering, KL in the
//! reward, overlong penalty, how far sampler and trainer are apart, and the split of a mini-batch into micro-batches ([`groups`]).
//! The policy losses are `ops::policy_loss`.

#![forbid(unsafe_code)]

pub mod advantage;
pub mod batching;
pub mod curriculum;
pub mod experience;
pub mod filter;
pub mod groups;
pub mod kl;
pub mod metrics;
pub mod overlong;
pub mod plan;
pub mod probs_diff;
pub mod run;
pub mod update;
