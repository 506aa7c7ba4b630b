//! Reads rows from Arrow IPC files and streams, such as the files of `Dataset.save_to_disk` and of the cache of the
//! `datasets` library. Both formats are a sequence of messages: a schema, dictionaries and record batches.

use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::{MessageHeader, root_as_message};
use arrow_schema::Field;

use super::cells::{self, type_name};
use super::row_source::{RowPosition, RowSink, RowSource, SAMPLED};
use crate::rows::bad_row::{BadRow, Reason, RowResult};
use crate::rows::forms::fields::Fields;
use crate::rows::forms::names::Names;
use omr_base::bounds::caught;
use omr_base::error::{Error, Result};
use omr_base::files;

/// First bytes of the file format. The stream format has none.
const MAGIC: &[u8] = b"ARROW1\0\0";
/// First bytes of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Maximum size of a message in bytes: a guard against damaged files.
const LARGEST: u64 = 4 << 30;

/// An Arrow file.
pub struct ArrowRows {
    path: PathBuf,
    names: Names,
    columns: Vec<(String, String)>,
    /// The schema and the dictionaries, which precede the batches.
    head: Vec<u8>,
    batches: Vec<Batch>,
    /// The batch that was decoded last, with its number.
    last: Mutex<Option<(usize, RecordBatch)>>,
}

/// A record batch in the file.
struct Batch {
    /// Number of the first row.
    first: usize,
    /// Number of rows.
    rows: usize,
    /// Bytes of the message.
    bytes: Range<u64>,
}

impl ArrowRows {
    /// Opens a file and finds its record batches. Returns an error if no rows can be read from its columns.
    pub fn open(path: &Path, names: &Names) -> Result<ArrowRows> {
        let mut file = files::open(path).map_err(Error::io(path))?;
        let mut found = ArrowRows {
            path: path.to_owned(),
            names: names.clone(),
            columns: Vec::new(),
            head: Vec::new(),
            batches: Vec::new(),
            last: Mutex::default(),
        };
        found.scan(&mut file)?;
        let columns: Vec<&str> = found.columns.iter().map(|(name, _)| name.as_str()).collect();
        found.names = names.with_columns(path, &columns)?;
        Ok(found)
    }

    /// Reads the heads of all messages.
    fn scan(&mut self, file: &mut File) -> Result<()> {
        let io = |e| Error::io(&self.path)(e);
        let len = file.metadata().map_err(io)?.len();
        let mut start = [0; MAGIC.len()];
        let is_file = file.read_exact(&mut start).is_ok() && start == MAGIC;
        let (mut at, mut first) = (if is_file { MAGIC.len() as u64 } else { 0 }, 0);
        loop {
            if at + 8 > len {
                return Err(self.broken("the mark of its end is missing, so rows may be missing, too"));
            }
            file.seek(SeekFrom::Start(at)).map_err(io)?;
            let mut word = [0; 4];
            file.read_exact(&mut word).map_err(io)?;
            if word != CONTINUATION {
                return Err(self.broken("this is no Arrow message, or one of a version before 0.15"));
            }
            file.read_exact(&mut word).map_err(io)?;
            let size = u64::from(u32::from_le_bytes(word));
            if size == 0 {
                // A stream ends here; a file continues with a footer.
                return match is_file || at + 8 == len {
                    true => Ok(()),
                    false => Err(self.broken("bytes follow its end: were several files joined?")),
                };
            }
            if size > len - at - 8 {
                return Err(self.broken("a message ends after the file"));
            }
            let mut head = vec![0; size as usize];
            file.read_exact(&mut head).map_err(io)?;
            let message = root_as_message(&head).map_err(|e| self.broken(&e.to_string()))?;
            let body = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
            let next = (at + 8 + size).saturating_add(body);
            if next > len {
                return Err(self.broken("a message ends after the file"));
            }
            if body > LARGEST {
                let found =
                    format!("a message of {body} bytes, expected at most {LARGEST}: write it in smaller batches");
                return Err(Error::format(&self.path, found));
            }
            match message.header_type() {
                MessageHeader::RecordBatch => {
                    let rows = message.header_as_record_batch().map_or(0, |batch| batch.length().max(0)) as usize;
                    self.batches.push(Batch { first, rows, bytes: at..next });
                    first = first.saturating_add(rows);
                }
                kind => {
                    if kind == MessageHeader::Schema {
                        let schema = message.header_as_schema().map(try_fb_to_schema).transpose();
                        let schema = schema.map_err(|e| self.broken(&e.to_string()))?;
                        let column = |field: &Arc<Field>| (field.name().clone(), type_name(field.data_type()));
                        self.columns = schema.iter().flat_map(|schema| schema.fields().iter().map(column)).collect();
                    }
                    self.head.extend(bytes_of(file, at..next).map_err(Error::io(&self.path))?);
                }
            }
            at = next;
        }
    }

