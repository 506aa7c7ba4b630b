//! Tests of reading and writing data files, and of packing.

pub mod files;
pub mod formats;
pub mod hub;
pub mod incomplete;
pub mod layouts;
pub mod packing;
pub mod published;
pub mod templates;
pub mod types;
