//! ops
pub mod policy_loss;
