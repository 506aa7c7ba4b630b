//! The tensor runtime: devices, tensors, ops, and the ranks of a distributed run.

pub mod device;
pub mod machine;
pub mod ops;
pub mod ranks;
pub mod tensor;
