//! What was read, in a line for people: a picture or a column that is passed over is to be noticed at once.

use serde::{Deserialize, Serialize};

use crate::data::Row;
use crate::data::read::RowFile;
use crate::error::Result;

/// What the rows that are used hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Rows.
    pub rows: u64,
    /// Their pictures.
    pub pictures: u64,
    /// Their messages.
    pub turns: u64,
    /// Tokens that are trained; 0 where rows are not.
    pub targets: u64,
    /// Columns of their files that are not read, by name.
    pub unused: Vec<String>,
}

impl Seen {
    /// No row of `files` yet.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a RowFile>) -> Result<Seen> {
        let mut unused = Vec::new();
        for file in files {
            let columns = file.columns()?.into_iter().filter(|column| column.read_as.is_none());
            unused.extend(columns.map(|column| column.name));
        }
        unused.sort_unstable();
        unused.dedup();
        Ok(Seen { unused, ..Seen::default() })
    }

    /// One more row, of so many messages and pictures.
    pub fn add(&mut self, row: &Row) {
        self.count(row.messages.len(), row.images.len(), 0);
    }

    /// The same with so many tokens that are trained.
    pub fn count(&mut self, turns: usize, pictures: usize, targets: usize) {
        self.rows += 1;
        self.turns += turns as u64;
        self.pictures += pictures as u64;
        self.targets += targets as u64;
    }

    /// For people.
    pub fn line(&self) -> String {
        let Seen { rows, pictures, turns, targets, unused } = self;
        let targets = if *targets > 0 { format!(", {targets} target tokens") } else { String::new() };
        let unused =
            if unused.is_empty() { String::new() } else { format!("; columns not used: {}", unused.join(", ")) };
        format!("read {rows} rows: {pictures} pictures, {turns} turns{targets}{unused}")
    }
}
