//! Tests of rows that need a model.

pub mod charts;
