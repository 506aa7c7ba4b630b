//! Tests of typed scores.

pub mod typed;
