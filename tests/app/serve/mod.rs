//! Tests `omr serve` as clients use it: by HTTP requests to the program, with a small random model.

pub mod adapter;
pub mod batch;
pub mod clients;
pub mod errors;
pub mod exact;
pub mod faults;
pub mod fuzz;
pub mod media;
pub mod program;
pub mod routes;
pub mod sampling;
