//! The re-scorer: scores answers recorded by another framework with our rules, and compares the verdicts.

/// Note about logs that do not record what was in the assistant's turn before the responses.
pub const UNKNOWN_OPENED: &str = "note: these answers have no field `opened` with the text that the chat template wrote before \
    them. If it opened the thinking (<think>), a response that was cut inside the thinking is scored as an answer";

mod compare;
mod read;
mod row;
mod tsv;

pub use compare::{Compared, HEADS, VerdictCounts, cells, compare, table, verdict_counts};
pub use read::{Log, read, recognise};
pub use row::Framework;
