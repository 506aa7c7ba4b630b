//! Data files in and out, packing, distillation, the digits task.

mod digits;
mod distill;
mod files;
mod packing;
mod server;
