//! Data sets: reads and writes rows, converts rows to samples and prompts, and plans packing.
//!
//! The flow is bytes -> [`Row`] -> [`Sample`] -> [`samples::packing::Pack`]. Plans read only the [`Index`] of sizes. Runs
//! request the samples that they compute on from [`Samples`], by index. All forms of rows (the table in `forms/table.rs`) become
//! one [`Row`]. Every error names the file and the row.

#![forbid(unsafe_code)]

pub mod bad_row;
pub mod chunks;
pub mod files;
pub mod forms;
pub mod index;
pub mod inspect;
pub mod read;
mod read_counts;
pub mod readers;
mod row;
pub mod samples;
pub mod write;

pub use bad_row::{BadRow, Reason, Rejected, RejectedRows, RowResult};
pub use files::stamp::short;
pub use index::dataset::Dataset;
pub use index::places::Signature;
pub use index::{Index, Shape};
pub use read::{load, read};
pub use read_counts::ReadCounts;
pub use row::{EncodedPrompt, ImageSource, Media, Row, Sample, text_of};
pub use samples::encoder::Encoder;
pub use samples::loader::Loader;
pub use samples::sample::{prompt, sft_sample};
pub use samples::{Made, Samples};
pub use write::{Form, Writer, write};
