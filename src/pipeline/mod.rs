//! The data pipeline: stages from rows to rows. [`run()`] has what every stage shares, [`list`] runs several; a stage a
//! file.
//!
//! A stage reads its data sets in order, a bounded number of rows at a time, and writes, whole: `NAME.parquet` for each
//! of them, `rejected.jsonl`, and at last `summary.json`, by which it is finished. `--shard i/n` does the same for a part
//! of the rows in files named `...-i-of-n`; the stage without it joins them.

#![forbid(unsafe_code)]

mod dedup;
pub mod distill;
mod files;
mod filter;
mod format;
mod json;
pub mod list;
mod merge;
mod mix;
mod pass;
pub mod passrate;
mod record;
mod run;
mod stage;
mod summary;
mod verify;

pub use run::{finished, run};
pub use stage::{Shard, Stage, Work};
pub use summary::Summary;
