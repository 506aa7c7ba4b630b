//! Training with SFT and RL, evaluation, replay and plans.

pub mod eval;
pub mod plan;
pub mod replay;
pub mod rl;
pub mod training;
