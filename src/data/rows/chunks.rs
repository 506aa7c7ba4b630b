//! Collects rows that are processed together.

#![forbid(unsafe_code)]

use crate::rows::read::RowPosition;
use crate::rows::{Row, RowResult};
use omr_base::error::Result;

/// Number of bytes of the texts and the embedded images from which rows are passed on. Together with the number of rows
/// it limits the memory.
const BYTES: usize = 32 << 20;

/// Rows in order, with their positions.
pub type Chunk = Vec<(RowPosition, RowResult<Row>)>;

/// Passes rows to a function, several at a time.
pub struct Chunks<F> {
    rows: Chunk,
    bytes: usize,
    most: usize,
    take: F,
}

impl<F: FnMut(Chunk) -> Result<()>> Chunks<F> {
    /// Passes at most `most` rows at a time to `take`.
    pub fn new(most: usize, take: F) -> Chunks<F> {
        Chunks { rows: Vec::new(), bytes: 0, most, take }
    }

    /// Adds a row, and passes the rows on if their number or their bytes have reached the limit.
    pub fn push(&mut self, at: RowPosition, row: RowResult<Row>) -> Result<()> {
        self.bytes += row.as_ref().map_or(0, |row| row.text_len() + row.image_bytes());
        self.rows.push((at, row));
        if self.rows.len() < self.most && self.bytes < BYTES { Ok(()) } else { self.finish() }
    }

    /// Passes the remaining rows on.
    pub fn finish(&mut self) -> Result<()> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() { Ok(()) } else { (self.take)(rows) }
    }
}
