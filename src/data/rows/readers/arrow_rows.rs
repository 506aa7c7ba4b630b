//! Reads rows from Arrow IPC files and streams, such as the files of `Dataset.save_to_disk`, of the cache of the
//! `datasets` library and of `polars.write_ipc`. Both formats contain a schema, dictionaries and record batches. A stream
//! is a sequence of these messages; the footer of a file says where they are.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::{Block, MessageHeader, MetadataVersion, root_as_footer, root_as_message};
use arrow_schema::{Field, Schema, SchemaRef};
use serde_json::{Map, Value};

use super::cells::{self, type_name};
use super::row_source::{RowPosition, RowSink, RowSource, SAMPLED};
use crate::rows::bad_row::{BadRow, Reason, RowResult};
use crate::rows::files::declared;
use crate::rows::forms::fields::Fields;
use crate::rows::forms::names::Names;
use omr_base::bounds::caught;
use omr_base::error::{Error, Result};
use omr_base::files;

/// First and last bytes of the file format. The stream format has none.
const MAGIC: &[u8; 6] = b"ARROW1";
/// First bytes of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// Maximum size of a message in bytes: a guard against damaged files.
const LARGEST: u64 = 4 << 30;
/// Maximum number of bytes between the last message of a file and its footer: the mark of an end, and padding.
const GAP: u64 = 128;

/// An Arrow file.
pub struct ArrowRows {
    path: PathBuf,
    names: Names,
    schema: SchemaRef,
    version: MetadataVersion,
    /// Dictionaries, in the order in which they are decoded.
    dictionaries: Vec<Block>,
    batches: Vec<Batch>,
    last: Mutex<Option<Last>>,
}

/// A record batch in the file.
struct Batch {
    /// Number of the first row.
    first: usize,
    /// Number of rows.
    rows: usize,
    /// Place of the message.
    block: Block,
    /// Number of dictionaries that precede the batch. A later one may replace an earlier one.
    dictionaries: usize,
}

/// The batch that was decoded last.
struct Last {
    number: usize,
    batch: RecordBatch,
    /// Decoder that has read the dictionaries of this batch.
    decoder: FileDecoder,
}

impl ArrowRows {
    /// Opens a file and finds its record batches. Returns an error if no rows can be read from its columns.
    pub fn open(path: &Path, names: &Names) -> Result<ArrowRows> {
        let mut file = files::open(path).map_err(Error::io(path))?;
        let mut found = ArrowRows {
            path: path.to_owned(),
            names: names.clone(),
            schema: Arc::new(Schema::empty()),
            version: MetadataVersion::V5,
            dictionaries: Vec::new(),
            batches: Vec::new(),
            last: Mutex::default(),
        };
        let len = file.metadata().map_err(Error::io(path))?.len();
        let start = bytes_of(&mut file, 0..len.min(MAGIC.len() as u64)).map_err(Error::io(path))?;
        if start == MAGIC { found.scan_file(&mut file, len) } else { found.scan_stream(&mut file, len) }?;
        let columns: Vec<&str> = found.schema.fields().iter().map(|field| field.name().as_str()).collect();
        found.names = names.with_columns(path, &columns)?;
        Ok(found)
    }

    /// Reads the heads of all messages of a stream.
    fn scan_stream(&mut self, file: &mut File, len: u64) -> Result<()> {
        let mut at = 0;
        while let Some((block, head)) = self.message(file, at, len)? {
            at = end(&block);
            let message = root_as_message(&head).map_err(|e| self.broken(&e.to_string()))?;
            match (message.header_type(), message.header_as_schema()) {
                (_, Some(schema)) => {
                    self.schema = Arc::new(try_fb_to_schema(schema).map_err(|e| self.broken(&e.to_string()))?);
                    self.version = message.version();
                }
                (MessageHeader::DictionaryBatch, _) => self.dictionaries.push(block),
                _ => self.add_batch(block, &message)?,
            }
        }
        if at + 8 == len { Ok(()) } else { Err(self.broken("bytes follow its end: were several files joined?")) }
    }

    /// Reads the footer of a file, and the heads of the messages that it lists. Every batch may use all dictionaries.
    fn scan_file(&mut self, file: &mut File, len: u64) -> Result<()> {
        let io = |e| Error::io(&self.path)(e);
        let trailer = bytes_of(file, len.saturating_sub(10)..len).map_err(io)?;
        let size = trailer.strip_suffix(MAGIC).and_then(|size| Some(u32::from_le_bytes(size.try_into().ok()?)));
        let start = size.and_then(|size| (len - 10).checked_sub(size.into()));
        let start = start.ok_or_else(|| self.broken("its footer is missing, so rows may be missing, too"))?;
        let bytes = bytes_of(file, start..len - 10).map_err(io)?;
        let footer = root_as_footer(&bytes).map_err(|e| self.broken(&e.to_string()))?;
        let schema = footer.schema().ok_or_else(|| self.broken("no schema in its footer"))?;
        self.schema = Arc::new(try_fb_to_schema(schema).map_err(|e| self.broken(&e.to_string()))?);
        self.version = footer.version();
        let (mut known, mut last) = (BTreeSet::new(), 0);
        let dictionaries = footer.dictionaries().into_iter().flatten();
        for block in dictionaries.chain(footer.recordBatches().into_iter().flatten()) {
            let at = u64::try_from(block.offset()).unwrap_or(u64::MAX);
            let (block, head) =
                self.message(file, at, start)?.ok_or_else(|| self.broken("a wrong place of a message"))?;
            last = last.max(end(&block));
            let message = root_as_message(&head).map_err(|e| self.broken(&e.to_string()))?;
            match message.header_as_dictionary_batch() {
                Some(dictionary) if !dictionary.isDelta() && !known.insert(dictionary.id()) => {
                    let what = "found a dictionary that replaces another, expected an Arrow stream, which can have one";
                    return Err(Error::format(&self.path, what));
                }
                Some(_) => self.dictionaries.push(block),
                None => self.add_batch(block, &message)?,
            }
        }
        self.batches.iter_mut().for_each(|batch| batch.dictionaries = self.dictionaries.len());
        if last > 0 && start > last + GAP {
            return Err(self.broken("its footer belongs to other bytes: were several files joined?"));
        }
        Ok(())
    }

