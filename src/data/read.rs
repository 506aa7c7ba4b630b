//! Data files in: parquet and JSONL, to rows. Every fault names the file and the row.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::config::{DataType, DatasetConfig};
use crate::data::folder::Folder;
use crate::data::form::{self, RawImage, RowContext};
use crate::data::{Row, columns};
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

/// Gives each row of a data set to `take`, in order, and a row that cannot be read as its error (what `take` returns
/// then decides whether to go on). Faults of the file as a whole end the reading.
pub fn for_each(entry: &DatasetConfig, mut take: impl FnMut(Result<Row>) -> Result<()>) -> Result<()> {
    let (folder, name) = (folder(entry)?, name(entry));
    let limit = entry.limit.unwrap_or(usize::MAX);
    let row = |index: usize, fields: Map<String, Value>, images: Option<Vec<RawImage>>| {
        let place = format!("{} row {}", entry.path.display(), index + 1);
        row_from(fields, images, &RowContext { folder: &folder, dataset: &name, index, place })
    };
    match kind(entry) {
        DataType::Parquet => columns::read(&entry.path, limit, |index, read| {
            take(read.and_then(|(fields, images)| row(index, fields, images)))
        }),
        DataType::Jsonl => {
            jsonl(&entry.path, limit, |index, _, read| take(read.and_then(|fields| row(index, fields, None))))
        }
    }
}

/// Reads several data sets into rows and the order-free index of one epoch: row i stands in it as often as its set's
/// weight says (the fraction drawn by `seed`).
pub fn load(entries: &[DatasetConfig], seed: u64) -> Result<(Vec<Row>, Vec<u32>)> {
    let (mut rows, mut index) = (Vec::new(), Vec::new());
    for (k, entry) in entries.iter().enumerate() {
        let weight = entry.weight;
        if !(0.0..=1e6).contains(&weight) {
            return Err(Error::input(format!("datasets[{k}].weight"), weight.to_string(), "a number from 0 to 1e6"));
        }
        let first = rows.len() as u32;
        rows.extend(read(entry)?);
        if rows.len() as u32 == first {
            return Err(Error::input(entry.path.display().to_string(), "no rows", "at least one"));
        }
        let all: Vec<u32> = (first..rows.len() as u32).collect();
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
    Ok((rows, index))
}

/// Reads one JSON row, its `images` beside the other fields.
pub fn row_from(mut fields: Map<String, Value>, images: Option<Vec<RawImage>>, at: &RowContext) -> Result<Row> {
    let images = match (images, fields.remove("images").or_else(|| fields.remove("image"))) {
        (Some(images), _) => images,
        (None, Some(value)) => form::json_images(&value, at)?,
        (None, None) => Vec::new(),
    };
    form::read_row(fields, images, at)
}

/// Gives each of the first `limit` objects of a file of JSON lines to `take`: its index, its line's number from 1, and
/// what it says. Blank lines are no objects.
pub(crate) fn jsonl(
    path: &Path,
    limit: usize,
    mut take: impl FnMut(usize, usize, Result<Map<String, Value>>) -> Result<()>,
) -> Result<()> {
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path))?);
    let (mut line, mut number, mut index) = (Vec::new(), 0usize, 0usize);
    while index < limit {
        line.clear();
        let mut limited = std::io::Read::take(&mut reader, LINE_LIMIT as u64 + 1);
        if limited.read_until(b'\n', &mut line).map_err(Error::io(path))? == 0 {
            break;
        }
        number += 1;
        if line.len() > LINE_LIMIT {
            return Err(Error::format(path, format!("line {number} is longer than {LINE_LIMIT} bytes")));
        }
        let bytes = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        take(index, number, json_line(path, number, bytes))?;
        index += 1;
    }
    Ok(())
}

fn json_line(path: &Path, number: usize, bytes: &[u8]) -> Result<Map<String, Value>> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        Error::format(path, format!("line {number}: invalid UTF-8 at byte {} of the line", e.valid_up_to()))
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::format(path, format!("line {number}: found no JSON object, expected one row"))),
        Err(e) => {
            // The parser's "line" is always this one line.
            let what = e.to_string().replace(" at line 1 column ", " at character ");
            Err(Error::format(path, format!("line {number}: bad JSON ({what})")))
        }
    }
}
