//! Data files in and out, packing, distillation, the digits task.

mod commands;
mod digits;
mod distill;
mod files;
mod packing;
mod server;
