//! Readers of file formats: each reads the rows of one format as JSON fields and images.

pub(crate) mod arrow_rows;
pub(crate) mod cells;
pub(crate) mod class_folder;
pub mod columns;
pub(crate) mod delimited;
pub mod json;
pub(crate) mod row_source;
pub(crate) mod webdataset;
