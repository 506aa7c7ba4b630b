//! Data sets: reads and writes rows, converts rows to samples and prompts, and plans packing.
//!
//! The flow is bytes -> [`Row`] -> [`Sample`] -> [`packing::Pack`]. Plans read only the [`Index`] of sizes. Runs
//! request the samples that they compute on from [`Samples`], by index. All row formats (`messages`, `conversations`,
//! `prompt`, `problem` or `question` with images) become one [`Row`]. Every error names the file and the row.

#![forbid(unsafe_code)]

pub mod answer;
pub mod bad;
mod cells;
pub mod columns;
pub mod dataset;
mod declared;
mod decoded;
pub mod encoder;
mod extra;
pub mod folder;
pub mod form;
pub mod index;
pub mod indexing;
pub mod inspect;
pub mod json;
mod kept;
pub mod loader;
pub mod names;
pub mod packing;
pub mod paths;
mod places;
pub mod read;
mod row;
pub mod sample;
mod samples;
mod seen;
mod stamp;
pub mod write;
pub mod zipped;

pub use bad::{Bad, Read, Reason, Rejected, RejectedRows};
pub use dataset::Dataset;
pub use encoder::Encoder;
pub use index::{Index, Shape};
pub use loader::Loader;
pub use places::Signature;
pub use read::{load, read};
pub use row::{EncodedPrompt, ImageSource, Media, Row, Sample, text_of};
pub use sample::{prompt, sft_sample};
pub use samples::{Made, Samples};
pub use seen::Seen;
pub use stamp::short;
pub use write::{Form, Writer, write};
