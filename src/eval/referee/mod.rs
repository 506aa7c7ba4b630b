//! The referee: answers that another framework recorded with its verdicts, scored by our rules beside them.

mod agreement;
mod read;
mod row;
mod tsv;

pub use agreement::{Agreement, Compared, HEADS, agreements, cells, compare, table};
pub use read::{Log, read, recognise};
pub use row::Framework;