    /// Reads the head of the message at byte `at` of a file that ends at byte `len`. Returns its place and its head, or
    /// `None` at the mark of the end.
    fn message(&self, file: &mut File, at: u64, len: u64) -> Result<Option<(Block, Vec<u8>)>> {
        let io = |e| Error::io(&self.path)(e);
        if at.saturating_add(8) > len {
            return Err(self.broken("the mark of its end is missing, so rows may be missing, too"));
        }
        let prefix = bytes_of(file, at..at + 8).map_err(io)?;
        let (mark, size) = prefix.split_at(4);
        if mark != CONTINUATION {
            return Err(self.broken("this is no Arrow message, or one of a version before 0.15"));
        }
        let size = u64::from(size.iter().rev().fold(0, |size, byte| size << 8 | u32::from(*byte)));
        if size == 0 {
            return Ok(None);
        }
        if size > len - at - 8 {
            return Err(self.broken("a message ends after the file"));
        }
        let head = bytes_of(file, at + 8..at + 8 + size).map_err(io)?;
        let message = root_as_message(&head).map_err(|e| self.broken(&e.to_string()))?;
        let body = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
        if body > len - at - 8 - size {
            return Err(self.broken("a message ends after the file"));
        }
        if body > LARGEST || size > LARGEST / 8 {
            let found = format!("a message of {body} bytes, expected at most {LARGEST}: write it in smaller batches");
            return Err(Error::format(&self.path, found));
        }
        let block = Block::new(at as i64, 8 + size as i32, body as i64);
        Ok(Some((block, head)))
    }

    fn add_batch(&mut self, block: Block, message: &arrow_ipc::Message) -> Result<()> {
        let batch = message.header_as_record_batch().ok_or_else(|| self.broken("a message of an unknown kind"))?;
        let first = self.count()?;
        let (rows, dictionaries) = (batch.length().max(0) as usize, self.dictionaries.len());
        self.batches.push(Batch { first, rows, block, dictionaries });
        Ok(())
    }

    fn broken(&self, what: &str) -> Error {
        Error::format(&self.path, format!("an incomplete or damaged Arrow file: {what}"))
    }

    /// Returns the bytes of a message.
    fn bytes(&self, file: &mut File, block: &Block) -> Result<Buffer> {
        let bytes = bytes_of(file, block.offset() as u64..end(block)).map_err(Error::io(&self.path))?;
        declared::check_message(&self.path, &bytes, block.metaDataLength() as usize)?;
        Ok(bytes.into())
    }

    /// Returns batch `number`, decoded with the dictionaries that precede it.
    fn batch(&self, number: usize) -> Result<RecordBatch> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| last.number == number) {
            return Ok(last.batch.clone());
        }
        let needed = &self.batches[number];
        let (mut from, mut decoder) = (0, FileDecoder::new(self.schema.clone(), self.version));
        if let Some(last) = last.take().filter(|last| last.number < number) {
            (from, decoder) = (self.batches[last.number].dictionaries, last.decoder);
        }
        let mut file = files::open(&self.path).map_err(Error::io(&self.path))?;
        // The decoder panics on some damaged files.
        for block in &self.dictionaries[from..needed.dictionaries] {
            let bytes = self.bytes(&mut file, block)?;
            let read = caught(|| decoder.read_dictionary(block, &bytes).map_err(|e| e.to_string()));
            read.and_then(|read| read).map_err(|e| self.broken(&e))?;
        }
        let bytes = self.bytes(&mut file, &needed.block)?;
        let batch = caught(|| decoder.read_record_batch(&needed.block, &bytes).map_err(|e| e.to_string()));
        let batch = batch.and_then(|batch| batch).map_err(|e| self.broken(&e))?;
        let batch = batch.ok_or_else(|| self.broken("a batch without rows"))?;
        if batch.num_rows() != needed.rows {
            return Err(self.broken("fewer rows than the file declares"));
        }
        *last = Some(Last { number, batch: batch.clone(), decoder });
        Ok(batch)
    }

    fn fields(&self, batch: &RecordBatch, i: usize, row: usize) -> RowResult<Fields> {
        let wrong = |what| Error::format(&self.path, format!("row {}: {what}", row + 1));
        cells::fields(batch, i, &self.names).map_err(wrong).map_err(BadRow::of(Reason::WrongColumns))
    }
}

/// Returns the byte after a message.
fn end(block: &Block) -> u64 {
    block.offset() as u64 + block.metaDataLength() as u64 + block.bodyLength() as u64
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
        let column = |field: &Arc<Field>| (field.name().clone(), type_name(field.data_type()));
        Ok(self.schema.fields().iter().map(column).collect())
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

    fn sampled(&self) -> Result<Vec<Map<String, Value>>> {
        if self.batches.is_empty() {
            return Ok(Vec::new());
        }
        let batch = self.batch(0)?;
        Ok(cells::rows(&batch.slice(0, batch.num_rows().min(SAMPLED))))
    }
}
