//! The interface through which training, rollouts and distillation request samples, by index.

pub mod encoder;
pub mod loader;
pub mod packing;
pub mod sample;

use std::sync::Arc;

use crate::rows::bad_row::RowResult;
use omr_base::error::Result;

/// A sample, or the reason why its row is not used.
pub type Made<T> = RowResult<Arc<T>>;

/// Rows converted for their use (training, rollouts, requests to a teacher), by index.
pub trait Samples<T>: Send + Sync {
    /// Returns sample `i`, or the reason why it cannot be made, such as an image that fails to decode. Returns an outer
    /// error for faults that end a run, such as a file that has changed.
    fn get(&self, i: usize) -> Result<Made<T>>;
}

impl<T, F: Fn(usize) -> Result<Made<T>> + Send + Sync> Samples<T> for F {
    fn get(&self, i: usize) -> Result<Made<T>> {
        self(i)
    }
}
