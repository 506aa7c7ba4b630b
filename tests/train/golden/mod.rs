//! Golden tests of RL, distillation and quantised bases.

pub mod distill;
pub mod nf4;
pub mod rl;
pub mod rl2026;
pub mod vero;