    fn broken(&self, what: &str) -> Error {
        Error::format(&self.path, format!("an incomplete or damaged Arrow file: {what}"))
    }

    /// Returns batch `number`, decoded.
    fn batch(&self, number: usize) -> Result<RecordBatch> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, batch)) = last.as_ref().filter(|(known, _)| *known == number) {
            return Ok(batch.clone());
        }
        let mut file = files::open(&self.path).map_err(Error::io(&self.path))?;
        let bytes = bytes_of(&mut file, self.batches[number].bytes.clone()).map_err(Error::io(&self.path))?;
        let mut decoder = StreamDecoder::new();
        let mut read = |bytes: Vec<u8>| decoder.decode(&mut Buffer::from(bytes)).map_err(|e| e.to_string());
        // The decoder panics on some damaged files.
        let batch = caught(|| read(self.head.clone()).and_then(|_| read(bytes))).and_then(|batch| batch);
        let batch = batch.map_err(|e| self.broken(&e))?.ok_or_else(|| self.broken("a batch without rows"))?;
        if batch.num_rows() != self.batches[number].rows {
            return Err(self.broken("fewer rows than the file declares"));
        }
        *last = Some((number, batch.clone()));
        Ok(batch)
    }

    fn fields(&self, batch: &RecordBatch, i: usize, row: usize) -> RowResult<Fields> {
        let wrong = |what| Error::format(&self.path, format!("row {}: {what}", row + 1));
        cells::fields(batch, i, &self.names).map_err(wrong).map_err(BadRow::of(Reason::WrongColumns))
    }
}

fn bytes_of(file: &mut File, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl RowSource for ArrowRows {
    fn for_range(&self, range: Range<usize>, take: RowSink) -> Result<()> {
        for (number, Batch { first, rows, .. }) in self.batches.iter().enumerate() {
            let part = range.start.max(*first)..range.end.min(first.saturating_add(*rows));
            if part.is_empty() {
                continue;
            }
            let batch = self.batch(number)?;
            for row in part {
                take(RowPosition { index: row as u32, offset: number as u64 }, self.fields(&batch, row - first, row))?;
            }
        }
        Ok(())
    }

    fn row(&self, at: RowPosition) -> Result<RowResult<Fields>> {
        let (number, row) = (at.offset as usize, at.index as usize);
        let is_in = |batch: &&Batch| (batch.first..batch.first.saturating_add(batch.rows)).contains(&row);
        let held = self.batches.get(number).filter(is_in);
        let first = held.ok_or_else(|| self.broken(&format!("no row {}", row + 1)))?.first;
        Ok(self.fields(&self.batch(number)?, row - first, row))
    }

    fn columns(&self, _: usize) -> Result<Vec<(String, String)>> {
        Ok(self.columns.clone())
    }

    fn count(&self) -> Result<usize> {
        Ok(self.batches.last().map_or(0, |batch| batch.first.saturating_add(batch.rows)))
    }

    fn unread_images(&self) -> Result<Vec<String>> {
        if self.batches.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.batch(0)?;
        let mut found = cells::image_columns(&batch.slice(0, batch.num_rows().min(SAMPLED)));
        found.retain(|name| !self.names.reads(name));
        Ok(found)
    }
}
