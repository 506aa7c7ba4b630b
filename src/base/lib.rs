//! The tensor runtime of omr: devices, tensors and ops, and the base modules that they use.
//!
//! It is a crate of its own, because its kernels for the CPU need the highest optimisation level, and nothing else does.
//! The crate `omr` re-exports its modules and describes them.

pub mod bounds;
pub mod choice;
pub mod device;
pub mod error;
pub mod files;
pub mod math;
pub mod observe;
pub mod ops;
pub mod philox;
pub mod tensor;
