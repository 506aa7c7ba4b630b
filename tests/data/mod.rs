//! Data files in and out, packing, distillation, the digits task.

mod files;
mod packing;
