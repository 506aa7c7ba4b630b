//! Rewards: answer extraction, mathematical equality, choices, format.

pub mod choice;
pub mod extract;
pub mod python;

pub use crate::config::Mode;

/// `(1 - format_weight) x acc + format_weight x format`.
pub fn composite(acc: f64, format: f64, format_weight: f64) -> f64 {
    (1.0 - format_weight) * acc + format_weight * format
}
