//! Tests of bad inputs and faults in the program. `tests/base/faults/faults.md` lists them.

pub mod bounds;
pub mod inputs;
pub mod launch;
pub mod lost_writes;
pub mod outputs;
pub mod published;
pub mod ranks;
pub mod reading;
pub mod runs;
pub mod stages;
pub mod strangers;
