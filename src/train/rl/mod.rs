//! Reinforcement learning. This module contains the loop ([`run`]) and its update, groups ([`group`]) and their
//! advantages, the order of prompts ([`curriculum`], [`domains`]), the teacher of [`distillation`], group filtering, KL in the reward, the overlong penalty and the
//! difference between sampler and trainer. The policy losses are in `ops::policy_loss`.

#![forbid(unsafe_code)]

pub mod advantage;
pub mod balance;
pub mod curriculum;
pub mod distillation;
pub mod domains;
pub mod experience;
pub mod filter;
pub mod group;
pub mod kl;
pub mod metrics;
pub mod overlong;
pub mod parity;
pub mod plan;
pub mod probs_diff;
pub mod run;
pub mod update;
