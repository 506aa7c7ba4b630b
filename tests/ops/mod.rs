//! Ops against f64 formulas, finite differences and themselves under other threads, bodies and batches.

mod math;
mod philox;
