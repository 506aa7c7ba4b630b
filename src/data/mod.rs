//! Data: rows in and out, rows to samples and prompts, packing, distillation.
//!
//! bytes -> [`Row`] -> [`Sample`] -> [`packing::Pack`]. Plans read the [`Index`] of sizes; runs ask [`Samples`], by
//! index, for what they compute on. Both forms of rows (SFT: `messages`; RL: `prompt` or
//! `problem`) become one [`Row`]; every fault of a file names the file and the row.

#![forbid(unsafe_code)]

pub mod columns;
pub mod distill;
pub mod folder;
pub mod form;
pub mod index;
pub mod inspect;
pub mod packing;
pub mod read;
mod row;
pub mod sample;
mod samples;
pub mod write;

pub use index::{Grid, Index, Shape};
pub use read::{load, read};
pub use row::{ImageSource, Prompt, Row, Sample, text_of};
pub use sample::{prompt, sft_sample};
pub use samples::{Eager, Samples};
pub use write::{Form, write};
