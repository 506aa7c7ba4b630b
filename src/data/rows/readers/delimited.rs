//! Reads rows from CSV and TSV files. The first record names the columns; an empty cell is a missing value.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use csv::{ByteRecord, Position, Reader, ReaderBuilder};
use serde_json::{Map, Value};

use super::row_source::{RowPosition, RowSink, RowSource};
use crate::rows::bad_row::{BadRow, Reason, RowResult};
use crate::rows::files::content::{Content, Shared};
use crate::rows::forms::fields::Fields;
use crate::rows::forms::names::Names;
use omr_base::error::{Error, Result};

/// A CSV or TSV file.
pub struct Delimited {
    content: Content,
    delimiter: u8,
    names: Names,
    columns: Vec<String>,
}

impl Delimited {
    /// Opens a file and reads the names of its columns. Returns an error if no rows can be read from these columns.
    pub fn open(path: &Path, delimiter: u8, names: &Names) -> Result<Delimited> {
        let mut file =
            Delimited { content: Content::open(path)?, delimiter, names: names.clone(), columns: Vec::new() };
        let mut header = ByteRecord::new();
        file.reader()?.read_byte_record(&mut header).map_err(|e| file.broken(&e))?;
        let text = |cell: &[u8]| String::from_utf8_lossy(cell).trim().to_owned();
        file.columns = header.iter().map(text).collect();
        names.with_columns(path, &file.columns.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(file)
    }

    fn reader(&self) -> Result<Reader<Shared>> {
        let file = self.content.reader()?;
        Ok(ReaderBuilder::new().delimiter(self.delimiter).has_headers(false).flexible(true).from_reader(file))
    }

    fn broken(&self, error: &csv::Error) -> Error {
        Error::format(&self.content.path, error.to_string())
    }

    /// Returns the fields of a record. The row is bad if it has another number of cells than the header.
    fn fields(&self, record: &ByteRecord, index: usize) -> RowResult<Fields> {
        let bad = |found: String, expected: String| {
            let place = format!("{} row {}", self.content.path.display(), index + 1);
            BadRow::of(Reason::BrokenRow)(Error::input(place, found, expected))
        };
        if record.len() != self.columns.len() {
            let expected = format!("{}, the number of columns of the header", self.columns.len());
            return Err(bad(format!("{} cells", record.len()), expected));
        }
        let mut fields = Map::new();
        for (column, cell) in self.columns.iter().zip(record) {
            // A template may print an empty cell; for the other columns it is a missing value.
            if cell.is_empty() && !self.names.is_of_template(column) {
                continue;
            }
            let text = std::str::from_utf8(cell)
                .map_err(|_| bad(format!("invalid UTF-8 in `{column}`"), "UTF-8".to_owned()))?;
            fields.insert(column.clone(), Value::String(text.to_owned()));
        }
        Ok((self.names.rename(fields), None))
    }

    /// Errors if the file ends within quotes: the last record, at byte `last`, may then contain other rows.
    fn check_end(&self, last: u64) -> Result<()> {
        let mut bytes = Vec::new();
        let mut file = self.content.reader()?;
        let read = file.seek(SeekFrom::Start(last)).and_then(|_| file.read_to_end(&mut bytes));
        read.map_err(Error::io(&self.content.path))?;
        let (mut quoted, mut at_start) = (false, true);
        for byte in bytes {
            // A doubled quote closes the cell and opens it again.
            quoted ^= byte == b'"' && (quoted || at_start);
            at_start = !quoted && (byte == b'"' || byte == self.delimiter || byte == b'\n' || byte == b'\r');
        }
        if !quoted {
            return Ok(());
        }
        let what = format!("the row at byte {last} opens a quote that is never closed");
        Err(Error::format(&self.content.path, what))
    }
}

impl RowSource for Delimited {
    fn for_range(&self, range: Range<usize>, take: RowSink) -> Result<()> {
        let (mut reader, mut record) = (self.reader()?, ByteRecord::new());
        reader.read_byte_record(&mut record).map_err(|e| self.broken(&e))?;
        for index in 0..range.end {
            let last = record.position().map_or(0, Position::byte);
            if !reader.read_byte_record(&mut record).map_err(|e| self.broken(&e))? {
                return self.check_end(last);
            }
            if index >= range.start {
                let offset = record.position().map_or(0, Position::byte);
                take(RowPosition { index: index as u32, offset }, self.fields(&record, index))?;
            }
        }
        Ok(())
    }

    fn row(&self, at: RowPosition) -> Result<RowResult<Fields>> {
        let (mut reader, mut record, mut position) = (self.reader()?, ByteRecord::new(), Position::new());
        position.set_byte(at.offset);
        reader.seek(position).map_err(|e| self.broken(&e))?;
        reader.read_byte_record(&mut record).map_err(|e| self.broken(&e))?;
        Ok(self.fields(&record, at.index as usize))
    }

    fn columns(&self, _: usize) -> Result<Vec<(String, String)>> {
        Ok(self.columns.iter().map(|column| (column.clone(), "text".to_owned())).collect())
    }
}
