//! The one place where rows become samples: whoever trains, asks or sends asks here, by index.

use std::sync::Arc;

use crate::data::bad::Read;
use crate::error::Result;

/// What asking for a sample gives: the sample, or why its row is not used.
pub type Made<T> = Read<Arc<T>>;

/// Rows ready for their use (trained on, asked, sent to a teacher), by index.
pub trait Samples<T>: Send + Sync {
    /// Sample `i`, or why there is none: a picture that broke in decoding. Errors are for what ends a run, such as a
    /// file that is not the one it was.
    fn get(&self, i: usize) -> Result<Made<T>>;
}
