//! What is measured, and how.

use std::path::Path;

use super::jobs::ModelShape;
use crate::plan;
use crate::tensor::DType;

/// What to measure, and how.
pub struct Options<'a> {
    /// First parts of names of ops and jobs, `emu`, `loading`, or a config with its values; all ops and jobs when empty.
    pub names: &'a [String],
    /// The model of jobs.
    pub model_shape: Option<ModelShape>,
    /// Sequences that decode at once on a GPU.
    pub batch_size: usize,
    /// Keys of each of them.
    pub input_len: usize,
    /// Rows that a config is measured on.
    pub rows: &'a plan::Rows,
    /// Element types of weights and activations.
    pub dtypes: Vec<DType>,
    /// Model directory for `loading`.
    pub model: Option<&'a Path>,
    /// Rows for `loading`.
    pub data: Option<&'a Path>,
    /// File for the figures.
    pub json: Option<&'a Path>,
    /// Seconds to measure each case for, at least.
    pub seconds: f64,
}
