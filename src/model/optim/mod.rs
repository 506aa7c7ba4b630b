//! AdamW over a model's parameters, and learning-rate schedules.

mod adamw;
mod files;
mod freeze;
mod schedule;
mod state;

pub use adamw::{Optimizer, StepStats};
pub use freeze::{check_adapter, freeze, frozen};
pub use schedule::learning_rate;
