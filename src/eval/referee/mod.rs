//! The re-scorer: scores answers recorded by another framework with our rules, and compares the verdicts.

mod agreement;
mod read;
mod row;
mod tsv;

pub use agreement::{Agreement, Compared, HEADS, agreements, cells, compare, table};
pub use read::{Log, read, recognise};
pub use row::Framework;
