//! Tests of commands and stages that read and write data files.

pub mod at_size;
pub mod commands;
pub mod digits;
pub mod full_disk;
pub mod layouts;
pub mod templates;
