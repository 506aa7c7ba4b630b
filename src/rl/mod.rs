//! Reinforcement learning: advantages of groups, group filtering, KL in the reward, overlong penalty, rollout
//! correction, and the split of a mini-batch into micro-batches. The policy losses are `ops::policy_loss`.

pub mod advantage;
pub mod batching;
pub mod correction;
pub mod filter;
pub mod kl;
pub mod overlong;
