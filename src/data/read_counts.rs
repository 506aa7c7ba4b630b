//! Counts what was read. The counts are printed as one line, so that the user notices ignored images and columns at
//! once.

use serde::{Deserialize, Serialize};

use crate::data::Row;
use crate::data::read::RowFile;
use crate::error::Result;

/// Counts of what the used rows contain.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReadCounts {
    /// Number of rows.
    pub rows: u64,
    /// Number of images.
    pub pictures: u64,
    /// Number of messages.
    pub turns: u64,
    /// Number of trained tokens; 0 if the rows are not used for training.
    pub targets: u64,
    /// Names of the files' columns that are not read.
    pub unused: Vec<String>,
}

impl ReadCounts {
    /// Creates counts of 0 and lists the unused columns of `files`.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a RowFile>) -> Result<ReadCounts> {
        let mut unused = Vec::new();
        for file in files {
            let columns = file.columns()?.into_iter().filter(|column| column.read_as.is_none());
            unused.extend(columns.map(|column| column.name));
        }
        unused.sort_unstable();
        unused.dedup();
        Ok(ReadCounts { unused, ..ReadCounts::default() })
    }

    /// Counts one more row with its messages and images.
    pub fn add(&mut self, row: &Row) {
        self.count(row.messages.len(), row.images.len(), 0);
    }

    /// Counts one more row with these numbers of messages, images and trained tokens.
    pub fn count(&mut self, turns: usize, pictures: usize, targets: usize) {
        self.rows += 1;
        self.turns += turns as u64;
        self.pictures += pictures as u64;
        self.targets += targets as u64;
    }

    /// Formats the counts as a line for the user.
    pub fn line(&self) -> String {
        let ReadCounts { rows, pictures, turns, targets, unused } = self;
        let targets = if *targets > 0 { format!(", {targets} target tokens") } else { String::new() };
        let unused =
            if unused.is_empty() { String::new() } else { format!("; columns not used: {}", unused.join(", ")) };
        format!("read {rows} rows: {pictures} pictures, {turns} turns{targets}{unused}")
    }
}
