//! Data files in: parquet and JSONL, to rows. Every fault names the file and the row.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::{DataType, DatasetConfig};
use crate::data::Row;
use crate::data::bad::{Bad, Read, Reason};
use crate::data::columns::{Fields, Table};
use crate::data::folder::Folder;
use crate::data::form::{self, RawImage, RowContext};
use crate::error::{Error, Result};
use crate::philox::{self, Purpose};

/// The longest line read from a JSONL file, in bytes: a guard against files that are not JSONL at all.
const LINE_LIMIT: usize = 256 << 20;

/// The data set's name: the file's stem.
pub fn name(entry: &DatasetConfig) -> String {
    entry.path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folder image urls of a data set are resolved in: its own, or the file's.
pub fn folder(entry: &DatasetConfig) -> Result<Folder> {
    match (&entry.data_folder, entry.path.parent()) {
        (Some(folder), _) => Folder::open(folder),
        (None, Some(parent)) if !parent.as_os_str().is_empty() => Folder::open(parent),
        _ => Folder::open("."),
    }
}

/// An entry that names a file and nothing else; a file ending in .jsonl or .json is read as JSONL.
pub fn entry(path: impl Into<PathBuf>) -> DatasetConfig {
    DatasetConfig { path: path.into(), ..DatasetConfig::default() }
}

fn kind(entry: &DatasetConfig) -> DataType {
    match entry.path.extension().and_then(|e| e.to_str()) {
        Some("jsonl" | "json") => DataType::Jsonl,
        _ => entry.data_type,
    }
}

/// Reads a data set's rows, the first `limit` of them. `weight` is not applied (see [`load`]).
pub fn read(entry: &DatasetConfig) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for_each(entry, |row| {
        rows.push(row?);
        Ok(())
    })?;
    Ok(rows)
}

/// Gives each row of a data set to `take`, in order, and a row that cannot be read as why (what `take` returns then
/// decides whether to go on). Faults of the file as a whole end the reading.
pub fn for_each(entry: &DatasetConfig, mut take: impl FnMut(Read<Row>) -> Result<()>) -> Result<()> {
    RowFile::open(entry)?.for_each(|_, row| take(row))
}

/// Where a row stands in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct At {
    /// Its number, from 0.
    pub index: u32,
    /// The byte its line begins at; in a parquet file its number.
    pub offset: u64,
}

/// A data set's file: its rows in order, or one by one.
pub struct RowFile {
    /// The file.
    pub path: PathBuf,
    /// The data set's name, the file's stem.
    pub name: String,
    folder: Folder,
    limit: usize,
    /// None for JSON lines.
    table: Option<Table>,
}

impl RowFile {
    /// Opens the file and its folder of pictures.
    pub fn open(entry: &DatasetConfig) -> Result<RowFile> {
        let (path, name) = (entry.path.clone(), name(entry));
        let limit = entry.limit.unwrap_or(usize::MAX);
        let table = match kind(entry) {
            DataType::Parquet => Some(Table::open(&path)?),
            DataType::Jsonl => None,
        };
        Ok(RowFile { path, name, folder: folder(entry)?, limit, table })
    }

    /// Gives each row to `take`, in order, with its place; see [`for_each`].
    pub fn for_each(&self, mut take: impl FnMut(At, Read<Row>) -> Result<()>) -> Result<()> {
        match &self.table {
            Some(table) => table.read(self.limit, |index, fields| {
                take(At { index: index as u32, offset: index as u64 }, self.of_columns(index, fields))
            }),
            None => jsonl(&self.path, self.limit, |line, fields| {
                let at = At { index: line.index as u32, offset: line.offset };
                take(at, self.of_json(line.index, fields))
            }),
        }
    }

    /// The row at a place that [`RowFile::for_each`] gave. Errors when the file cannot be read there.
    pub fn row(&self, at: At) -> Result<Read<Row>> {
        let index = at.index as usize;
        let Some(table) = &self.table else {
            let mut reader = BufReader::with_capacity(1 << 14, File::open(&self.path).map_err(Error::io(&self.path))?);
            reader.seek(SeekFrom::Start(at.offset)).map_err(Error::io(&self.path))?;
            let mut line = Vec::new();
            reader.take(LINE_LIMIT as u64).read_until(b'\n', &mut line).map_err(Error::io(&self.path))?;
            let bytes = if at.offset == 0 { without_mark(&line) } else { &line };
            return Ok(self.of_json(index, json_line(&self.path, &format!("row {}", index + 1), bytes)));
        };
        Ok(self.of_columns(index, table.row(index)?))
    }

    fn of_columns(&self, index: usize, fields: Result<Fields>) -> Read<Row> {
        let (fields, images) = fields.map_err(Bad::of(Reason::WrongColumns))?;
        self.made(index, fields, images)
    }

