//! Tests of memory and compute devices.

pub mod amx;
pub mod cuda;
pub mod kernel_variant;
pub mod limits;
pub mod params;
pub mod perf_model;
pub mod pool;
pub mod tensor_map;
pub mod wait_limit;
