//! Tests of bad inputs and faults of runs. `tests/base/faults/faults.md` lists them.

pub mod inputs;
pub mod parquet;
pub mod published;
pub mod strangers;
