//! The one place where rows become samples: whoever trains, asks or sends asks here, by index.

use std::sync::Arc;

use rayon::prelude::*;

use crate::data::Row;
use crate::data::bad::Read;
use crate::error::Result;

/// What asking for a sample gives: the sample, or why its row is not used.
pub type Made<T> = Read<Arc<T>>;

/// Rows ready for their use (trained on, asked, sent to a teacher), by index.
pub trait Samples<T>: Send + Sync {
    /// How many.
    fn len(&self) -> usize;

    /// True when there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `i`, or why there is none: a picture that broke in decoding. Errors are for what ends a run, such as a
    /// file that is not the one it was.
    fn get(&self, i: usize) -> Result<Made<T>>;
}

/// All samples made beforehand and kept.
#[derive(Clone, Debug)]
pub struct Eager<T>(Vec<Arc<T>>);

impl<T: Send + Sync> Eager<T> {
    /// Those that `make` makes of `rows`, in their order; rows it makes nothing of are left out. Errors with the first
    /// row at fault.
    pub fn new(rows: &[Row], make: impl Fn(&Row) -> Result<Option<T>> + Sync) -> Result<Eager<T>> {
        // All before the first error is looked for, so that it is the first row at fault that is named.
        let made: Vec<Result<Option<T>>> = rows.par_iter().map(&make).collect();
        let made = made.into_iter().filter_map(Result::transpose);
        Ok(Eager(made.map(|sample| sample.map(Arc::new)).collect::<Result<_>>()?))
    }

    /// These samples in another order, in which some may stand several times and others not at all.
    pub fn ordered(&self, order: &[u32]) -> Eager<T> {
        Eager(order.iter().map(|&i| self.0[i as usize].clone()).collect())
    }

    /// The samples.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.0.iter().map(|sample| &**sample)
    }
}

impl<T> From<Vec<T>> for Eager<T> {
    fn from(samples: Vec<T>) -> Eager<T> {
        Eager(samples.into_iter().map(Arc::new).collect())
    }
}

impl<T: Send + Sync> Samples<T> for Eager<T> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, i: usize) -> Result<Made<T>> {
        Ok(Ok(self.0[i].clone()))
    }
}
