//! The re-scorer: scores answers recorded by another framework with our rules, and compares the verdicts.

mod compare;
mod read;
mod row;
mod tsv;

pub use compare::{Compared, HEADS, VerdictCounts, cells, compare, table, verdict_counts};
pub use read::{Log, read, recognise};
pub use row::Framework;
