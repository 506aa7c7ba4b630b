//! Data sets: reads and writes rows, converts rows to samples and prompts, and plans packing.
//!
//! The flow is bytes -> [`Row`] -> [`Sample`] -> [`packing::Pack`]. Plans read only the [`Index`] of sizes. Runs
//! request the samples that they compute on from [`Samples`], by index. All forms of rows (the table in `forms.rs`) become
//! one [`Row`]. Every error names the file and the row.

#![forbid(unsafe_code)]

pub mod answer;
mod arrow_rows;
pub mod bad_row;
mod cells;
mod choices;
pub mod chunks;
mod class_folder;
pub mod columns;
pub mod content;
pub mod dataset;
mod declared;
mod decoded;
mod delimited;
pub mod encoder;
mod extra;
pub mod fields;
pub mod folder;
pub mod form;
mod forms;
pub mod held_out;
pub mod index;
pub mod indexing;
pub mod inspect;
pub mod json;
pub mod loader;
pub mod names;
pub mod packing;
pub mod paths;
mod places;
pub mod read;
mod read_counts;
mod row;
mod row_source;
pub mod sample;
mod samples;
mod shards;
mod splits;
mod stamp;
mod stored_index;
mod templates;
mod unread;
mod webdataset;
pub mod write;
pub mod zipped;

pub use bad_row::{BadRow, Reason, Rejected, RejectedRows, RowResult};
pub use dataset::Dataset;
pub use encoder::Encoder;
pub use index::{Index, Shape};
pub use loader::Loader;
pub use places::Signature;
pub use read::{load, read};
pub use read_counts::ReadCounts;
pub use row::{EncodedPrompt, ImageSource, Media, Row, Sample, text_of};
pub use sample::{prompt, sft_sample};
pub use samples::{Made, Samples};
pub use stamp::short;
pub use write::{Form, Writer, write};