    fn of_json(&self, index: usize, fields: Result<Map<String, Value>>) -> Read<Row> {
        self.made(index, fields.map_err(Bad::of(Reason::BrokenRow))?, None)
    }

    fn made(&self, index: usize, fields: Map<String, Value>, images: Option<Vec<RawImage>>) -> Read<Row> {
        let place = self.place(index);
        row_from(fields, images, &RowContext { folder: &self.folder, dataset: &self.name, index, place })
    }

    /// File and row, for messages.
    pub fn place(&self, index: usize) -> String {
        format!("{} row {}", self.path.display(), index + 1)
    }
}

/// Reads several data sets into rows and the order-free index of one epoch: row i stands in it as often as its set's
/// weight says (the fraction drawn by `seed`).
pub fn load(entries: &[DatasetConfig], seed: u64) -> Result<(Vec<Row>, Vec<u32>)> {
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for entry in entries {
        let more = read(entry)?;
        if more.is_empty() {
            return Err(Error::input(entry.path.display().to_string(), "no rows", "at least one"));
        }
        counts.push(more.len() as u32);
        rows.extend(more);
    }
    let order = epoch(entries, &counts, seed)?;
    Ok((rows, order))
}

/// The order-free index of one epoch of data sets with `counts` rows: row i stands in it as often as its set's weight
/// says (the fraction drawn by `seed`). Errors on a weight that is none.
pub fn epoch(entries: &[DatasetConfig], counts: &[u32], seed: u64) -> Result<Vec<u32>> {
    let (mut index, mut first) = (Vec::new(), 0);
    for (k, (entry, &count)) in entries.iter().zip(counts).enumerate() {
        let weight = entry.weight;
        if !(0.0..=1e6).contains(&weight) {
            return Err(Error::input(format!("datasets[{k}].weight"), weight.to_string(), "a number from 0 to 1e6"));
        }
        let all: Vec<u32> = (first..first + count).collect();
        first += count;
        for _ in 0..weight as usize {
            index.extend_from_slice(&all);
        }
        let more = (weight.fract() * all.len() as f64).round() as usize;
        let mut order = all;
        // Counters of epochs stay below 2^63.
        philox::shuffle(seed, Purpose::Shuffle, 1 << 63 | k as u64, &mut order);
        order.truncate(more);
        order.sort_unstable();
        index.extend(order);
    }
    Ok(index)
}

/// Reads one JSON row, its `images` beside the other fields.
pub fn row_from(mut fields: Map<String, Value>, images: Option<Vec<RawImage>>, at: &RowContext) -> Read<Row> {
    let images = match (images, fields.remove("images").or_else(|| fields.remove("image"))) {
        (Some(images), _) => images,
        (None, Some(value)) => form::json_images(&value, at)?,
        (None, None) => Vec::new(),
    };
    form::read_row(fields, images, at)
}

/// Where a line of a file of JSON lines stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// Its object's number, from 0.
    pub index: usize,
    /// Its own number, from 1.
    pub number: usize,
    /// The byte it begins at.
    pub offset: u64,
}

/// Gives each of the first `limit` objects of a file of JSON lines to `take`, and what it says. Blank lines are no
/// objects.
pub(crate) fn jsonl(
    path: &Path,
    limit: usize,
    mut take: impl FnMut(Line, Result<Map<String, Value>>) -> Result<()>,
) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path))?);
    let (mut line, mut at, mut next) = (Vec::new(), Line { index: 0, number: 0, offset: 0 }, 0);
    while at.index < limit {
        line.clear();
        let mut limited = (&mut reader).take(LINE_LIMIT as u64 + 1);
        let read = limited.read_until(b'\n', &mut line).map_err(Error::io(path))?;
        if read == 0 {
            break;
        }
        (at.number, at.offset, next) = (at.number + 1, next, next + read as u64);
        if line.len() > LINE_LIMIT {
            return Err(Error::format(path, format!("line {} is longer than {LINE_LIMIT} bytes", at.number)));
        }
        let bytes = if at.number == 1 { without_mark(&line) } else { &line };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        take(at, json_line(path, &format!("line {}", at.number), bytes))?;
        at.index += 1;
    }
    Ok(())
}

/// A file's first line without the mark of its byte order.
fn without_mark(line: &[u8]) -> &[u8] {
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

fn json_line(path: &Path, place: &str, bytes: &[u8]) -> Result<Map<String, Value>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::format(path, format!("{place}: invalid UTF-8 at byte {} of the line", e.valid_up_to())))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::format(path, format!("{place}: found no JSON object, expected one row"))),
        Err(e) => {
            // The parser's "line" is always this one line.
            let what = e.to_string().replace(" at line 1 column ", " at character ");
            Err(Error::format(path, format!("{place}: bad JSON ({what})")))
        }
    }
}
