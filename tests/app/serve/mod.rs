//! Tests `omr serve` as clients use it: by HTTP requests to the program, with a small random model.

mod adapter;
mod batch;
mod clients;
mod errors;
mod exact;
mod faults;
mod fuzz;
mod media;
pub(crate) mod program;
mod routes;
mod sampling;
