//! The data pipeline: stages that read rows and write rows. Each stage has its own file. [`run()`] contains what all
//! stages share, and [`list`] runs several stages.
//!
//! A stage reads its data sets in order, a bounded number of rows at a time. It writes `NAME.parquet` for each data set
//! and `rejected.jsonl`, and finally `summary.json`, which marks it as finished. Each file appears only when it is
//! complete. `--shard i/n` processes a part of the rows and writes files named `...-i-of-n`. A later run without
//! `--shard` merges them.

#![forbid(unsafe_code)]

mod dedup;
pub mod distill;
mod files;
mod filter;
mod format;
pub mod list;
mod merge;
mod mix;
mod nll;
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
