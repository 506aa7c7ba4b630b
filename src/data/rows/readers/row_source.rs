//! A file of rows: what every file format can do.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use serde_json::{Map, Value};

use super::json::Layout;
use crate::rows::bad_row::{BadRow, Reason, RowResult};
use crate::rows::files::content::Content;
use crate::rows::forms::fields::{Fields, json_columns, shows_images};
use crate::rows::forms::names::Names;
use omr_base::error::Result;
use omr_base::observe::Observer;

/// Number of rows in which images are searched in columns that are not read.
pub const SAMPLED: usize = 16;

/// Position of a row in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowPosition {
    /// Number of the row, from 0.
    pub index: u32,
    /// Byte at which the row begins, or a number that the file format chooses.
    pub offset: u64,
}

/// Function that receives the rows of a file.
pub type RowSink<'a> = &'a mut dyn FnMut(RowPosition, RowResult<Fields>) -> Result<()>;

/// A file of rows, read in order or row by row.
pub trait RowSource: Send + Sync {
    /// Passes the rows with the numbers in `range`, from 0, to `take`, in order. Returns an error if the file cannot be
    /// read; a faulty row is passed as an error.
    fn for_range(&self, range: Range<usize>, take: RowSink) -> Result<()>;

    /// Returns the row at a position that [`RowSource::for_range`] passed.
    fn row(&self, at: RowPosition) -> Result<RowResult<Fields>>;

    /// Returns the names and types of all columns. If the file does not list them, those of its first `rows` rows.
    fn columns(&self, rows: usize) -> Result<Vec<(String, String)>>;

    /// Returns the number of rows, including bad ones.
    fn count(&self) -> Result<usize> {
        let mut count = 0;
        self.for_range(0..usize::MAX, &mut |_, _| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Returns the columns that are not read although their first values are images.
    fn unread_images(&self) -> Result<Vec<String>> {
        let mut found = BTreeSet::new();
        self.for_range(0..SAMPLED, &mut |_, row| {
            let (fields, _) = row.unwrap_or_default();
            let unread = fields.into_iter().filter(|(name, value)| !Names::is_canonical(name) && shows_images(value));
            found.extend(unread.map(|(name, _)| name));
            Ok(())
        })?;
        Ok(found.into_iter().collect())
    }

    /// Returns the fields of the first rows, as far as they have a form in JSON, also those that are not read.
    fn sampled(&self) -> Result<Vec<Map<String, Value>>> {
        let mut found = Vec::new();
        self.for_range(0..SAMPLED, &mut |_, row| {
            found.push(row.unwrap_or_default().0);
            Ok(())
        })?;
        Ok(found)
    }

    /// Sets the path of a copy in `folder` if single rows are expensive to read. `hash` is the hash of the file's
    /// content.
    fn set_copy(&self, _folder: &Path, _hash: &str) {}

    /// Makes the copy that [`RowSource::set_copy`] has named, if it does not exist.
    fn copy(&self, _observer: &dyn Observer) -> Result<()> {
        Ok(())
    }
}

/// A JSON file of rows.
pub struct JsonRows {
    /// The file.
    pub file: Content,
    /// Layout of the objects.
    pub layout: Layout,
    /// Names of the columns.
    pub names: Names,
}

impl JsonRows {
    fn fields(&self, fields: Result<Map<String, Value>>) -> RowResult<Fields> {
        let fields = fields.map_err(BadRow::of(Reason::BrokenRow))?;
        Ok((self.names.rename(fields), None))
    }
}

impl RowSource for JsonRows {
    fn for_range(&self, range: Range<usize>, take: RowSink) -> Result<()> {
        self.layout.read(&self.file, range.end, |line, fields| {
            if line.index < range.start {
                return Ok(());
            }
            take(RowPosition { index: line.index as u32, offset: line.offset }, self.fields(fields))
        })
    }

    fn row(&self, at: RowPosition) -> Result<RowResult<Fields>> {
        Ok(self.fields(self.layout.object(&self.file, at.offset, &format!("row {}", at.index + 1))?))
    }

    fn columns(&self, rows: usize) -> Result<Vec<(String, String)>> {
        json_columns(&self.file, self.layout, rows)
    }
}
