//! Tests of reading and writing data files, packing, distillation, and the tasks with recipes.

mod at_size;
mod charts;
mod commands;
mod digits;
mod files;
mod formats;
mod full_disk;
mod incomplete;
pub(crate) mod layouts;
mod packing;
mod published;
mod streaming;
mod templates;
mod turns;
mod unread;
mod video;
