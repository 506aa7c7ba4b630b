//! Ops against f64 formulas, finite differences and themselves under other threads, bodies and batches.

mod adamw;
mod attention;
mod grad_norm;
mod math;
mod philox;
mod reference;
mod rms_norm;
mod rope;
mod rows;
