//! Data: rows in and out, rows to samples and prompts, packing, distillation.

#![forbid(unsafe_code)]

pub mod packing;
pub mod whole;
